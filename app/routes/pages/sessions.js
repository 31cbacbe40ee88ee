/** The list beside the conversation: live sessions by title, and conversations that outlived theirs. */
import { $, h, iconButton, moment, say } from "./dom.js";

export class SessionList {
  /** @param {import("./playground.js").Playground} page */
  constructor(page) {
    this.page = page;
    this.sessions = [];
    this.past = [];
    $("search").addEventListener("input", () => this.paint());
  }

  async load(user) {
    const [sessions, past] = await Promise.all([
      this.page.api.sessionsOf(user),
      this.page.api.conversationsOf(user).catch(() => ({ conversations: [] })), // a service of the version before
    ]);
    const live = new Set(sessions.map((session) => session.conversation_id));
    this.sessions = sessions;
    this.past = past.conversations.filter((each) => !live.has(each.conversation_id));
    this.paint();
  }

  paint() {
    const wanted = $("search").value.trim().toLowerCase();
    const fits = (...texts) => texts.join(" ").toLowerCase().includes(wanted);
    const sessions = this.sessions.filter((each) => fits(each.title ?? "", each.session_id, pairsOf(each)));
    const past = this.past.filter((each) => fits(each.title ?? "", each.conversation_id));
    $("session-list").replaceChildren(...sessions.map((session) => this.item(session)));
    $("past-list").replaceChildren(...past.map((conversation) => this.pastItem(conversation)));
    $("past").hidden = !past.length;
    if (sessions.length) [$("session-note").textContent, $("session-note").dataset.t] = ["", ""];
    else say($("session-note"), this.sessions.length ? "noneFound" : "noSessions");
    this.markCurrent();
  }

  item(session) {
    const { session_id: id, chat_count: count, last_activity_at: at } = session;
    const pairs = pairsOf(session);
    const name = session.title ? h("span", {}, session.title) : h("span", { t: "untitled" });
    return h(
      "li",
      {},
      h(
        "button",
        { type: "button", class: "session", "data-session": id, onclick: () => this.page.withCredentials(() => this.page.openSession(id)) },
        h("span", { class: "session-title" }, name, pairs ? h("span", { class: "pairs" }, pairs) : null),
        h("span", { class: "note", t: "sessionMeta", values: { count, time: moment(at) } }),
      ),
    );
  }

  pastItem(conversation) {
    const { conversation_id: id, title, last_used_at: at } = conversation;
    const name = title ? h("span", {}, title) : h("span", { t: "untitled" });
    return h(
      "li",
      { class: "past-item" },
      h(
        "button",
        { type: "button", class: "session", "data-past": id, onclick: () => this.page.withCredentials(() => this.page.openPast(conversation)) },
        h("span", { class: "session-title" }, name),
        h("span", { class: "note" }, moment(at)),
      ),
      iconButton("end", "deletePast", () => this.page.askDelete(conversation)),
    );
  }

  markCurrent() {
    for (const button of $("session-list").querySelectorAll("button")) {
      if (button.dataset.session === this.page.session?.session_id) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
    }
  }
}

export function pairsOf(session) {
  return Object.entries(session.metadata ?? {}).map(([key, value]) => `${key}=${value}`).join(" ");
}

/** What the bot says of itself, in place of our own words, while nothing was said yet. */
export function showBot(bot) {
  const title = $("welcome").querySelector("h2");
  const text = $("welcome").querySelector("p");
  const buttons = [...$("welcome").querySelectorAll(".follow-up")];
  if (!bot?.name) return;
  for (const element of [title, text, ...buttons]) delete element.dataset.t;
  title.textContent = bot.name;
  text.textContent = bot.opening_text || bot.description;
  buttons.forEach((button, index) => {
    button.hidden = index >= bot.suggested_questions.length;
    button.textContent = bot.suggested_questions[index] ?? "";
  });
}
