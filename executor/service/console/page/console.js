/** The page: who is signed in, what it shows of them, and what they can do. State is the service's; this asks again. */

import { chart } from "./chart.js";
import { byId, fill, h, show } from "./elements.js";
import { inspect } from "./inspector.js";
import { Problem, Service } from "./service.js";
import { trace } from "./trace.js";
import { findWallets } from "./wallets.js";
import { allows, amount, clock, decimal, moment, plain, short, time, usd } from "./words.js";

const FEED_MAX = 100;
const REFRESH_MS = 30_000; // time passes, and an operator's halt is no event
const SETTLE_MS = 500; // events come in bursts; state is read once after each
const RANK = { active: 0, paused: 1, reserved: 2, stopped: 3, completed: 4 };
const STATES = ["refused", "authorized", "voided", "signed", "landed", "failed", "dead"];

/** What is known of the one who is signed in; null before, and after. */
let session = null;

// Signing in and out

async function signIn(how) {
  let mine = null;
  try {
    const service = await how();
    if (session) return; // somebody was faster: the same user, by a second click
    mine = session = { service, agents: [], limits: null, aheadMs: 0, link: "connecting" };
    await refresh();
  } catch (error) {
    if (session === mine) session = null;
    tell(error);
    return;
  }
  if (session !== mine) return;
  tell(null);
  for (const id of ["whose", "link", "account", "state"]) show(byId(id));
  show(byId("sign-in"), false);
  byId("main").focus();
  follow(mine);
  await attempt(showExecutions);
}

/** Forget all of it. Whatever is still under way finds that its session is over, and shows nothing. */
function signOut(why) {
  session?.service.forget();
  session = null;
  for (const id of ["whose", "link", "account", "state"]) show(byId(id), false);
  show(byId("sign-in"));
  for (const id of ["agents", "feed", "executions", "headroom", "chart"]) byId(id).replaceChildren();
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  byId("token").value = "";
  tell(why ?? null);
}

/** Say what went wrong; null: nothing. Whoever isn't believed any more is signed out. */
function tell(error) {
  if (error instanceof Problem && error.status === 401 && session) {
    signOut(new Error("your sign-in is over: sign in again"));
    return;
  }
  byId("problem").textContent = error ? `Not done: ${error.message}` : "";
  show(byId("problem"), Boolean(error));
}

/** Do `work`, which may fail; say so if it does. */
async function attempt(work) {
  try {
    return await work();
  } catch (error) {
    tell(error);
    return undefined;
  }
}

// State, by REST

async function refresh() {
  const asked = session;
  if (!asked) return;
  const paths = ["api/headroom", "api/agents", "api/halts", "api/activity"];
  const [headroom, { agents }, { halts }, activity] = await Promise.all(paths.map((path) => asked.service.get(path)));
  if (session !== asked) return;
  Object.assign(session, { agents, limits: limitsOf(headroom), aheadMs: Date.parse(headroom.at) - Date.now() });
  session.asOf ??= activity.asOf;
  const whose = byId("whose");
  fill(whose, "Wallet ", h("code", { title: headroom.walletAddress }, short(headroom.walletAddress)));
  showHalts(halts);
  showAgents(agents, halts);
  showHeadroom(headroom);
  fill(byId("chart"), chart(activity));
  offerAgents(agents);
}

/** The limits that hold for every wallet here, spelled as in an execution's evidence. */
const limitsOf = ({ executionsPer24H, notionalMicroUsdPer24H }) => ({
  executionsPer24H: executionsPer24H.limit,
  notionalMicroUsdPer24H: notionalMicroUsdPer24H?.limit,
});

const now = () => Date.now() + (session?.aheadMs ?? 0);

let settling = null;
function refreshSoon() {
  settling ??= setTimeout(async () => {
    settling = null;
    try {
      await refresh();
      if (!session?.paged) await showExecutions();
      sayLink({ trouble: null });
    } catch (error) {
      if (error instanceof Problem && error.status === 401) tell(error);
      else sayLink({ trouble: `not up to date: ${error.message}` });
    }
  }, SETTLE_MS);
}

