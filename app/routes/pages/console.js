/** The console: what the service is at, what failed, what was used, and a session by its id. */
import { AdminApi } from "./admin-api.js";
import { number, UsageChart } from "./chart.js";
import { CONSOLE } from "./console-strings.js";
import { Credentials } from "./credentials.js";
import { $, addStrings, announce, currentLanguage, h, say, setLanguage, t } from "./dom.js";
import { explain } from "./errors.js";
import { id, size, span, table, time } from "./tables.js";

const EVERY_MS = 5000;
const UNDER_WAY = new Set(["pending", "processing", "requires_action"]);

class Console {
  constructor() {
    addStrings(CONSOLE);
    this.credentials = new Credentials();
    this.api = new AdminApi(this.credentials);
    this.chart = new UsageChart();
    this.session = null;
  }

  async start() {
    setLanguage(navigator.languages[0]?.toLowerCase().startsWith("zh") ? "zh" : "en");
    this.listen();
    await this.loadAll();
    setInterval(() => void this.renew(), EVERY_MS);
  }

  /** Runs `work`; where the service wants credentials, asks for them and runs it again. */
  async attempt(work) {
    for (;;) {
      try {
        const result = await work();
        this.refused = false;
        return result;
      } catch (error) {
        if (error.name === "AbortError") return undefined; // somebody else sits here now
        this.refused = error.status === 401 || error.status === 403;
        if (error.status === 401) {
          if (await this.credentials.ask(error)) continue;
          this.say("bad", "credentialsLater");
        } else this.complain(error);
        return undefined;
      }
    }
  }

  complain(error) {
    const { code, text, fields, extra } = explain(error);
    this.say("bad", "plainText", { text: [code, text, ...fields, ...extra].filter(Boolean).join(" · ") });
  }

  say(kind, key, values = {}) {
    $("status").dataset.kind = kind;
    say($("status"), key, values);
  }

  // -- now ---------------------------------------------------------------------------------------------------

  async loadAll() {
    await this.attempt(async () => {
      await this.loadNow();
      await this.loadUsage();
      this.say("", "plainText", { text: "" });
    });
  }

  /** What changes by itself; not while nobody looks, or while the credentials are not good enough. */
  async renew() {
    if (document.hidden || this.refused || document.querySelector("dialog[open]")) return;
    await this.attempt(() => this.loadNow());
  }

  async loadNow() {
    [this.stats, this.failures] = await Promise.all([this.api.stats(), this.api.failures()]);
    this.paintNow();
  }

  paintNow() {
    if (!this.stats) return;
    const { chats, sessions, users, redis, replicas, credentials } = this.stats;
    const streams = replicas.reduce((sum, each) => sum + each.open_streams, 0);
    const memory = redis.maxmemory ? h("small", { t: "memoryOf", values: { most: size(redis.maxmemory) } }) : h("small", { t: "memoryOpen" });
    const tile = (name, value, more) => h("div", { "data-tile": name }, h("dt", { t: name }), h("dd", {}, value, more));
    $("tiles").replaceChildren(
      tile("running", number(chats.processing)),
      tile("queued", number(chats.pending)),
      tile("waiting", number(chats.requires_action)),
      tile("streams", number(streams)),
      tile("sessions", number(sessions)),
      tile("users", number(users)),
      tile("memory", size(redis.used_memory), memory),
    );
    const now = Date.now();
    const since = (text) => h("span", { title: text }, span(now - Date.parse(text)));
    const seen = (each, n) => {
      const ms = now - Date.parse(each.seen_at);
      return n === 0 || ms < 1000 ? h("span", { t: "justNow" }) : h("span", { t: "ago", values: { span: span(ms) } });
    };
    const named = (each, n) => h("span", {}, h("span", { class: "id", title: each.process }, each.process.slice(0, 8)), n === 0 ? h("span", { class: "tag", t: "thisOne" }) : null);
    $("replicas").replaceChildren(
      table(
        ["replica", "version", "age", "seen", "chats", "openStreams"],
        replicas.map((each, n) => [named(each, n), each.version, since(each.started_at), seen(each, n), number(each.running_chats), number(each.open_streams)]),
        { numbers: ["chats", "openStreams"] },
      ),
    );
    const state = (each) => h("span", { class: `tag ${each.state}`, t: each.state, values: { seconds: each.cool_down_seconds } });
    $("coze-credentials").replaceChildren(
      table(
        ["credential", "kind", "state", "lastCode", "conversations"],
        credentials.map((each) => [id(each.name), each.kind, state(each), String(each.last_code ?? "–"), number(each.opened)]),
        { numbers: ["conversations"] },
      ),
    );
    this.paintFailures();
  }

  paintFailures() {
    const error = (each) => h("span", { class: "stack" }, h("span", { class: "mono" }, [each.code, each.coze_code].filter(Boolean).join(" · ")), each.hint ? h("span", { class: "note", lang: "en" }, each.hint) : null);
    const open = (each) => h("button", { type: "button", class: "plain small", t: "showSession", "data-session": each.session_id, onclick: () => this.show(each.session_id) });
    $("failures").replaceChildren(
      table(
        ["at", "error", "botId", "chat", "logid", ""],
        this.failures.map((each) => [time(each.at), error(each), id(each.bot_id, 8), id(each.chat_id, 12), each.logid ? id(each.logid) : "–", open(each)]),
        { empty: "noFailures" },
      ),
    );
  }

  // -- usage -------------------------------------------------------------------------------------------------

  async loadUsage() {
    const by = $("stacked-by").value;
    this.chart.show(await this.api.usage(Number($("days").value), by), by);
  }

  // -- a session ---------------------------------------------------------------------------------------------

