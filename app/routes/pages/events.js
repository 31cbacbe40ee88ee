/** The raw events of one chat, in the panel beside the conversation. */
import { h, pretty, say } from "./dom.js";

const MOST = 1000;

export class EventsPanel {
  /** @param {HTMLElement} panel */
  constructor(panel) {
    this.panel = panel;
    this.list = panel.querySelector("ol");
    this.note = panel.querySelector(".note");
    /** @type {import("./turn.js").Turn | null} */
    this.turn = null;
    this.shown = 0;
  }

  /** Shows another chat's events; `turn.events` grows while it is read. */
  watch(turn) {
    if (this.turn === turn) return;
    this.turn = turn;
    this.shown = 0;
    this.list.replaceChildren();
    this.update();
  }

  /** Adds what has come since. A panel that is closed costs nothing. */
  update() {
    const events = this.turn?.events ?? [];
    const count = events.length;
    if (!count) say(this.note, "noEvents");
    else say(this.note, count > MOST ? "eventsCut" : "eventsCount", { count: count > MOST ? MOST : count });
    if (this.panel.hidden) return;
    const atEnd = this.list.scrollHeight - this.list.scrollTop - this.list.clientHeight < 40;
    const from = Math.max(this.shown, count - MOST);
    this.list.append(...events.slice(from).map(row));
    while (this.list.childElementCount > MOST) this.list.firstElementChild.remove();
    this.shown = count;
    if (atEnd) this.list.scrollTop = this.list.scrollHeight;
  }
}

/** One event; its data is laid out when it is opened. */
function row({ id, event, data, json, at }) {
  const name = event.replace("conversation.", "");
  const line = h(
    "summary",
    {},
    h("span", { class: "event-id" }, id || "·"),
    h("span", { class: "event-at" }, `+${(at / 1000).toFixed(2)}`),
    h("span", { class: `event-name ${kind(event)}` }, name),
    h("span", { class: "event-data" }, gist(json, data)),
  );
  const details = h("details", {}, line);
  details.addEventListener("toggle", () => {
    if (details.open && details.childElementCount === 1) {
      details.append(h("pre", { tabindex: "0" }, pretty(data)));
    }
  });
  return h("li", {}, details);
}

function kind(event) {
  if (event === "error" || event.endsWith(".failed")) return "bad";
  if (event === "snapshot" || event === "reconnect" || event.endsWith("requires_action")) return "warm";
  return event.endsWith("delta") ? "plain" : "strong";
}

function gist(json, data) {
  const text = json?.content || json?.reasoning_content || json?.status || json?.message;
  return (typeof text === "string" ? text : data).slice(0, 120);
}
