/** One execution from the permit to the chain: what was allowed, what was decided and why, and what became of it. */

import { h, heading, table, terms } from "./elements.js";
import { allows, amount, decimal, moment, plain, roughly, short, time, usd } from "./words.js";

/** Return the trace of `execution` (GET /api/executions/{id}). */
export function trace(execution) {
  const { bounds, decision, decidedAt, evidence, steps } = execution;
  const when = Date.parse(decidedAt);
  const allowed = decision.outcome === "allowed";
  return [
    h("h3", {}, "1. The permit"),
    ...allows(bounds.permit, when, evidence.limits).map((sentence) => h("p", {}, sentence)),
    terms([
      ["permit", h("code", {}, bounds.permitId)],
      ["signed by", h("code", {}, bounds.wallet)],
      ["session key", h("code", {}, bounds.permit.sessionPubkey)],
    ]),

    h("h3", {}, "2. The decision"),
    h(
      "p",
      {},
      h(`strong.${allowed ? "yes" : "no"}`, {}, allowed ? "Allowed" : `Refused: ${plain(decision.reason)}`),
      ` at ${time(when)}, to sell at most ${amount(execution.sellAmount, execution.sell, bounds)} `,
      `for at least ${amount(execution.minReceived, execution.buy, bounds)}`,
      allowed ? `, worth ${usd(decision.valueMicroUsd)}.` : ".",
    ),
    checks(execution, when),

    h("h3", {}, "3. The transaction"),
    ...transaction(execution),

    h("h3", {}, "In the ledger"),
    h(
      "ol.lines",
      {},
      ...steps.map(({ kind, at, seq, hash }) =>
        h("li", {}, h("span.badge", {}, kind), ` ${time(at)} · entry ${seq} · `, h("code", {}, hash)),
      ),
    ),
    h(
      "details",
      {},
      h("summary", {}, "The evidence, as the ledger holds it"),
      h("pre", { tabIndex: 0 }, JSON.stringify(evidence, null, 2)),
    ),
  ];
}

/**
 * Every rule with what it was held against. Whether it held is the ledger's word: a rule that said no is among the
 * decision's checks, with its limit and what was found. A rule is not asked where what it needs is missing, and none is
 * where a refusal has no checks.
 */
function checks(execution, when) {
  const { decision } = execution;
  const failed = decision.checks ?? [];
  const failedBy = (reasons) => failed.filter(({ reason }) => reasons.includes(reason));
  const none = decision.outcome === "refused" && !failed.length;
  const rows = rules(execution, when).map(([rule, reasons, found, needs = []]) => {
    const noes = failedBy(reasons);
    const asked = !none && (noes.length > 0 || !failedBy(needs).length);
    return { rule, noes, asked, found: noes.length ? noes.map(said) : asked ? found : "not asked" };
  });
  const known = rows.flatMap(({ noes }) => noes);
  for (const no of failed.filter((check) => !known.includes(check))) {
    rows.push({ rule: plain(no.reason), noes: [no], asked: true, found: [said(no)] });
  }
  const verdict = ({ noes, asked }) => {
    if (!asked) return h("td", {}, "–");
    return noes.length ? h("td.no", {}, "✗ no") : h("td.yes", {}, "✓ yes");
  };
  return table(
    ["", "rule", "found"],
    rows.map((row) => [verdict(row), heading(row.rule), h("td", {}, row.found)]),
  );
}

const said = ({ reason, limit, actual, retryAt }) =>
  h("p", {}, h("code", {}, reason), ` allowed: ${limit}; found: ${actual}`, retryAt && `; again at ${moment(retryAt)}`);

const UNLISTED = ["ASSET_NOT_WHITELISTED"];
const UNPRICED = [...UNLISTED, "PRICE_MISSING", "PRICE_STALE"];

/** Each rule: the reasons that it says no by, what it found where it held, and what keeps it from being asked. */
function rules({ bounds, decision, evidence, sell, buy }, when) {
  const { usage, quotes, limits } = evidence;
  const { permit, assets } = bounds;
  const cap = usd(Math.round(permit.maxAmountPerExecutionUsd * 100) * 10_000);
  const value = decision.valueMicroUsd ? `${usd(decision.valueMicroUsd)} of ${cap}` : `within ${cap}`;
  const mints = [sell, buy].map((name) => assets[permit.assetWhitelist.indexOf(name)]?.mint);
  const priced = quotes.filter(({ mint }) => mints.includes(mint)).map((quote) => price(quote, assets, when));
  const slippage = limits.maxSlippageBps / 100;
  const ends = moment(permit.expiresAt);
  const inactive = ["AGENT_UNKNOWN", "AGENT_COMPLETED", "AGENT_STOPPED", "AGENT_PAUSED"];
  const found = [
    ["the agent is active", inactive, usage.agentState],
    ["nothing is halted", ["HALTED"], "no halt"],
    ["the permit outlasts the transaction", ["PERMIT_EXPIRED", "PERMIT_EXPIRING"], `it ends ${ends}`],
    ["the intent is free", ["INTENT_TAKEN"], "no other execution for it"],
    ["both assets are listed, and differ", [...UNLISTED, "ASSETS_IDENTICAL"], `${sell} and ${buy}`],
    ["both prices are known and fresh", ["PRICE_MISSING", "PRICE_STALE"], priced.join("; "), UNLISTED],
    ["the value is within the permit's cap", ["AMOUNT_OVER_CAP"], value, UNPRICED],
    ["enough comes back", ["MIN_RECEIVED_TOO_LOW"], `at most ${slippage} % below the quotes`, UNPRICED],
    ["active agents are within the cap", ["AGENTS_OVER_CAP"], `${usage.activeAgents} of ${limits.activeAgents}`],
    ["executions are within the cap", ["EXECUTIONS_OVER_CAP"], `fewer than ${limits.executionsPer24H} in 24 h`],
  ];
  if (limits.notionalMicroUsdPer24H !== undefined) {
    const most = `at most ${usd(limits.notionalMicroUsdPer24H)} in 24 h`;
    found.push(["the day's value is within the cap", ["NOTIONAL_OVER_CAP"], most, UNPRICED]);
  }
  if (limits.minIntervalMs) {
    found.push(["fires are far enough apart", ["INTERVAL_TOO_SHORT"], `${limits.minIntervalMs} ms at least`]);
  }
  return found;
}

function price({ mint, pricePicoUsd, source, atMs }, assets, when) {
  const { symbol } = assets.find((asset) => asset.mint === mint);
  const age = roughly(Math.max(0, when - atMs));
  return `${symbol ?? short(mint)} at $${decimal(pricePicoUsd, 12)} by ${source}, ${age} old`;
}

function transaction({ state, txSignature, fill, reason, rail, sell, buy, bounds }) {
  if (!txSignature) {
    const none = state === "authorized" ? "None yet: it may still be signed." : "None: nothing was signed.";
    return [h("p", {}, none, reason && state !== "refused" && ` It was given up: ${plain(reason)}.`)];
  }
  const outcome = [h("strong", {}, state), reason ? `: ${plain(reason)}` : "", ` on rail ${rail}.`];
  const filled = fill && [
    ["sold", amount(fill.sold, sell, bounds)],
    ["received", amount(fill.received, buy, bounds)],
    ["price", `$${fill.filledPriceUsd}`],
    ["fee", `${decimal(fill.feeLamports, 9)} SOL`],
    ["slot", fill.slot],
  ];
  return [h("p", {}, ...outcome), terms([["signature", h("code", {}, txSignature)], ...(filled ?? [])])];
}
