/** One session's chats: asking, reading, stopping, and what is seen of them. */
import { BASE } from "./api.js";
import { followChat, randomKey, streamChat, submitToolOutputs } from "./coze-stream.js";
import { curl } from "./curl.js";
import { $, announce, copyText, duration, t } from "./dom.js";
import { Turn } from "./turn.js";

export class Conversation {
  /** @param {import("./playground.js").Playground} page  Sessions, credentials, panels. */
  constructor(page) {
    this.page = page;
    /** @type {Turn[]} */
    this.turns = [];
    /** What is being read. @type {{turn: Turn, abort: AbortController, stop: boolean} | null} */
    this.reading = null;
    /** Whether the end of the conversation is to stay in sight. */
    this.sticky = true;
    this.wasLost = false;
    this.actions = {
      ask: (text) => void this.ask(text),
      submit: (turn, outputs) => void this.submit(turn, outputs),
      cancel: (turn) => void this.cancelWaiting(turn),
      retry: (turn) => void this.retry(turn),
      events: (turn) => this.showEvents(turn),
      curl: (turn, button) => void copyText(this.curlOf(turn), button),
      copy: (turn, button) => void copyText(turn.answer.text, button),
    };
  }

  /** Shows these chats, and goes on reading the one that is under way. */
  show(chats) {
    this.hangUp();
    this.turns = chats
      .sort((one, other) => one.created_at.localeCompare(other.created_at))
      .map((chat, index) => Turn.fromChat(chat, index + 1, this.actions));
    $("turns").replaceChildren(...this.turns.map((turn) => turn.root));
    $("welcome").hidden = this.turns.length > 0;
    this.status("", "");
    this.sticky = true;
    this.scroll();
    this.readNext();
  }

  // -- chats ---------------------------------------------------------------------------------------------

  async ask(text) {
    if (this.reading || !text.trim()) return;
    if (!this.page.session) {
      await this.page.withCredentials(() => this.page.createSession({ user_id: $("user").value.trim() || "demo" }));
      if (!this.page.session) return;
    }
    $("message").value = "";
    this.fit();
    $("welcome").hidden = true;
    const turn = new Turn({ number: this.turns.length + 1, question: text, sentAt: new Date().toISOString(), actions: this.actions });
    turn.request = { body: { message: text, stream: true }, key: randomKey() };
    this.turns.push(turn);
    $("turns").append(turn.root);
    this.sticky = true;
    announce(t("sending"));
    await this.post(turn);
  }

  async post(turn) {
    const { session_id: sessionId } = this.page.session;
    const { body, key } = turn.request;
    this.page.memory.set({ pending: { session: sessionId, body: { message: body.message }, key } });
    await this.read(turn, (options) => streamChat({ ...options, sessionId, body, idempotencyKey: key }), true);
  }

  /** Tries again where it failed: goes on reading, repeats the POST with its key, or asks anew. */
  async retry(turn) {
    if (this.reading) return;
    if (turn.failure?.status === 401 && !(await this.page.askCredentials(true))) return;
    const { chatId, result } = turn.answer;
    if (chatId && !result) await this.read(turn, (options) => followChat({ ...options, chatId, after: turn.lastId }));
    else if (turn.failure && turn.request?.key) await this.post(turn);
    else await this.ask(turn.question);
  }

  async submit(turn, toolOutputs) {
    if (this.reading) return;
    const { chatId } = turn.answer;
    await this.read(turn, (options) => submitToolOutputs({ ...options, chatId, after: turn.lastId, toolOutputs }));
  }

  /** A chat that waits for tool outputs is given up. */
  async cancelWaiting(turn) {
    const { chatId } = turn.answer;
    await this.page.withCredentials(async () => {
      await this.page.api.cancelChat(chatId);
      await this.read(turn, (options) => followChat({ ...options, chatId, after: turn.lastId }));
    });
  }

  /** Reads one answer to its end. `start` gets what every stream needs. */
  async read(turn, start, measured = false) {
    const reading = { turn, abort: new AbortController(), stop: false };
    this.reading = reading;
    turn.begin(measured);
    this.page.events.watch(turn);
    this.showRunning(true);
    let failure = null;
    try {
      await start({
        baseUrl: BASE,
        headers: this.page.api.headers,
        signal: reading.abort.signal,
        answer: turn.answer,
        onChat: (chatId) => {
          turn.answer.chatId = chatId;
          this.page.memory.set({ pending: null });
          if (reading.stop) void this.stop();
        },
        onState: (state) => this.connection(turn, state),
        onEvent: (event) => {
          turn.note(event);
          turn.paintSoon(() => this.painted());
        },
      });
    } catch (error) {
      if (reading.abort.signal.aborted) return; // another session is shown by now; the chat goes on
      failure = error;
      if (error.status && error.status !== 401) this.page.memory.set({ pending: null }); // refused for good
    }
    this.reading = null;
    turn.end(failure);
    this.showRunning(false);
    this.painted();
    this.tellEnd(turn);
    this.readNext();
  }

