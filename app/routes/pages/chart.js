/** Usage by day, stacked: bars that uPlot draws, their legend, and the same as a table. */
import { $, h, say, t } from "./dom.js";
import { table } from "./tables.js";

const MOST = 7; // names with a colour of their own; the rest share the last one
const HEIGHT = 220;

export class UsageChart {
  #plot = null;
  #report = null;
  #by = "bot";
  #measure = "tokens";

  constructor() {
    new ResizeObserver(() => this.#resize()).observe($("chart"));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.paint());
  }

  show(report, by) {
    [this.#report, this.#by] = [report, by];
    this.paint();
  }

  /** `tokens`, `chats`, `input` or `output`. */
  set measure(name) {
    this.#measure = name;
    this.paint();
  }

  paint() {
    this.#plot?.destroy();
    this.#plot = null;
    for (const name of ["legend", "usage-table"]) $(name).replaceChildren();
    $("chart").hidden = $("legend").hidden = $("usage-details").hidden = true;
    if (!this.#report) return say($("usage-note"), "plainText", { text: "" });
    const { from, to, total, rows } = this.#report;
    this.days = daysBetween(from, to);
    this.stacks = stacksOf(rows, this.#by, this.#measure, this.days);
    this.#sayDays();
    const says = { measure: t(this.#measure), from, to, by: t(this.#by), total: number(total[this.#measure]) };
    $("chart").dataset.tLabel = "chartSays";
    $("chart").dataset.tValues = JSON.stringify(says);
    $("chart").setAttribute("aria-label", t("chartSays", says));
    $("chart").hidden = $("legend").hidden = $("usage-details").hidden = !rows.length;
    if (!rows.length) return undefined;
    this.#legend(null);
    this.#table();
    this.#draw();
    return undefined;
  }

  #sayDays() {
    const { from, to, total, rows } = this.#report;
    if (rows.length) say($("usage-note"), "usageDays", { from, to, total: number(total[this.#measure]) });
    else say($("usage-note"), "noUsage");
  }

  /** Bars from the ground up to the sum so far, the highest first: each next one hides the lower part. */
  #draw() {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const font = `12px ${style.fontFamily}`;
    let sums = this.days.map(() => 0);
    const layers = this.stacks.map((stack) => (sums = sums.map((sum, day) => sum + stack.values[day])));
    const axis = { stroke: colour("--soft"), font, grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
    const bars = uPlot.paths.bars({ size: [0.7, 48], radius: 0.08 });
    const last = this.days.length;
    this.#plot = new uPlot(
      {
        width: $("chart").clientWidth,
        height: HEIGHT,
        legend: { show: false },
        cursor: { y: false, points: { show: false }, drag: { x: false, y: false } },
        scales: { x: { time: false, range: [-0.6, last - 0.4] }, y: { range: (_, __, most) => [0, Math.max(most * 1.08, 1)] } },
        axes: [
          { ...axis, grid: { show: false }, size: 30, space: 56, incrs: [1, 2, 5, 7, 10], values: (_, all) => all.map((n) => this.days[n]?.slice(5) ?? "") },
          { ...axis, size: 62, space: 36, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6, 2e6, 5e6, 1e7, 1e8, 1e9], values: (_, all) => all.map(short) },
        ],
        series: [{}, ...layers.map((_, n) => ({ fill: colour(this.stacks[n].colour), stroke: colour("--surface"), width: 1, paths: bars, points: { show: false } })).reverse()],
        hooks: { setCursor: [(plot) => this.#legend(plot.cursor.idx)] },
      },
      [this.days.map((_, n) => n), ...[...layers].reverse()],
      $("chart"),
    );
  }

  /** With the sums of all days, or of the day under the pointer. */
  #legend(day) {
    const on = day !== null && day !== undefined;
    const value = (stack) => (on ? stack.values[day] : stack.total);
    $("legend").replaceChildren(
      ...this.stacks.map((stack) => h("li", {}, h("span", { class: `swatch ${stack.colour.slice(2)}`, "aria-hidden": "true" }), nameOf(stack), h("b", {}, number(value(stack))))),
    );
    if (on) say($("usage-note"), "usageOfDay", { day: this.days[day], total: number(this.stacks.reduce((sum, stack) => sum + stack.values[day], 0)) });
    else this.#sayDays();
  }

  #table() {
    const sums = new Map();
    for (const row of this.#report.rows) {
      const name = row[`${this.#by}_id`];
      const sum = sums.get(name) ?? sums.set(name, { chats: 0, tokens: 0, input: 0, output: 0 }).get(name);
      for (const key of Object.keys(sum)) sum[key] += row[key];
    }
    const sorted = [...sums].sort(([, a], [, b]) => b[this.#measure] - a[this.#measure]);
    const counts = ["chats", "tokens", "input", "output"];
    const rows = sorted.map(([name, sum]) => [nameOf({ name }), ...counts.map((key) => number(sum[key]))]);
    $("usage-table").replaceChildren(table(["name", ...counts], rows, { numbers: counts }));
  }

  #resize() {
    const width = $("chart").clientWidth;
    if (this.#plot && width && width !== this.#plot.width) this.#plot.setSize({ width, height: HEIGHT });
  }
}

function nameOf({ name, others }) {
  if (others) return h("span", { t: "others", values: { count: others } });
  return name ? h("span", { class: "id" }, name) : h("span", { t: "unnamed" });
}

/** `[{name, values, total, colour}]`, the biggest first; what finds no colour of its own is one at the end. */
function stacksOf(rows, by, measure, days) {
  const found = new Map();
  for (const row of rows) {
    const name = row[`${by}_id`];
    const stack = found.get(name) ?? found.set(name, { name, values: days.map(() => 0), total: 0 }).get(name);
    stack.values[days.indexOf(row.day)] += row[measure];
    stack.total += row[measure];
  }
  const sorted = [...found.values()].sort((a, b) => b.total - a.total);
  const most = sorted.length > MOST + 1 ? MOST : sorted.length;
  const [own, rest] = [sorted.slice(0, most), sorted.slice(most)];
  if (rest.length) {
    const values = days.map((_, day) => rest.reduce((sum, stack) => sum + stack.values[day], 0));
    own.push({ others: rest.length, values, total: rest.reduce((sum, stack) => sum + stack.total, 0) });
  }
  return own.map((stack, n) => ({ ...stack, colour: `--series-${n + 1}` }));
}

function daysBetween(from, to) {
  const days = [];
  for (let day = Date.parse(from); day <= Date.parse(to); day += 86_400_000) days.push(new Date(day).toISOString().slice(0, 10));
  return days;
}

/** `12,345` */
export const number = (value) => value.toLocaleString("en-US");

/** `12k`, `3.4M`: for an axis. */
function short(value) {
  if (value >= 1e6) return `${+(value / 1e6).toFixed(1)}M`;
  return value >= 1e4 ? `${+(value / 1e3).toFixed(1)}k` : number(value);
}
