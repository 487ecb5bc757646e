/** A day in bars: what landed, and above it what was refused or failed, by reason. */

import { h, heading, table } from "./elements.js";
import { clock, plain } from "./words.js";

const REASONS_MAX = 4;

/** Return the chart of `activity` (GET /api/activity), its legend, and the same as a table. */
export function chart({ hours, complete }) {
  const totals = {};
  for (const { errored } of hours) {
    for (const [reason, count] of Object.entries(errored)) totals[reason] = (totals[reason] ?? 0) + count;
  }
  const ranked = Object.entries(totals).sort(([, one], [, other]) => other - one);
  const named = ranked.slice(0, REASONS_MAX).map(([reason]) => reason);
  const rest = ranked.slice(REASONS_MAX).map(([reason]) => reason);
  const sum = (errored, reasons) => reasons.reduce((all, reason) => all + (errored[reason] ?? 0), 0);
  const series = [
    { name: "executed", of: ({ executed }) => executed },
    ...named.map((reason) => ({ name: plain(reason), of: ({ errored }) => errored[reason] ?? 0 })),
    ...(rest.length ? [{ name: "other reasons", of: ({ errored }) => sum(errored, rest) }] : []),
  ].map((one) => ({ ...one, total: hours.reduce((all, hour) => all + one.of(hour), 0) }));

  const most = Math.max(1, ...hours.map((hour) => series.reduce((all, one) => all + one.of(hour), 0)));
  return [
    legend(series),
    h(
      "div.bars",
      { role: "img", "aria-label": `24 hours: ${series.map(({ name, total }) => `${total} ${name}`).join(", ")}` },
      ...hours.map((hour) => bar(hour, series, most)),
    ),
    h("p.axis.quiet", {}, h("span", {}, clock(hours[0].at)), h("span", {}, "now")),
    complete ? null : h("p.quiet", {}, "There were more than could be counted: the hours before are too low."),
    h("details", {}, h("summary", {}, "As a table"), numbers(hours, series)),
  ];
}

const legend = (series) =>
  h(
    "ul.legend",
    {},
    ...series.map(({ name, total }, place) =>
      h("li", {}, h(`span.swatch.series-${place}`), `${name} `, h("b", {}, total)),
    ),
  );

function bar(hour, series, most) {
  const parts = series.map((one, place) => {
    const part = h(`div.series-${place}`);
    part.style.height = `${(100 * one.of(hour)) / most}%`;
    return part;
  });
  const told = series.filter((one) => one.of(hour)).map((one) => `${one.of(hour)} ${one.name}`);
  return h("div.bar", { title: `${clock(hour.at)}: ${told.join(", ") || "nothing"}` }, ...parts.reverse());
}

function numbers(hours, series) {
  const busy = hours.filter((hour) => series.some((one) => one.of(hour)));
  return table(
    ["hour", ...series.map(({ name }) => name)],
    busy.map((hour) => [heading(clock(hour.at)), ...series.map((one) => h("td", {}, one.of(hour)))]),
  );
}
