/** One session's chats: asking, reading, stopping, and what is seen of them. */
import { BASE } from "./credentials.js";
import { followChat, randomKey, regenerateChat, streamChat, submitToolOutputs } from "./coze-stream.js";
import { curl } from "./curl.js";
import { $, announce, copyText, duration, say, t } from "./dom.js";
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
    /** A message is on its way to be sent: no second one is begun. */
    this.sending = false;
    this.actions = {
      ask: (text) => void this.ask(text),
      submit: (turn, outputs) => void this.submit(turn, outputs),
      cancel: (turn) => void this.cancelWaiting(turn),
      retry: (turn) => void this.retry(turn),
      again: (turn) => void this.again(turn),
      sendInNew: (turn) => void this.sendInNew(turn),
      feedback: (turn, type) => void this.feedback(turn, type),
      events: (turn) => this.showEvents(turn),
      curl: (turn, button) => void copyText(this.curlOf(turn), button),
      copy: (turn, button) => void copyText(turn.answer.text, button),
    };
  }

  /** Shows these chats, and goes on reading the one that is under way. `count`: how many there are in all. */
  show(chats, count = chats.length) {
    this.hangUp();
    this.before = Math.max(0, count - chats.length);
    this.turns = this.turnsOf(chats, this.before);
    $("turns").replaceChildren(...this.turns.map((turn) => turn.root));
    $("welcome").hidden = this.turns.length > 0;
    $("earlier").hidden = !this.before;
    this.status("");
    this.sticky = true;
    this.scroll();
    this.readNext();
  }

  /** What Coze keeps of a conversation whose chats are gone here: questions with the answers behind them. */
  showHistory(messages) {
    const chats = [];
    for (const { role, content, created_at: at, message_id: id } of messages) {
      const blank = { chat_id: "", session_id: "", status: "completed", created_at: at ?? "", content: "", reasoning_content: "", follow_up_questions: [] };
      if (role === "user") chats.push({ ...blank, user_message: { content, timestamp: at ?? "" } });
      else if (chats.length) {
        const chat = chats[chats.length - 1];
        chat.content += chat.content ? `\n${content}` : content;
        chat.assistant_message = { message_id: id, content };
      }
    }
    this.show(chats);
  }

  turnsOf(chats, before) {
    return chats
      .sort((one, other) => one.created_at.localeCompare(other.created_at))
      .map((chat, index) => Turn.fromChat(chat, before + index + 1, this.actions));
  }

  /** Those before the first one; what is in sight stays where it is. */
  async showEarlier() {
    const { session_id: id } = this.page.session;
    const page = await this.page.api.chats(id, this.turns[0]?.answer.chatId ?? "");
    const { scrollHeight, scrollTop } = $("scroller");
    this.before = page.has_more ? Math.max(1, this.before - page.chats.length) : 0;
    const turns = this.turnsOf(page.chats, this.before);
    this.turns = [...turns, ...this.turns];
    $("turns").prepend(...turns.map((turn) => turn.root));
    $("earlier").hidden = !page.has_more;
    this.sticky = false;
    $("scroller").scrollTop = scrollTop + $("scroller").scrollHeight - scrollHeight;
  }

  // -- chats ---------------------------------------------------------------------------------------------

  /**
   * Asks. The turn is shown and the next one locked out before anything is waited for, so that a second Enter
   * or click asks nothing twice; the key goes with the turn, whatever is repeated.
   */
  async ask(text) {
    const { files } = this.page;
    if (this.reading || this.sending || (!text.trim() && files.empty)) return;
    const turn = this.newTurn(text);
    this.sending = true;
    $("message").value = "";
    this.fit();
    try {
      const session = await this.page.withSession();
      if (!session) return this.takeBack(turn);
      this.page.titleBy(text.trim() || files.files[0]?.name || "");
      turn.attach(await files.ready());
      files.clear();
    } finally {
      this.sending = false;
    }
    const attachments = turn.attachments.map(({ file_id }) => ({ file_id }));
    turn.request = { body: { message: text, ...(attachments.length ? { attachments } : {}), stream: true }, key: randomKey() };
    return this.post(turn);
  }

  newTurn(question) {
    const turn = new Turn({ number: this.turns.length + 1, question, sentAt: new Date().toISOString(), actions: this.actions });
    $("welcome").hidden = true;
    this.turns.push(turn);
    $("turns").append(turn.root);
    turn.begin(true);
    this.sticky = true;
    this.scroll();
    announce(t("sending"));
    return turn;
  }

  /** Nothing was sent: the words go back to where they came from. */
  takeBack(turn) {
    turn.root.remove();
    this.turns = this.turns.filter((each) => each !== turn);
    $("welcome").hidden = this.turns.length > 0;
    this.giveBack(turn.question);
  }

  giveBack(text) {
    if ($("message").value) return;
    $("message").value = text;
    this.fit();
  }

  /** The last message once more, as a turn of its own. */
  async again(turn) {
    const { chatId } = turn.answer;
    if (this.reading || this.sending || !chatId) return;
    const next = this.newTurn(turn.question);
    next.attach(turn.attachments);
    next.request = { ...turn.request, again: chatId, key: randomKey() };
    await this.post(next);
  }

  /** The session is over: its last message goes to a new one. */
  async sendInNew(turn) {
    if (this.reading || this.sending) return;
    const { user_id, context } = this.page.session ?? {};
    await this.page.withCredentials(() => this.page.createSession({ user_id: user_id ?? this.page.user, bot_id: context?.bot_id }));
    await this.ask(turn.question);
  }

  async feedback(turn, type) {
    const wanted = turn.feedback === type ? "" : type;
    await this.page.withCredentials(async () => {
      await this.page.api.feedback(turn.answer.chatId, wanted);
      turn.feedback = wanted;
      turn.paint();
      announce(t(wanted ? "feedbackGiven" : "feedbackGone"));
    });
  }

  async post(turn) {
    const { session_id: sessionId } = this.page.session;
    const { body, key, again } = turn.request;
    this.page.memory.set({ pending: { session: sessionId, body: { ...body, stream: false }, key, again } });
    const ask = again ? { chatId: again } : { sessionId, body };
    const start = again ? regenerateChat : streamChat;
    await this.read(turn, (options) => start({ ...options, ...ask, idempotencyKey: key }), true);
  }

  /** Tries again where it failed: goes on reading, repeats the POST with its key, or asks anew. */
  async retry(turn) {
    if (this.reading) return;
    if (turn.failure?.status === 401 && !(await this.page.credentials.ask(turn.failure))) return;
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
        headers: this.page.credentials.headers,
        patienceMs: Infinity, // the page says that it waits, and has a button to stop
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
      if (!turn.answer.chatId && error.status >= 400) this.giveBack(turn.question); // to be put right
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
    this.status("busy", "stopping");
    const { chatId } = reading.turn.answer;
    if (!chatId) return; // done as soon as it is known
    while (this.reading === reading) {
      try {
        await this.page.api.cancelChat(chatId); // the stream brings the end
        return;
      } catch (error) {
        if (error.status && !error.retryable) return this.page.complain(error);
      }
      this.status("bad", "stopLater");
      await new Promise((wake) => setTimeout(wake, 1000)); // until there is a connection again
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

  /** What `onState` tells of the connection. */
  connection(turn, { state, attempt, waitMs }) {
    const { reading } = this;
    if (!reading || reading.turn !== turn) return;
    if (state === "lost") {
      this.wasLost = true;
      if (reading.stop) this.status("bad", "stopLater");
      else this.status("bad", "lost", { time: duration(waitMs), attempt });
    } else if (state === "open" && this.wasLost) {
      this.wasLost = false;
      turn.resumed += 1;
      this.status("good", "resumed");
    } else if (state === "open") this.status(reading.stop ? "busy" : "good", reading.stop ? "stopping" : "connected");
    else if (state === "connecting" && !this.wasLost) this.status("busy", "connecting");
  }

  /** `key` of the strings, so that it changes with the language; "" clears the line. */
  status(kind, key = "", values = {}) {
    const line = $("connection");
    if (key && line.dataset.t === key && line.dataset.kind === kind && line.dataset.tValues === JSON.stringify(values)) return;
    line.dataset.kind = kind;
    if (key) say(line, key, values);
    else [line.textContent, line.dataset.t] = ["", ""];
  }

  showRunning(running) {
    const hadFocus = [$("send"), $("stop")].includes(document.activeElement);
    $("send").hidden = running;
    $("stop").hidden = !running;
    if (hadFocus) (running ? $("stop") : $("send")).focus();
    // What a connection said is over with it; a complaint stays to be read.
    if (!running && (this.wasLost || $("connection").dataset.kind !== "bad")) this.status("");
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
    const turn = this.turns.find(({ root }) => root.offsetTop + root.offsetHeight > scrollTop);
    // As a part of its height: in another width it is another number of pixels.
    this.place = turn && { turn, part: (scrollTop - turn.root.offsetTop) / turn.root.offsetHeight };
  }

  /** The window has another size: what was in sight stays so. */
  resized() {
    const { place, sticky } = this;
    if (sticky || !place) return this.scroll();
    const { root } = place.turn;
    $("scroller").scrollTop = root.offsetTop + place.part * root.offsetHeight;
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
    followChat({ baseUrl: BASE, headers: this.page.credentials.headers, chatId: turn.answer.chatId, onEvent })
      .catch((error) => this.page.complain(error))
      .finally(() => this.page.events.update());
  }

  curlOf(turn) {
    const path = `/coze/sessions/${this.page.session.session_id}/messages`;
    return curl({ method: "POST", path, body: turn.request.body, stream: true, host: this.page.credentials.host });
  }
}
