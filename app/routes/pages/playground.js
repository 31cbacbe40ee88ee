/** The page: sessions, credentials, panels and dialogs, and how all is wired. */
import { Api } from "./api.js";
import { Attachments } from "./attachments.js";
import { Conversation } from "./conversation.js";
import { randomKey } from "./coze-stream.js";
import { Credentials } from "./credentials.js";
import { curl } from "./curl.js";
import { $, copyText, currentLanguage, setLanguage, t } from "./dom.js";
import { errorText, explain, isGone } from "./errors.js";
import { EventsPanel } from "./events.js";
import { pairsOf, SessionList, showBot } from "./sessions.js";

const STATE = "coze-playground";
const TITLE_CHARACTERS = 60;
const NARROW = matchMedia("(max-width: 800px)");
/** A finger has no Shift: there Enter is a line break, and the button sends. */
const TOUCH = matchMedia("(hover: none) and (pointer: coarse)");

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
    this.credentials = new Credentials();
    this.api = new Api(this.credentials);
    this.memory = new Memory();
    this.events = new EventsPanel($("events"));
    /** @type {{session_id: string, user_id: string, context: any, metadata: any} | null} */
    this.session = null;
    this.chats = new Conversation(this);
    this.list = new SessionList(this);
    this.files = new Attachments($("files"), async (file) => {
      const session = await this.withSession();
      if (!session) throw { code: "AUTH_MISSING", message: "" };
      return this.api.upload(session.session_id, file);
    });
    this.bots = [];
  }

  get user() {
    return $("user").value.trim() || "demo";
  }

  async start() {
    const { language, user } = this.memory.values;
    setLanguage(language ?? (navigator.languages[0]?.toLowerCase().startsWith("zh") ? "zh" : "en"));
    $("user").value = user ?? "demo";
    this.listen();
    if (TOUCH.matches) $("message").dataset.tHint = "messageHintTouch";
    setLanguage(currentLanguage());
    await this.withCredentials(() => this.resume(), 30);
  }

  /** After a load: the session of this tab, with the answer that was under way. */
  async resume() {
    const { session, pending } = this.memory.values;
    await this.listSessions();
    void this.loadBots();
    if (!session) return;
    if (pending?.session === session) await this.sendAgain(pending);
    await this.openSession(session);
  }

  /** Who answers: shown while nothing was said yet. Without it the page has words of its own. */
  async loadBots() {
    this.bots = await this.api.bots().catch(() => []);
    $("bots").replaceChildren(...this.bots.map((bot) => new Option(bot.name ?? bot.bot_id, bot.bot_id)));
    this.showBot();
  }

  showBot() {
    const id = this.session?.context.bot_id;
    showBot(id ? this.bots.find((bot) => bot.bot_id === id) : this.bots[0]);
  }

  /** The reload came before the chat had an id; its key leads to it, or begins it. */
  async sendAgain({ session, body, key, again }) {
    try {
      await this.api.ask(session, body, again, key);
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
        if (!(await this.credentials.ask(error))) return void this.chats.status("bad", "credentialsLater");
        this.chats.status("");
      }
    }
  }

  async changeCredentials() {
    if (!(await this.credentials.ask(null))) return;
    this.chats.status("");
    await this.withCredentials(() => this.resume());
  }

  complain(error) {
    if (isGone(error)) this.leaveSession();
    const [key, values] = errorText(error);
    const { fields, extra } = explain(error);
    const more = [...fields, ...extra].join(" · ");
    if (key === "plainText" || more) this.chats.status("bad", "plainText", { text: [error.code, t(key, values), more].filter(Boolean).join(" ") });
    else this.chats.status("bad", key, values);
  }

  // -- sessions ------------------------------------------------------------------------------------------

  async listSessions() {
    const user = $("user").value.trim();
    if (!user) return;
    this.memory.set({ user });
    await this.list.load(user);
    const { listed } = this;
    if (listed) this.showTitle(listed.title || this.session.title); // the service may not have heard a message yet
  }

  /** The session that is open, in the list. */
  get listed() {
    return this.list.sessions.find((each) => each.session_id === this.session?.session_id);
  }

  async openSession(id) {
    this.closeNav();
    const session = await this.api.session(id);
    this.enterSession(session);
    this.chats.show(session.chat_history, session.chat_count);
  }

  /** A conversation whose session is gone goes on in a new one; what was said is fetched from Coze. */
  async openPast({ conversation_id: id, bot_id: bot }) {
    this.closeNav();
    await this.createSession({ user_id: this.user, conversation_id: id, ...(bot ? { bot_id: bot } : {}) });
    this.chats.showHistory(await this.api.history(this.session.session_id));
  }

  askDelete(conversation) {
    this.doomed = conversation;
    $("delete-name").textContent = conversation.title ?? conversation.conversation_id;
    $("delete-dialog").showModal();
  }

  async deletePast() {
    await this.api.deleteConversation(this.user, this.doomed.conversation_id);
    await this.listSessions();
  }

  /** The session to send in; opens one where there is none. Undefined where that is not to be had. */
  async withSession() {
    this.opening ??= (async () => {
      if (!this.session) await this.withCredentials(() => this.createSession({ user_id: this.user }, true));
      return this.session ?? undefined;
    })().finally(() => (this.opening = undefined));
    return this.opening;
  }

  enterSession(session) {
    this.session = session;
    this.memory.set({ session: session.session_id });
    $("session-bar").hidden = false;
    this.nameSession();
    $("session-facts").textContent = [session.user_id, session.context.bot_id, pairsOf(session)].filter(Boolean).join(" · ");
    this.list.markCurrent();
    this.showBot();
  }

  nameSession() {
    const { session_id: id, title } = this.session;
    $("session-name").textContent = title || `…${id.slice(-8)}`;
    $("session-name").title = id;
  }

  /** What the service will call it: its first message, in one line. */
  titleBy(message) {
    if (this.session.title) return;
    const line = [...message.trim().replace(/\s+/g, " ")];
    this.showTitle(line.length > TITLE_CHARACTERS ? `${line.slice(0, TITLE_CHARACTERS - 1).join("").trimEnd()}…` : line.join(""));
  }

  showTitle(title) {
    this.session.title = title;
    this.nameSession();
    const { listed } = this;
    if (!listed || listed.title === title) return;
    listed.title = title;
    this.list.paint();
  }

  async rename() {
    const { title } = await this.api.renameSession(this.session.session_id, $("rename-title").value.trim());
    this.session.title = title;
    this.nameSession();
    await this.listSessions();
  }

  leaveSession() {
    this.session = null;
    this.memory.set({ session: "", pending: null });
    this.chats.show([]);
    $("session-bar").hidden = true;
    this.list.markCurrent();
  }

  /** `quietly`: what is shown, a message that is about to be sent, stays. */
  async createSession(body, quietly = false) {
    const session = await this.api.createSession(body, randomKey());
    $("user").value = body.user_id;
    this.enterSession(session);
    if (!quietly) this.chats.show([]);
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
    return curl({ path: `/coze/chats/${turn.answer.chatId}/events`, headers, stream: true, host: this.credentials.host });
  }

  curlOfSession() {
    const { user_id, context, metadata } = this.session;
    const body = { user_id, bot_id: context.bot_id, ...(Object.keys(metadata ?? {}).length ? { meta_data: metadata } : {}) };
    return curl({ method: "POST", path: "/coze/sessions", body, host: this.credentials.host });
  }

  // -- dialogs -------------------------------------------------------------------------------------------

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
      if (error.status !== 401) {
        const { code, text, fields } = explain(error);
        return this.newProblem([code, text, ...fields].join(" · "));
      }
      return (await this.credentials.ask(error)) ? this.submitNew() : this.newProblem(t("credentialsLater"));
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
    form("rename-form", () => ($("rename-dialog").close(), this.withCredentials(() => this.rename())));
    form("delete-form", () => ($("delete-dialog").close(), this.withCredentials(() => this.deletePast())));
    form("end-form", () => ($("end-dialog").close(), this.withCredentials(() => this.endSession())));
    on("open-new", "click", () => this.openNew());
    on("rename-session", "click", () => (($("rename-title").value = this.session.title ?? ""), $("rename-dialog").showModal()));
    on("earlier", "click", () => this.withCredentials(() => this.chats.showEarlier()));
    on("attach", "click", () => $("file").click());
    on("file", "change", (event) => (void this.files.add(event.target.files), (event.target.value = "")));
    on("message", "paste", (event) => this.take(event, event.clipboardData));
    new ResizeObserver(() => this.chats.resized()).observe($("scroller"));
    new ResizeObserver(() => this.chats.scroll()).observe($("turns")); // formulas and colours come later
    on("end-session", "click", () => $("end-dialog").showModal());
    on("show-credentials", "click", () => void this.changeCredentials());
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
    // Anywhere: what is dropped where nobody takes it, the browser opens in place of the page.
    document.addEventListener("dragover", (event) => event.dataTransfer.types.includes("Files") && event.preventDefault());
    document.addEventListener("drop", (event) => this.take(event, event.dataTransfer));
  }

  messageKey(event) {
    // While an input method composes, Enter chooses characters.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229 || TOUCH.matches) return;
    event.preventDefault();
    void this.chats.ask($("message").value);
  }

  /**
   * Files that were pasted or dropped go along with the message; text is the browser's affair. So is what a
   * table puts on the clipboard: its text, and a picture of it.
   */
  take(event, data) {
    if (!data?.files.length || (event.type === "paste" && data.getData("text/plain"))) return;
    event.preventDefault();
    void this.files.add(data.files);
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
    this.list.paint();
    this.files.paint();
  }
}

void new Playground().start();