  async show(sessionId) {
    $("session-id").value = sessionId;
    await this.attempt(() => this.loadSession(sessionId));
    $("session-form").scrollIntoView({ block: "nearest" });
  }

  async loadSession(sessionId) {
    this.session = null;
    this.paintSession();
    this.session = await this.api.session(sessionId);
    this.say("", "plainText", { text: "" });
    this.paintSession();
  }

  paintSession() {
    const session = this.session;
    $("session").hidden = !session;
    if (!session) return $("session").replaceChildren();
    const { lifetimes } = session;
    const fact = (name, value) => h("div", {}, h("dt", { t: name }), h("dd", {}, value));
    const facts = h(
      "dl",
      { class: "facts" },
      fact("state", h("span", { class: `tag ${session.status}`, t: `status_${session.status}` })),
      fact("user", id(session.user_id)),
      fact("botId", id(session.context.bot_id)),
      fact("conversation", session.conversation_id ? id(session.conversation_id) : "–"),
      fact("created", time(session.created_at)),
      fact("activity", time(session.last_activity_at)),
      fact("expires", time(session.expires_at)),
      fact("chatsUntil", time(lifetimes.chats_until)),
      fact("forgottenAt", time(lifetimes.forgotten_at)),
      fact("chatCount", number(session.chat_count)),
    );
    const ending = h("button", { type: "button", id: "end-session", class: "danger", t: "endSession", onclick: () => this.end(session.session_id) });
    const erasing = h("button", { type: "button", id: "erase-user", class: "plain", t: "erase", onclick: () => this.erase(session.user_id) });
    $("session").replaceChildren(facts, h("div", { class: "table", role: "group", tabindex: "0", label: "chats" }, this.chatsOf(session)), h("div", { class: "row end" }, erasing, ending));
    return undefined;
  }

  chatsOf(session) {
    const kept = new Map(session.lifetimes.events.map((each) => [each.chat_id, each.events_until]));
    const status = (chat) => h("span", { class: `tag ${chat.status}`, t: `status_${chat.status}` });
    const cancel = (chat) => (UNDER_WAY.has(chat.status) ? h("button", { type: "button", class: "plain small", t: "cancelChat", "data-chat": chat.chat_id, onclick: () => this.cancel(chat.chat_id) }) : "");
    return table(
      ["chat", "state", "at", "error", "tokens", "eventsUntil", ""],
      session.chat_history.map((chat) => [
        id(chat.chat_id, 12),
        status(chat),
        time(chat.created_at),
        chat.error ? h("span", { class: "mono" }, [chat.error.code, chat.error.coze_code].filter(Boolean).join(" · ")) : "–",
        chat.usage ? number(chat.usage.token_count) : "–",
        time(kept.get(chat.chat_id)),
        cancel(chat),
      ]),
      { numbers: ["tokens"], empty: "noChats" },
    );
  }

  // -- actions -----------------------------------------------------------------------------------------------

  cancel(chatId) {
    return this.act("cancelChat", chatId, async () => {
      const { status } = await this.api.cancelChat(chatId);
      await this.loadSession(this.session.session_id);
      return [status === "cancelled" ? "didCancel" : "didNotCancel"];
    });
  }

  end(sessionId) {
    return this.act("endSession", sessionId, async () => {
      await this.api.endSession(sessionId);
      this.session = null;
      this.paintSession();
      return ["didEnd"];
    });
  }

  erase(userId) {
    return this.act("erase", userId, async () => {
      const { erased_sessions: sessions, erased_chats: chats, erased_files: files, remaining_sessions: remaining } = await this.api.eraseUser(userId);
      if (this.session?.user_id === userId) this.session = null;
      this.paintSession();
      await this.loadUsage();
      return [remaining ? "eraseRemains" : "didErase", { sessions, chats, files, remaining }];
    });
  }

  /** Asks whether it is meant, does it, and says what came of it. */
  async act(name, what, work) {
    if (!(await this.sure(name, what))) return;
    const done = await this.attempt(work);
    if (done === undefined) return;
    this.say("good", ...done);
    announce(t(...done));
    await this.attempt(() => this.loadNow());
  }

  /** @returns {Promise<boolean>} */
  sure(name, what) {
    say($("sure-title"), name);
    say($("sure-text"), `${name}Sure`);
    say($("sure-yes"), name);
    $("sure-what").textContent = what;
    const dialog = $("sure-dialog");
    dialog.returnValue = "";
    dialog.showModal();
    return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
  }

  // -- wiring ------------------------------------------------------------------------------------------------

  listen() {
    const on = (name, event, action) => $(name).addEventListener(event, action);
    const form = (name, action) => on(name, "submit", (event) => (event.preventDefault(), void action()));
    form("session-form", () => this.show($("session-id").value.trim()));
    form("user-form", () => this.erase($("user-id").value.trim()));
    on("refresh", "click", () => void this.loadAll());
    on("show-credentials", "click", async () => (await this.credentials.ask(null)) && (this.forget(), this.loadAll()));
    on("measure", "change", () => (this.chart.measure = $("measure").value));
    for (const name of ["stacked-by", "days"]) on(name, "change", () => void this.attempt(() => this.loadUsage()));
    on("language", "click", () => this.switchLanguage());
  }

  /** Whoever comes with other credentials sees nothing of what the ones before were shown. */
  forget() {
    this.stats = this.session = null;
    for (const name of ["tiles", "replicas", "coze-credentials", "failures"]) $(name).replaceChildren();
    this.chart.show(null, "bot");
    this.paintSession();
  }

  switchLanguage() {
    setLanguage(currentLanguage() === "zh" ? "en" : "zh");
    this.paintNow();
    this.paintSession();
    this.chart.paint();
  }
}

void new Console().start();
