/** Tables, and times as a person says them. */
import { h, moment, t } from "./dom.js";

/**
 * A table with heads by their keys and rows of texts or elements. `numbers`: heads of columns that are
 * numbers. `empty`: what is said where there are no rows.
 */
export function table(heads, rows, { numbers = [], empty = "" } = {}) {
  if (!rows.length && empty) return h("p", { class: "note", t: empty });
  const align = (n) => (numbers.includes(heads[n]) ? { class: "number" } : {});
  return h(
    "table",
    {},
    h("thead", {}, h("tr", {}, ...heads.map((head, n) => (head ? h("th", { scope: "col", ...align(n), t: head }) : h("td"))))),
    h("tbody", {}, ...rows.map((row) => h("tr", {}, ...row.map((cell, n) => h("td", align(n), cell))))),
  );
}

/** An id that is too long for its column: its end, with all of it for whoever points at it or copies it. */
export const id = (text, tail = 0) => h("span", { class: "id", title: text }, tail && text.length > tail + 1 ? `…${text.slice(-tail)}` : text);

/** The moment, with the exact one for whoever points at it. */
export const time = (text) => (text ? h("time", { datetime: text, title: text }, moment(text)) : "–");

/** `42 s`, `5 min`, `3 h`, `12 d` */
export function span(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 90) return t("seconds", { n: seconds });
  if (seconds < 5400) return t("minutes", { n: Math.round(seconds / 60) });
  return seconds < 172_800 ? t("hours", { n: Math.round(seconds / 3600) }) : t("daysLong", { n: Math.round(seconds / 86_400) });
}

/** `12.3 MiB` */
export function size(bytes) {
  if (bytes === null) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const power = Math.min(units.length - 1, Math.floor(Math.log2(Math.max(bytes, 1)) / 10));
  return `${+(bytes / 1024 ** power).toFixed(1)} ${units[power]}`;
}
