/** What the ledger holds, in words: amounts, times, and what a permit allows. */

const DAY_MS = 86_400_000;
const EXECUTIONS_PER_DAY = 500;

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

/** A length of time by its largest unit, rounded down: `3 days`. */
export function duration(ms) {
  for (const [unit, length] of [["day", DAY_MS], ["hour", 3_600_000], ["minute", 60_000], ["second", 1_000]]) {
    const count = Math.floor(ms / length);
    if (count >= 1) return `${count} ${unit}${count === 1 ? "" : "s"}`;
  }
  return "less than a second";
}

/** The first and the last characters of an id: enough to tell two apart. */
export const short = (id) => (id.length > 13 ? `${id.slice(0, 6)}…${id.slice(-5)}` : id);

/** A code in lowercase words: `AMOUNT_OVER_CAP` is `amount over cap`. */
export const plain = (code) => code.toLowerCase().replaceAll("_", " ");

/** What `permit` allows, a sentence each; `now`: Unix ms, null says nothing of what is left of its time. */
export function allows(permit, now) {
  const [issued, expires] = [Date.parse(permit.issuedAt), Date.parse(permit.expiresAt)];
  const cents = Math.round(permit.maxAmountPerExecutionUsd * 100);
  const [most, last] = [permit.assetWhitelist.slice(0, -1), permit.assetWhitelist.at(-1)];
  return [
    `May trade ${most.length ? `${most.join(", ")} and ${last} with each other` : `${last} alone, so nothing`}.`,
    `At most ${usd(cents * 10_000)} at a time; ${EXECUTIONS_PER_DAY} times a day, that is ` +
      `${usd(cents * 10_000 * EXECUTIONS_PER_DAY)} at most.`,
    `Until ${time(expires)}${now === null ? "" : `: ${left(issued, expires, now)}`}.`,
  ];
}

function left(issued, expires, now) {
  if (now >= expires) return "that is over";
  return now < issued ? "it has not begun" : `${duration(expires - now)} left`;
}