/** Say how the page hears of what happens: how its stream is, or what keeps it from reading the state. */
function sayLink(told) {
  if (!session) return;
  Object.assign(session, told);
  byId("link").textContent = session.trouble ?? session.link;
  byId("link").className = session.trouble ? "no" : session.link === "live" ? "yes" : "";
}

function showHalts(halts) {
  const held = { everything: "Everything", wallet: "All of your agents" };
  const items = halts.map(({ scope, agentId, by, why, at }) => {
    const lifting = { type: "button", "data-key": `lift ${agentId}`, onclick: () => lift(scope, agentId) };
    return h(
      "li",
      {},
      h("b", {}, held[scope] ?? `Agent ${short(agentId)}`),
      ` by ${by === "user" ? "you" : "the operator"}, since ${time(at)}: ${why} `,
      by === "user" && h("button", lifting, "Lift"),
    );
  });
  fill(byId("halts").querySelector("ul"), ...items);
  show(byId("halts"), halts.length > 0);
}

/** Those that may fire first. */
const ranked = (agents) => agents.toSorted((one, other) => RANK[one.state] - RANK[other.state]);

function showAgents(agents, halts) {
  const cards = ranked(agents).map(({ agentId, state, bounds }) => {
    const halted = halts.some((halt) => halt.scope !== "agent" || halt.agentId === agentId);
    const running = state === "active" || state === "paused";
    const over = state === "active" && bounds && now() >= Date.parse(bounds.permit.expiresAt);
    const button = (name, onclick, className = "") => {
      const label = `${name} agent ${short(agentId)}`;
      const key = `${name} ${agentId}`;
      return h("button", { type: "button", className, "aria-label": label, "data-key": key, onclick }, name);
    };
    return h(
      "li.card",
      {},
      h(
        "h3",
        { title: agentId },
        `Agent ${short(agentId)} `,
        h(`span.badge.${state}`, {}, over ? "permit over" : state),
        halted && h("span.badge.no", {}, "halted"),
      ),
      bounds
        ? allows(bounds.permit, running ? now() : null, session.limits).map((sentence) => h("p", {}, sentence))
        : h("p", {}, "No permit was signed for it yet."),
      ["stopped", "completed"].includes(state) && h("p", {}, `It is ${state}, whatever the permit says.`),
      h(
        "p.row",
        {},
        button("Executions", () => showExecutionsOf(agentId)),
        running && button("Halt", () => halt("agent", agentId)),
        running && button("Stop", () => stop(agentId), "danger"),
      ),
    );
  });
  fill(byId("agents"), ...(cards.length ? cards : [h("li.quiet", {}, "None yet.")]));
}

function showHeadroom({ activeAgents, executionsPer24H, notionalMicroUsdPer24H, autofundLamportsPer24H, nextSlotAt }) {
  const gauge = (label, room, spell) => {
    const [used, limit] = [Number(room.used), Number(room.limit)];
    const told = `${spell(room.used)} of ${spell(room.limit)}`;
    const meter = h("meter", { min: 0, max: limit || 1, low: 0.7 * limit, high: 0.9 * limit, optimum: 0, value: used });
    return h("label.gauge", {}, h("span", {}, label), meter, h("span", {}, told));
  };
  const full = executionsPer24H.used >= executionsPer24H.limit;
  const sol = (lamports) => `${decimal(lamports, 9)} SOL`;
  fill(
    byId("headroom"),
    gauge("Active agents", activeAgents, String),
    gauge("Executions in 24 hours", executionsPer24H, String),
    notionalMicroUsdPer24H && gauge("Value in 24 hours", notionalMicroUsdPer24H, usd),
    autofundLamportsPer24H && gauge("Funded in 24 hours", autofundLamportsPer24H, sol),
    full && nextSlotAt && h("p", {}, `The next execution is possible at ${moment(nextSlotAt)}.`),
  );
}

