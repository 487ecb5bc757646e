/** What the ledger holds, in words: amounts, times, and what a permit allows. */

const UNITS = [["day", 86_400_000], ["hour", 3_600_000], ["minute", 60_000]];
const [HOUR_MS, MINUTE_MS, SECOND_MS] = [3_600_000, 60_000, 1_000];
const EXECUTIONS_PER_DAY = 500; // the executor's default, assumed where its limit isn't known

/** `text`, a whole number of base units, as a decimal number: digit for digit, never through a float. */
export function decimal(text, decimals) {
  const digits = String(text).padStart(decimals + 1, "0");
  const [whole, part] = [digits.slice(0, digits.length - decimals), digits.slice(digits.length - decimals)];
  const grouped = whole.replace(/\B(?=(\d{3})+$)/g, ",");
  const kept = part.replace(/0+$/, "");
  return kept ? `${grouped}.${kept}` : grouped;
}

/** Micro-dollars as dollars, with at least cents. */
export function usd(microUsd) {
  const [whole, part = ""] = decimal(microUsd, 6).split(".");
  return `$${whole}.${part.padEnd(2, "0")}`;
}

/** An amount of one of the assets of `bounds`, which names it by symbol or mint. */
export function amount(units, name, bounds) {
  const place = bounds?.permit.assetWhitelist.indexOf(name) ?? -1;
  return place < 0 ? `${units} units of ${name}` : `${decimal(units, bounds.assets[place].decimals)} ${name}`;
}

const UTC = { timeStyle: "medium", timeZone: "UTC", hourCycle: "h23" };
const TIME = new Intl.DateTimeFormat("en", { dateStyle: "medium", ...UTC });
const CLOCK = new Intl.DateTimeFormat("en", UTC);
export const time = (when) => `${TIME.format(new Date(when))} UTC`;
export const clock = (when) => `${CLOCK.format(new Date(when))} UTC`;

/** A moment from which on, or until which, something holds: with its milliseconds, if it has any. */
export function moment(when) {
  const ms = new Date(when).getUTCMilliseconds();
  return ms ? time(when).replace(/ UTC$/, `.${String(ms).padStart(3, "0")} UTC`) : time(when);
}

/** A length of time, exactly: `1 day 2 hours 30 minutes`. */
function duration(ms) {
  const parts = [];
  let rest = ms;
  for (const [unit, length] of UNITS) {
    parts.push([Math.floor(rest / length), unit]);
    rest %= length;
  }
  const said = [...parts, [rest / SECOND_MS, "second"]].filter(([count]) => count > 0);
  return said.map(([count, unit]) => `${count} ${unit}${count === 1 ? "" : "s"}`).join(" ") || "0 seconds";
}

/** A length of time, never less than it is: to the minute from an hour on, else to the second. */
export function roughly(ms) {
  const grain = ms >= HOUR_MS ? MINUTE_MS : SECOND_MS;
  return duration(Math.ceil(ms / grain) * grain);
}

/** The first and the last characters of an id: enough to tell two apart. */
export const short = (id) => (id.length > 13 ? `${id.slice(0, 6)}…${id.slice(-5)}` : id);

/** A code in lowercase words: `AMOUNT_OVER_CAP` is `amount over cap`. */
export const plain = (code) => code.toLowerCase().replaceAll("_", " ");

/**
 * What `permit` allows, a sentence each.
 * @param {object} permit the seven keys
 * @param {number | null} now Unix ms; null says nothing of what is left of its time
 * @param {{executionsPer24H: number, notionalMicroUsdPer24H?: number | string | null} | null} limits that hold for
 *   every wallet of the executor; null: they aren't known
 */
export function allows(permit, now, limits) {
  const [issued, expires] = [Date.parse(permit.issuedAt), Date.parse(permit.expiresAt)];
  const cap = BigInt(Math.round(permit.maxAmountPerExecutionUsd * 100)) * 10_000n; // micro-dollars
  const [most, last] = [permit.assetWhitelist.slice(0, -1), permit.assetWhitelist.at(-1)];
  return [
    `May trade ${most.length ? `${most.join(", ")} and ${last} with each other` : `${last} alone, so nothing`}.`,
    `At most ${usd(cap)} at a time.${most.length ? ` ${worst(cap, limits)}` : ""}`,
    `Until ${moment(expires)}${now === null ? "" : `: ${left(issued, expires, now)}`}.`,
  ];
}

/** The most that executions of at most `cap` micro-dollars each may be worth within a day. */
function worst(cap, limits) {
  if (limits === null) {
    return (
      `If the executor has the usual limit of ${EXECUTIONS_PER_DAY} executions in any 24 hours, which its operator ` +
      `can change, that is ${usd(cap * BigInt(EXECUTIONS_PER_DAY))} in 24 hours at most.`
    );
  }
  const { executionsPer24H: count, notionalMicroUsdPer24H: notional } = limits;
  const byCount = cap * BigInt(count);
  if (notional !== null && notional !== undefined && BigInt(notional) < byCount) {
    return `In any 24 hours all of the wallet's agents together may trade ${usd(notional)} at most.`;
  }
  const times = `${count} execution${count === 1 ? "" : "s"}`;
  return `In any 24 hours all of the wallet's agents together have ${times}: by this permit ${usd(byCount)} at most.`;
}

function left(issued, expires, now) {
  if (now >= expires) return "that is over";
  return now < issued ? "it has not begun" : `${roughly(expires - now)} left`;
}
