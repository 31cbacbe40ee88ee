/** Elements, icons, translated labels, the clipboard: what every view needs. */
import { STRINGS } from "./strings.js";

export const $ = (id) => document.getElementById(id);

const SVG = "http://www.w3.org/2000/svg";
let language = "en";

/** Texts of a page of its own, in both languages; they count before those that pages share. */
export function addStrings(more) {
  for (const name of Object.keys(STRINGS)) Object.assign(STRINGS[name], more[name]);
}

/** The text for `key` in the page's language; `{name}` is replaced by `values.name`. */
export function t(key, values = {}) {
  const text = STRINGS[language][key] ?? key;
  return text.replace(/\{(\w+)\}/g, (_, name) => String(values[name] ?? ""));
}

export function currentLanguage() {
  return language;
}

/** Changes the language of everything that is there: elements remember the key that they show. */
export function setLanguage(chosen) {
  language = chosen;
  document.documentElement.lang = chosen === "zh" ? "zh-CN" : "en";
  document.title = t("title");
  for (const element of document.querySelectorAll("[data-t], [data-t-label], [data-t-hint]")) translate(element);
}

function translate(element) {
  const { t: key, tLabel, tHint, tValues } = element.dataset;
  const values = tValues ? JSON.parse(tValues) : {};
  if (key) element.textContent = t(key, values);
  if (tHint) element.placeholder = t(tHint, values);
  if (tLabel) {
    element.setAttribute("aria-label", t(tLabel, values));
    if (element.matches("button, summary, a")) element.title = t(tLabel, values);
  }
}

/**
 * An element: `h("button", {class: "x", onclick: f, t: "send"}, ...children)`. `t`, `label` and `hint` are
 * keys of the strings for its text, its accessible name and its placeholder; `values` go into them.
 */
export function h(tag, { t: text, label, hint, values, ...properties } = {}, ...children) {
  const element = document.createElement(tag);
  if (text) element.dataset.t = text;
  if (label) element.dataset.tLabel = label;
  if (hint) element.dataset.tHint = hint;
  if (values) element.dataset.tValues = JSON.stringify(values);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name === "className" ? "class" : name, value === true ? "" : value);
  }
  translate(element);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Shows another string in an element that is there. */
export function say(element, key, values = {}) {
  element.dataset.t = key;
  element.dataset.tValues = JSON.stringify(values);
  translate(element);
}

/** A symbol of the page's HTML; decoration, its button has the name. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  const use = document.createElementNS(SVG, "use");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

/** A small button with an icon and a name. */
export function iconButton(name, label, onclick, more = {}) {
  return h("button", { type: "button", class: "quiet", label, onclick, ...more }, icon(name));
}

/** Tells people who listen, at most one thing at a time; seen by nobody. */
export function announce(text) {
  const region = document.getElementById("announcer");
  region.textContent = "";
  region.textContent = text;
}

/** Copies; `button` says so for a moment. Outside a secure context there is only the old way. */
export async function copyText(text, button) {
  let copied = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    copied = copyTheOldWay(text);
  }
  announce(t(copied ? "copied" : "notCopied"));
  if (!button) return;
  button.classList.add(copied ? "done" : "failed");
  setTimeout(() => button.classList.remove("done", "failed"), 1500);
}

function copyTheOldWay(text) {
  const area = h("textarea", { class: "offscreen", "aria-hidden": "true", tabindex: "-1" });
  area.value = text;
  const before = document.activeElement;
  document.body.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  before?.focus();
  return copied;
}

/** `14:05`, or `11-22 14:05` for another day, in the reader's own time zone. */
export function moment(text) {
  const date = new Date(text);
  if (Number.isNaN(date.getTime())) return "";
  const two = (number) => String(number).padStart(2, "0");
  const time = `${two(date.getHours())}:${two(date.getMinutes())}`;
  const today = date.toDateString() === new Date().toDateString();
  return today ? time : `${two(date.getMonth() + 1)}-${two(date.getDate())} ${time}`;
}

/** `420 ms`, `3.1 s` */
export function duration(ms) {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

/** JSON, laid out; what is none, or is too deep for that, as it is. */
export function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}
