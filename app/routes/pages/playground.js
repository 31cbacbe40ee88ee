/** The page: sessions, credentials, panels and dialogs, and how all is wired. */
import { Api } from "./api.js";
import { Conversation } from "./conversation.js";
import { randomKey } from "./coze-stream.js";
import { curl } from "./curl.js";
import { $, copyText, currentLanguage, h, moment, say, setLanguage, t } from "./dom.js";
import { EventsPanel } from "./events.js";

const STATE = "coze-playground";
const NARROW = matchMedia("(max-width: 800px)");

/**
 * What a reload of this tab needs, and no more: `{user, session, language, pending}`. Never credentials.
 * `pending` is a message whose chat has no id yet; it is sent again with its key, so it is asked once.
 */
class Memory {
  constructor() {
    try {
      this.values = JSON.parse(sessionStorage.getItem(STATE) ?? "{}");
    } catch {
      this.values = {};
    }
  }

  set(changes) {
    Object.assign(this.values, changes);
    try {
      sessionStorage.setItem(STATE, JSON.stringify(this.values));
    } catch {
      // storage is full or forbidden: a reload starts anew
    }
  }
}

export class Playground {
  constructor() {
    this.api = new Api();
    this.memory = new Memory();
    this.events = new EventsPanel($("events"));
    /** @type {{session_id: string, user_id: string, context: any, metadata: any} | null} */
    this.session = null;
    this.chats = new Conversation(this);
  }

  async start() {
    const { language, user } = this.memory.values;
    setLanguage(language ?? (navigator.languages[0]?.toLowerCase().startsWith("zh") ? "zh" : "en"));
    $("user").value = user ?? "demo";
    this.listen();
    await this.withCredentials(() => this.resume(), 30);
  }

  /** After a load: the session of this tab, with the answer that was under way. */
  async resume() {
    const { session, pending } = this.memory.values;
    await this.listSessions();
    if (!session) return;
    if (pending?.session === session) await this.sendAgain(pending);
    await this.openSession(session);
  }

  /** The reload came before the chat had an id; its key leads to it, or begins it. */
  async sendAgain({ session, body, key }) {
    try {
      const path = `/coze/sessions/${encodeURIComponent(session)}/messages`;
      await this.api.call("POST", path, body, { "Idempotency-Key": key, Prefer: "respond-async" });
    } catch (error) {
      if (error.status === 401 || error.retryable) throw error;
      $("message").value = body.message; // refused: not lost either
    }
    this.memory.set({ pending: null });
  }

  /**
   * Runs `work`; where the service wants credentials, asks for them and runs it again. `tries`: how often
   * it is run again while the service is away; more than once only where that changes nothing.
   */
  async withCredentials(work, tries = 0) {
    for (;;) {
      try {
        return await work();
      } catch (error) {
        if (error.status !== 401) this.complain(error);
        if (error.retryable && tries > 0) {
          tries -= 1;
          await new Promise((wake) => setTimeout(wake, 1000));
          continue;
        }
        if (error.status !== 401) return undefined;
        if (!(await this.askCredentials(true))) return undefined;
      }
    }
  }

  complain(error) {
    const gone = error.status === 410 || error.code === "COZE_SESSION_NOT_FOUND";
    const text = error.code === "NETWORK" ? t("network") : gone ? t("gone") : `${error.code ?? ""} ${error.message}`;
    if (gone) this.leaveSession();
    this.chats.status("bad", text);
  }

  // -- sessions ------------------------------------------------------------------------------------------

  async listSessions() {
    const user = $("user").value.trim();
    if (!user) return;
    this.memory.set({ user });
    const { sessions } = await this.api.sessionsOf(user);
    $("session-list").replaceChildren(...sessions.map((session) => this.sessionItem(session)));
    if (sessions.length) [$("session-note").textContent, $("session-note").dataset.t] = ["", ""];
    else say($("session-note"), "noSessions");
  }