// Events, as they happen

/** Tell the feed what happened lately, and what happens; whatever happens, state is read anew. */
async function follow(followed) {
  const { service, asOf } = followed;
  const [epoch, seq] = [asOf.slice(0, asOf.indexOf("-")), Number(asOf.slice(asOf.indexOf("-") + 1))];
  sayLink({});
  await service.follow(`${epoch}-${Math.max(0, seq - FEED_MAX)}`, {
    onEvent(name, data, id) {
      if (session !== followed) return;
      const [itsEpoch, itsSeq] = id.split("-");
      addToFeed(name, data, itsEpoch !== epoch || Number(itsSeq) > seq);
      refreshSoon();
    },
    onReset() {
      if (session !== followed) return;
      byId("feed").prepend(h("li", {}, "The ledger was restored: what is shown was read anew."));
      refreshSoon();
    },
    onOpen(open) {
      if (session !== followed) return;
      sayLink({ link: open ? "live" : "connecting again" });
    },
    onEnd(problem) {
      if (session !== followed) return;
      if (problem.status === 401) tell(problem);
      else sayLink({ link: "no live events: this service gives no stream tickets" });
    },
  });
}

function addToFeed(name, data, isNew) {
  const told = {
    executed: () => `filled ${data.filledAmount} at $${data.filledPriceUsd} on ${data.rail}`,
    errored: () => plain(data.reason),
    next_run_changed: () => (data.nextRunAt ? `next run at ${time(data.nextRunAt)}` : "no next run"),
    trigger_armed: () => `trigger armed: ${data.condition}`,
    completed: () => `is over: ${data.terminalReason}`,
  }[name]();
  const words = [
    h(`span.badge.${name}`, {}, plain(name)),
    ` agent ${short(data.agentId)}: ${told}`,
    isNew && h("span.quiet", {}, ` · ${clock(now())}`),
  ];
  const traced = name === "executed" || name === "errored";
  const line = traced
    ? h("button.line", { type: "button", onclick: () => showTrace(data.executionId) }, ...words)
    : h("span.line", {}, ...words);
  const feed = byId("feed");
  feed.prepend(h("li", {}, line));
  while (feed.childElementCount > FEED_MAX) feed.lastElementChild.remove();
}

// Executions

const filter = byId("filter");

function offerAgents(agents) {
  const chosen = filter.agentId.value;
  fill(filter.agentId, ...ranked(agents).map(({ agentId }) => h("option", { value: agentId }, short(agentId))));
  if (agents.some(({ agentId }) => agentId === chosen)) filter.agentId.value = chosen;
}

async function showExecutionsOf(agentId) {
  filter.agentId.value = agentId;
  await attempt(showExecutions);
  byId("executions-title").scrollIntoView();
  filter.agentId.focus();
}

/** Show the newest that the filter lets through; with `cursor`, add those before. */
async function showExecutions(cursor = null) {
  const asked = session;
  const agentId = filter.agentId.value;
  if (!asked || !agentId) return;
  const { bounds } = asked.agents.find((agent) => agent.agentId === agentId);
  const reason = filter.reason.value.trim().toUpperCase().replaceAll(" ", "_");
  const query = Object.entries({ limit: 20, cursor, status: filter.status.value, reason }).filter(([, value]) => value);
  const page = await asked.service.get(`api/agents/${agentId}/executions?${new URLSearchParams(query)}`);
  if (session !== asked || filter.agentId.value !== agentId) return;
  session.paged = cursor !== null; // whoever reads on isn't sent back to the newest
  const lines = page.executions.map((one) =>
    h(
      "li",
      {},
      h(
        "button.line",
        { type: "button", "data-key": one.executionId, onclick: () => showTrace(one.executionId) },
        h(`span.badge.${one.state}`, {}, one.state),
        ` ${amount(one.sellAmount, one.sell, bounds)} for at least ${amount(one.minReceived, one.buy, bounds)}`,
        one.reason && ` · ${plain(one.reason)}`,
        h("span.quiet", {}, ` · ${time(one.decidedAt)}`),
      ),
    ),
  );
  if (cursor) byId("executions").append(...lines);
  else fill(byId("executions"), ...(lines.length ? lines : [h("li.quiet", {}, "None.")]));
  const more = byId("more");
  show(more, page.nextCursor !== null);
  more.onclick = () => attempt(() => showExecutions(page.nextCursor));
}