  /** The first chat that is not over; those that wait in the queue come after it. */
  readNext() {
    const open = ["processing", "pending"];
    const next = this.turns.find((turn) => !turn.failure && turn.answer.chatId && open.includes(turn.answer.status));
    if (!next) return;
    const { chatId } = next.answer;
    void this.read(next, (options) => followChat({ ...options, chatId, after: next.lastId }));
  }

  hangUp() {
    this.reading?.abort.abort();
    this.reading?.turn.end();
    this.reading = null;
    this.showRunning(false);
  }

  async stop() {
    const { reading } = this;
    if (!reading) return;
    reading.stop = true;
    this.status("busy", t("stopping"));
    const { chatId } = reading.turn.answer;
    if (!chatId) return; // done as soon as it is known
    try {
      await this.page.api.cancelChat(chatId); // the stream brings the end
    } catch (error) {
      this.page.complain(error);
    }
  }

  tellEnd(turn) {
    const { status, text } = turn.answer;
    const key = turn.failure || status === "failed" ? "answerFailed" : status === "cancelled" ? "answerStopped" : status === "requires_action" ? "answerWaits" : "answerDone";
    announce(`${t(key)} ${text.slice(0, 1000)}`);
    if (status === "requires_action") turn.root.querySelector(".action textarea")?.focus();
    void this.page.listSessions().catch(() => {}); // the counts beside the names; nobody waits for them
  }

  // -- what is seen --------------------------------------------------------------------------------------

  /** @param {import("./coze-stream.js").StreamState} state */
  connection(turn, { state, attempt, waitMs }) {
    const { reading } = this;
    if (!reading || reading.turn !== turn) return;
    if (state === "lost") {
      this.wasLost = true;
      this.status("bad", t("lost", { time: duration(waitMs), attempt }));
    } else if (state === "open" && this.wasLost) {
      this.wasLost = false;
      turn.resumed += 1;
      this.status("good", t("resumed"));
    } else if (state === "open") this.status(reading.stop ? "busy" : "good", t(reading.stop ? "stopping" : "connected"));
    else if (state === "connecting" && !this.wasLost) this.status("busy", t("connecting"));
  }

  status(kind, text) {
    const line = $("connection");
    if (line.dataset.kind === kind && line.textContent === text) return;
    line.dataset.kind = kind;
    line.textContent = text;
  }

  showRunning(running) {
    const hadFocus = [$("send"), $("stop")].includes(document.activeElement);
    $("send").hidden = running;
    $("stop").hidden = !running;
    if (hadFocus) (running ? $("stop") : $("send")).focus();
    // What a connection said is over with it; a complaint stays to be read.
    if (!running && (this.wasLost || $("connection").dataset.kind !== "bad")) this.status("", "");
    this.wasLost = false;
  }

  painted() {
    this.page.events.update();
    this.scroll();
  }

  /** Follows the answer down, unless the reader has scrolled up to read. */
  scroll() {
    const scroller = $("scroller");
    if (this.sticky) scroller.scrollTop = scroller.scrollHeight;
    $("latest").hidden = this.sticky || scroller.scrollHeight - scroller.clientHeight < 40;
  }

  scrolled() {
    const { scrollHeight, scrollTop, clientHeight } = $("scroller");
    this.sticky = scrollHeight - scrollTop - clientHeight < 60;
    $("latest").hidden = this.sticky;
  }

  toLatest() {
    this.sticky = true;
    this.scroll();
    $("message").focus();
  }

  fit() {
    const area = $("message");
    area.style.height = "auto";
    area.style.height = `${Math.min(area.scrollHeight, 180)}px`;
  }

  /** Events of an older chat are fetched: its log is kept for a while. */
  showEvents(turn) {
    this.page.events.watch(turn);
    this.page.toggleEvents(true);
    $("hide-events").focus();
    if (turn.events.length || turn.running || !turn.answer.chatId) return;
    const began = performance.now();
    const onEvent = (event) => turn.events.push({ ...event, at: performance.now() - began });
    followChat({ baseUrl: BASE, headers: this.page.api.headers, chatId: turn.answer.chatId, onEvent })
      .catch((error) => this.page.complain(error))
      .finally(() => this.page.events.update());
  }

  curlOf(turn) {
    const path = `/coze/sessions/${this.page.session.session_id}/messages`;
    return curl({ method: "POST", path, body: turn.request.body, stream: true, host: this.page.api.host });
  }
}