  sessionItem(session) {
    const { session_id: id, chat_count: count, last_activity_at: at, metadata } = session;
    const pairs = Object.entries(metadata ?? {}).map(([key, value]) => `${key}=${value}`).join(" ");
    return h(
      "li",
      {},
      h(
        "button",
        { type: "button", class: "session", "data-session": id, "aria-current": id === this.session?.session_id && "true", onclick: () => void this.withCredentials(() => this.openSession(id)) },
        h("span", { class: "session-title" }, shortId(id), pairs ? h("span", { class: "pairs" }, pairs) : null),
        h("span", { class: "note", t: "sessionMeta", values: { count, time: moment(at) } }),
      ),
    );
  }

  async openSession(id) {
    this.closeNav();
    const session = await this.api.session(id);
    this.enterSession(session);
    this.chats.show(session.chat_history);
  }

  enterSession(session) {
    this.session = session;
    this.memory.set({ session: session.session_id });
    $("session-bar").hidden = false;
    $("session-name").textContent = shortId(session.session_id);
    $("session-name").title = session.session_id;
    const pairs = Object.entries(session.metadata ?? {}).map(([key, value]) => `${key}=${value}`);
    $("session-facts").textContent = [session.user_id, session.context.bot_id, ...pairs].join(" · ");
    this.markCurrent();
  }

  leaveSession() {
    this.session = null;
    this.memory.set({ session: "", pending: null });
    this.chats.show([]);
    $("session-bar").hidden = true;
    this.markCurrent();
  }

  markCurrent() {
    for (const button of $("session-list").querySelectorAll("button")) {
      if (button.dataset.session === this.session?.session_id) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
    }
  }

  async createSession(body) {
    const session = await this.api.createSession(body, randomKey());
    $("user").value = body.user_id;
    this.enterSession(session);
    this.chats.show([]);
    void this.listSessions().catch(() => {}); // it is open; the list may come when it can
  }

  async endSession() {
    const { session_id: id } = this.session;
    await this.api.endSession(id);
    this.leaveSession();
    await this.listSessions();
  }

  toggleEvents(open) {
    $("events").hidden = !open;
    $("show-events").setAttribute("aria-expanded", String(open));
    if (open) this.events.update();
    if (NARROW.matches) (open ? $("hide-events") : $("show-events")).focus();
  }

  toggleNav(open) {
    document.body.classList.toggle("nav-open", open);
    $("show-sessions").setAttribute("aria-expanded", String(open));
    (open ? $("hide-sessions") : $("show-sessions")).focus();
  }

  closeNav() {
    if (document.body.classList.contains("nav-open")) this.toggleNav(false);
  }

  // -- curl ----------------------------------------------------------------------------------------------

  curlOfEvents() {
    const { turn } = this.events;
    if (!turn?.answer.chatId) return "";
    const headers = turn.lastId ? [`Last-Event-ID: ${turn.lastId}`] : [];
    return curl({ path: `/coze/chats/${turn.answer.chatId}/events`, headers, stream: true, host: this.api.host });
  }

  curlOfSession() {
    const { user_id, context, metadata } = this.session;
    const body = { user_id, bot_id: context.bot_id, ...(Object.keys(metadata ?? {}).length ? { meta_data: metadata } : {}) };
    return curl({ method: "POST", path: "/coze/sessions", body, host: this.api.host });
  }

  // -- dialogs -------------------------------------------------------------------------------------------

  /** @returns {Promise<boolean>} Whether headers were given. */
  askCredentials(needed) {
    $("credentials-needed").hidden = !needed;
    $("host").value = this.api.host || location.hostname;
    const dialog = $("credentials-dialog");
    if (!dialog.open) dialog.showModal();
    $("token").focus();
    return new Promise((resolve) => {
      dialog.addEventListener("close", () => resolve(dialog.returnValue === "saved"), { once: true });
      dialog.returnValue = "";
    });
  }

  saveCredentials() {
    this.api.setCredentials($("token").value.trim(), $("host").value.trim());
    $("token").value = ""; // from here on it is in one place
    document.body.classList.toggle("signed", this.api.hasCredentials);
    $("credentials-dialog").close("saved");
  }

  openNew() {
    $("new-user").value = $("user").value;
    $("new-problem").hidden = true;
    $("new-dialog").showModal();
  }