async function showTrace(executionId) {
  const execution = await attempt(() => session.service.get(`api/executions/${executionId}`));
  if (!execution) return;
  openDialog("trace", `Execution ${short(executionId)}`, [...trace(execution), closing("Close")]);
}

// What one can do here: only ever less may happen afterwards

function halt(scope, agentId) {
  const what = scope === "wallet" ? "all of your agents" : `agent ${short(agentId)}`;
  confirm(
    `Halt ${what}?`,
    "Nothing fires until you lift the halt. What was signed before may still land.",
    (why) => session.service.post("api/halts", { scope, ...(agentId && { agentId }), why }),
    { asksWhy: true },
  );
}

function lift(scope, agentId) {
  confirm("Lift the halt?", "Agents may fire again, by the permits that you signed.", () =>
    session.service.post("api/halts/lift", { scope, ...(agentId && { agentId }) }),
  );
}

function stop(agentId) {
  confirm(
    `Stop agent ${short(agentId)}?`,
    "Its permit ends now. Only a new permit, signed by your wallet, starts it again.",
    () => session.service.post(`api/agents/${agentId}/stop`),
  );
}

/** Ask first; then do it, and say what may still land all the same. */
function confirm(title, text, act, { asksWhy = false } = {}) {
  const why = h("input", { id: "why", maxLength: 200, required: true, value: "halted by me", autocomplete: "off" });
  const form = h(
    "form",
    {
      onsubmit: async (event) => {
        event.preventDefault();
        tell(null);
        const answer = await attempt(() => act(why.value));
        await attempt(refresh);
        const landing = (answer?.mayStillLand ?? []).map((signature) => h("p", {}, h("code", {}, signature)));
        if (!landing.length) byId("confirm").close();
        else openDialog("confirm", "Done. What was signed before may still land:", [...landing, closing("Close")]);
      },
    },
    h("p", {}, text),
    asksWhy && h("label", {}, "Why ", why),
    h("p.row", {}, closing("Cancel"), h("button.danger", { type: "submit" }, title.replace("?", ""))),
  );
  openDialog("confirm", title, [form]);
}

const closing = (name) =>
  h("button", { type: "button", onclick: ({ target }) => target.closest("dialog").close() }, name);

function openDialog(id, title, children) {
  const dialog = byId(id);
  dialog.replaceChildren(h("h2", { id: `${id}-title` }, title), ...children);
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
}

// What is there from the start

findWallets((name, connect) => {
  const onclick = () => signIn(async () => Service.signIn(await connect()));
  byId("wallets").append(h("button.primary", { type: "button", onclick }, `Sign in with ${name}`));
});
byId("by-token").onsubmit = (event) => {
  event.preventDefault();
  signIn(() => new Service(byId("token").value.trim()));
};
byId("sign-out").onclick = () => signOut();
byId("halt-wallet").onclick = () => halt("wallet");
byId("inspector").onsubmit = async (event) => {
  event.preventDefault();
  const verdict = await attempt(() => inspect(byId("permit").value, now(), session?.limits ?? null));
  fill(byId("verdict"), ...(verdict ?? []));
};
fill(filter.status, h("option", { value: "" }, "any"), ...STATES.map((state) => h("option", {}, state)));
filter.onchange = () => attempt(showExecutions);
filter.onsubmit = (event) => event.preventDefault();
setInterval(() => session && !document.hidden && refreshSoon(), REFRESH_MS);
document.addEventListener("visibilitychange", () => session && !document.hidden && refreshSoon());