  async submitNew() {
    const pairs = $("new-metadata").value.split("\n").map((line) => line.trim()).filter(Boolean);
    if (!pairs.every((pair) => /^[^=]+=.+$/.test(pair))) return this.newProblem(t("metadataWrong"));
    const metadata = Object.fromEntries(pairs.map((pair) => [pair.slice(0, pair.indexOf("=")).trim(), pair.slice(pair.indexOf("=") + 1).trim()]));
    const body = { user_id: $("new-user").value.trim() };
    if ($("new-bot").value.trim()) body.bot_id = $("new-bot").value.trim();
    if (pairs.length) body.meta_data = metadata;
    try {
      await this.createSession(body);
    } catch (error) {
      if (error.status !== 401) return this.newProblem(`${error.code}: ${error.message}`);
      if (await this.askCredentials(true)) return this.submitNew();
      return undefined;
    }
    $("new-dialog").close();
    this.closeNav();
    $("message").focus();
    return undefined;
  }

  newProblem(text) {
    $("new-problem").hidden = false;
    $("new-problem").textContent = text;
  }

  // -- wiring --------------------------------------------------------------------------------------------

  listen() {
    const on = (id, event, action) => $(id).addEventListener(event, action);
    const form = (id, action) => on(id, "submit", (event) => (event.preventDefault(), void action()));
    form("user-form", () => this.withCredentials(() => this.listSessions()));
    form("composer", () => this.chats.ask($("message").value));
    form("new-form", () => this.submitNew());
    form("credentials-form", () => this.saveCredentials());
    form("end-form", () => ($("end-dialog").close(), this.withCredentials(() => this.endSession())));
    on("open-new", "click", () => this.openNew());
    on("end-session", "click", () => $("end-dialog").showModal());
    on("show-credentials", "click", async () => (await this.askCredentials(false)) && this.withCredentials(() => this.resume()));
    on("forget", "click", () => ($("token").value = "", this.saveCredentials()));
    on("stop", "click", () => void this.chats.stop());
    on("show-sessions", "click", () => this.toggleNav(true));
    on("hide-sessions", "click", () => this.toggleNav(false));
    on("show-events", "click", () => this.toggleEvents($("events").hidden));
    on("hide-events", "click", () => this.toggleEvents(false));
    on("session-curl", "click", (event) => void copyText(this.curlOfSession(), event.currentTarget));
    on("events-curl", "click", (event) => void copyText(this.curlOfEvents(), event.currentTarget));
    on("message", "input", () => this.chats.fit());
    on("message", "keydown", (event) => this.messageKey(event));
    on("latest", "click", () => this.chats.toLatest());
    on("scroller", "scroll", () => this.chats.scrolled());
    on("language", "click", () => this.switchLanguage());
    for (const button of document.querySelectorAll("[data-close]")) button.addEventListener("click", () => button.closest("dialog").close(""));
    for (const button of $("welcome").querySelectorAll(".follow-up")) button.addEventListener("click", () => void this.chats.ask(button.textContent));
    $("turns").addEventListener("click", (event) => {
      const button = event.target.closest("[data-copy=code]");
      if (button) void copyText(button.closest(".code").querySelector("code").textContent, button);
    });
    document.addEventListener("keydown", (event) => this.key(event));
  }

  messageKey(event) {
    // While an input method composes, Enter chooses characters.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    void this.chats.ask($("message").value);
  }

  key(event) {
    if (event.key !== "Escape" || event.isComposing || document.querySelector("dialog[open]")) return;
    if (document.body.classList.contains("nav-open")) this.toggleNav(false);
    else if (NARROW.matches && !$("events").hidden) this.toggleEvents(false);
    else void this.chats.stop();
  }

  switchLanguage() {
    const language = currentLanguage() === "zh" ? "en" : "zh";
    this.memory.set({ language });
    setLanguage(language);
    for (const turn of this.chats.turns) turn.paint();
  }
}

function shortId(id) {
  return `…${id.slice(-8)}`;
}

void new Playground().start();
