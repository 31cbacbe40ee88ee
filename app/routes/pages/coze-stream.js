/**
 * coze-stream.js: reads the event streams of coze-fastapi. No dependency, no build step: copy this file.
 *
 *   import { streamChat } from "./coze-stream.js";
 *   const answer = await streamChat({
 *     baseUrl: "https://api.example.com", sessionId, body: { message: "你好" },
 *     headers: { HtySudoerToken: token, HtyHost: location.hostname },
 *     onEvent: (event, answer) => { output.textContent = answer.text; },
 *     onState: ({ state, waitMs }) => { notice.hidden = state !== "lost"; },
 *   });
 *   console.log(answer.status, answer.text, answer.followUps, answer.usage);
 *
 * What it takes care of: a POST whose answer never came is repeated with the same Idempotency-Key, so
 * nothing is asked twice; a connection that breaks, or says nothing for longer than heartbeats allow, is
 * opened again from the last event id; snapshots replace what was there. Not a character is lost or doubled.
 * coze-client.js has the other calls of the service.
 * Options and types are described in client-js/coze-stream.d.ts.
 */

const SILENCE_MS = 2.5 * 15_000; // SSE_HEARTBEAT_SECONDS of the service
const FIRST_WAIT_MS = 250;
/** How often in a row a status is met with patience at most; the rest is final. 404: while the log is written again. */
const PATIENCE = { 404: 3, 429: 8, 500: 3, 502: Infinity, 503: Infinity, 504: Infinity };
const GATEWAY = new Set([502, 503, 504]);
/** What the platform has to have, or the options have to bring. */
const NEEDED = ["fetch", "TextDecoder", "AbortController"];
/** Of every request: a redirect is refused, since the token would go along to wherever it leads. */
export const FETCH = { cache: "no-store", redirect: "manual" };
const ENDS = {
  "conversation.chat.completed": "completed",
  "conversation.chat.failed": "failed",
  "conversation.chat.canceled": "cancelled",
  "conversation.chat.requires_action": "requires_action",
};

/** A refusal by the service; fields as in the error envelope. `status` 0: not a service that we know. */
export class CozeError extends Error {
  constructor(error, status = 0, retryAfterMs = 0) {
    super(error.message || `HTTP ${status}`);
    this.name = "CozeError";
    this.code = error.code || `HTTP_${status}`;
    this.retryable = error.retryable ?? GATEWAY.has(status);
    this.details = error.details ?? {};
    this.requestId = error.request_id ?? "";
    this.status = status;
    this.retryAfterMs = retryAfterMs;
  }

  /** Of a response that is not ok. */
  static async from(response) {
    if (response.type === "opaqueredirect" || (response.status >= 300 && response.status < 400)) {
      const message = "what answered redirects elsewhere: baseUrl has to be the service's own address";
      return new CozeError({ code: "UNEXPECTED_ANSWER", message }, response.status);
    }
    const body = await response.json().catch(() => null);
    const wait = Number(response.headers.get("Retry-After")) * 1000 || 0;
    return new CozeError(body?.error ?? {}, response.status, wait);
  }
}

/**
 * The event stream grammar (WHATWG HTML, 9.2.6) on text that arrives in pieces, cut anywhere.
 * The work is linear in it. `lastEventId` is what a client resumes from, `retry` the server's wish in ms, `comments` counts heartbeats.
 */
export class SseParser {
  lastEventId = "";
  retry = undefined;
  comments = 0;
  #pieces = []; // of the line that has not ended
  #afterCr = false;
  #id = "";
  #event = "";
  #data = [];

  constructor(lastEventId = "") {
    this.lastEventId = this.#id = lastEventId;
  }

  push(text) {
    if (this.#afterCr && text[0] === "\n") text = text.slice(1); // the second half of a CRLF
    else if (!text) return [];
    this.#afterCr = text.endsWith("\r");
    const [piece, ...more] = text.split(/\r\n|\r|\n/);
    this.#pieces.push(piece);
    if (!more.length) return [];
    const lines = [this.#pieces.join(""), ...more];
    this.#pieces = [lines.pop()];
    return lines.flatMap((line) => this.#line(line) ?? []);
  }

  #line(line) {
    if (line === "") return this.#dispatch();
    const colon = line.indexOf(":");
    if (colon === 0) this.comments += 1;
    const field = colon < 0 ? line : line.slice(0, colon);
    let value = colon < 0 ? "" : line.slice(colon + 1);
    if (value[0] === " ") value = value.slice(1);
    if (field === "data") this.#data.push(value);
    else if (field === "event") this.#event = value;
    else if (field === "id" && !value.includes("\0")) this.#id = value;
    else if (field === "retry" && /^[0-9]+$/.test(value)) this.retry = Number(value);
    return null;
  }

  #dispatch() {
    this.lastEventId = this.#id;
    const hadData = this.#data.length > 0;
    const event = { id: this.#id, event: this.#event || "message", data: this.#data.join("\n") };
    [this.#event, this.#data] = ["", []];
    return hadData ? event : null;
  }
}

/**
 * Folds the events of one chat into its answer, by one rule: deltas are appended by message id, a snapshot
 * replaces what was there. Nothing else brings text of the answer.
 */
export class AnswerFold {
  chatId = "";
  sessionId = "";
  /** pending, processing, completed, failed, cancelled, requires_action */
  status = "processing";
  /** By message id, in order of first appearance. */
  messages = new Map();
  followUps = [];
  /** Plugin calls of the bot and what they returned. */
  calls = new Map();
  requiredAction = null;
  usage = null;
  error = null;
  recovered = false;
  /** The whole chat, once the `result` event is here. */
  result = null;

  /** An answer as it stands in a session's history or in `GET result`. */
  static fromChat(chat) {
    const answer = new AnswerFold();
    answer.chatId = chat.chat_id;
    answer.sessionId = chat.session_id;
    if (chat.content || chat.reasoning_content) {
      const message = answer.#message(chat.assistant_message?.message_id ?? "");
      message.content = chat.content;
      message.reasoning = chat.reasoning_content;
    }
    answer.#end(chat);
    return answer;
  }

  get text() { return this.#join("content"); }
  get reasoning() { return this.#join("reasoning"); }

  /** Calls that wait for outputs: `{id, type, function: {name, arguments}}`. */
  get toolCalls() { return this.requiredAction?.submit_tool_outputs?.tool_calls ?? []; }

  apply({ event, json }) {
    if (event === "conversation.message.delta") this.#delta(json);
    else if (event === "conversation.message.completed") this.#completed(json);
    else if (event === "snapshot") this.#snapshot(json);
    else if (event === "chat") [this.chatId, this.sessionId, this.status] = [json.chat_id, json.session_id, json.status];
    else if (event === "error") this.error = json;
    else if (event === "result") this.#end(json.data.task_result.data);
    else if (event.startsWith("conversation.chat.")) this.#chat(event, json);
  }

  #join(part) {
    return [...this.messages.values()].map((message) => message[part]).filter(Boolean).join("\n");
  }

  #message(id, into = this.messages, type = "answer") {
    const made = into.get(id) ?? { id, type, content: "", reasoning: "", contentType: "text" };
    into.set(id, made);
    return made;
  }

  #delta(json) {
    if ((json.type || "answer") !== "answer") return;
    const message = this.#message(idOf(json));
    message.content += textOf(json.content);
    message.reasoning += textOf(json.reasoning_content);
    if (json.content_type) message.contentType = json.content_type;
  }

  #completed(json) {
    if (json.type === "follow_up") {
      if (json.content && !this.followUps.includes(json.content)) this.followUps.push(json.content);
      return;
    }
    if (json.type === "answer") return; // all its text has come before
    const call = this.#message(idOf(json), this.calls, json.type);
    call.content = textOf(json.content) || call.content;
    if (json.content_type) call.contentType = json.content_type;
  }

  #snapshot(json) {
    this.messages.clear();
    for (const each of json.messages ?? []) {
      const message = this.#message(idOf(each));
      message.content = textOf(each.content);
      message.reasoning = textOf(each.reasoning_content);
      message.contentType = each.content_type || "text";
    }
    this.followUps = [...(json.follow_up_questions ?? [])];
    this.requiredAction = null;
    this.status = "processing";
  }

  #chat(event, json) {
    this.usage = json.usage?.token_count ? json.usage : this.usage;
    this.recovered ||= json.recovered === true;
    const end = ENDS[event];
    this.status = end ?? "processing";
    this.requiredAction = end === "requires_action" ? json.required_action : null;
  }

  #end(chat) {
    this.result = chat;
    this.status = chat.status;
    this.usage = chat.usage ?? this.usage;
    this.error = chat.error ?? null;
    this.recovered = chat.recovered;
    this.requiredAction = chat.required_action;
    if (chat.follow_up_questions?.length) this.followUps = [...chat.follow_up_questions];
  }
}

const idOf = (json) => String(json.id ?? "");
const textOf = (value) => (typeof value === "string" ? value : "");

/**
 * Sends a message and reads its answer to the end, over as many connections as it takes. Whatever its status:
 * failed, cancelled and requires_action are answers, too.
 * @throws {CozeError} where the service refuses or cannot be reached; the signal's reason where it was aborted.
 */
export function streamChat(options) {
  const path = `/coze/sessions/${encodeURIComponent(options.sessionId)}/messages`;
  return new Reading(options).run(posting(path, options.body, options));
}

/** Asks the message of a session's newest chat once more, as a new chat, and reads its answer. */
export function regenerateChat(options) {
  const path = `/coze/chats/${encodeURIComponent(options.chatId)}/regenerate`;
  return new Reading(options).run(posting(path, options.body ?? {}, options));
}

/** Reads a chat from its start, or from `after` (an event id) on, to its end. */
export function followChat(options) {
  return new Reading(options, options.chatId, options.after).run(null);
}

/** Answers a chat that `requires_action`, all its calls at once, and reads on. `after` is its last event id. */
export function submitToolOutputs(options) {
  const path = `/coze/chats/${encodeURIComponent(options.chatId)}/tool_outputs`;
  const body = { tool_outputs: options.toolOutputs };
  return new Reading(options, options.chatId, options.after).run(posting(path, body, options));
}

/** A POST that may be sent again: under its key it counts once. */
function posting(path, body, { idempotencyKey = randomKey() }) {
  return { path, headers: { "Idempotency-Key": idempotencyKey }, body: JSON.stringify({ ...body, stream: true }) };
}

/** What goes along with every request. @throws {TypeError} before anything is sent */
export function headersOf({ headers = {} }) {
  const found = typeof headers === "function" ? headers() : headers;
  const wrong = Object.keys(found).find((name) => typeof found[name] !== "string" || /[^\t\x20-\x7e]/.test(found[name]));
  if (wrong) throw new TypeError(`the header ${wrong} has to be text of printable ASCII: is it a placeholder, or has it a line end?`);
  return found;
}

/** A key that nobody has used; also where the page is not a secure context, or there is no crypto at all. */
export function randomKey() {
  const bytes = new Uint8Array(16).map(() => Math.random() * 256);
  return Array.from(globalThis.crypto?.getRandomValues(bytes) ?? bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The connection broke, or the service refused for the moment: `refusal` says how long. */
class Lost extends Error {
  constructor(reason, refusal = null) {
    super(reason);
    this.refusal = refusal;
  }
}

const broken = (error) => {
  throw new Lost(String(error?.message ?? error));
};

/** One chat's reading: a POST until it is answered, then GETs until `done`. */
class Reading {
  constructor(options, chatId = "", after = "") {
    this.options = options;
    this.answer = options.answer ?? new AnswerFold();
    this.chatId = chatId;
    this.lastId = after;
    this.attempt = 0;
    this.retryMs = 1000;
    this.troubleMs = 0; // since something was heard, without the time that the device slept or was offline
    this.heardAt = 0;
    this.refusals = new Map();
  }

  async run(post) {
    const { signal } = this.options;
    const missing = NEEDED.filter((name) => typeof (this.options[name] ?? globalThis[name]) !== "function");
    if (missing.length) {
      const message = `This place has no ${missing.join(", no ")}: give it as an option, as examples/miniprogram does`;
      throw new CozeError({ code: "NOT_SUPPORTED_HERE", message });
    }
    for (;;) {
      signal?.throwIfAborted();
      try {
        this.#say("connecting");
        await this.#connect(this.#request(post), () => (post = null));
        this.#say("closed");
        return this.answer;
      } catch (error) {
        signal?.throwIfAborted();
        if (!(error instanceof Lost)) throw error;
        await this.#pause(error);
      }
    }
  }

  #request(post) {
    const { baseUrl = "" } = this.options;
    const headers = { ...headersOf(this.options), Accept: "text/event-stream" };
    if (post) {
      const all = { ...headers, "Content-Type": "application/json", ...post.headers };
      return [baseUrl + post.path, { method: "POST", headers: all, body: post.body }];
    }
    const resume = this.lastId ? { "Last-Event-ID": this.lastId } : {};
    const path = `/coze/chats/${encodeURIComponent(this.chatId)}/events`;
    return [baseUrl + path, { headers: { ...headers, ...resume } }];
  }

  /** One connection. Returns once the answer is whole. */
  async #connect([url, init], answered) {
    const { signal, silenceMs = SILENCE_MS, fetch = globalThis.fetch } = this.options;
    const connection = new (this.options.AbortController ?? globalThis.AbortController)();
    const hangUp = () => connection.abort();
    let alarm;
    const listen = () => {
      this.heardAt = Date.now();
      clearTimeout(alarm);
      alarm = setTimeout(hangUp, silenceMs);
    };
    signal?.addEventListener("abort", hangUp);
    globalThis.addEventListener?.("offline", hangUp);
    listen();
    try {
      const response = await fetch(url, { ...init, ...FETCH, signal: connection.signal }).catch(broken);
      if (!response.ok) await this.#refused(response, init.method === "POST");
      if (response.status === 204) return; // read to its end before
      if (!response.headers.get("Content-Type")?.startsWith("text/event-stream") || !response.body) {
        throw new Lost("not an event stream");
      }
      this.chatId = response.headers.get("X-Coze-Chat-Id") ?? this.chatId;
      this.options.onChat?.(this.chatId);
      answered();
      this.#say("open");
      await this.#read(response.body.getReader(), listen);
    } finally {
      clearTimeout(alarm);
      connection.abort();
      signal?.removeEventListener("abort", hangUp);
      globalThis.removeEventListener?.("offline", hangUp);
    }
  }

  async #read(reader, heard) {
    const parser = new SseParser(this.lastId);
    const decoder = new (this.options.TextDecoder ?? globalThis.TextDecoder)(); // takes a BOM off, keeps half a character for the next piece
    let [whole, heartbeats] = [false, 0];
    for (;;) {
      const { done, value } = await reader.read().catch(broken);
      if (done) throw new Lost("the stream ended early");
      heard();
      for (const each of parser.push(decoder.decode(value, { stream: true }))) {
        this.lastId = each.id;
        this.retryMs = parser.retry ?? this.retryMs;
        if (each.event === "reconnect") throw new Lost("the service asks to come back");
        whole ||= each.event === "result";
        this.attempt = this.troubleMs = 0;
        this.refusals.clear();
        this.#take(each);
        // Without a result it was the reading that broke, not the chat that ended.
        if (each.event === "done" && whole) return;
        if (each.event === "done") throw new Lost("the reading was broken off");
      }
      if (parser.comments > heartbeats) [heartbeats, this.troubleMs] = [parser.comments, 0]; // a bot that thinks long
    }
  }

  #take(each) {
    let json = null;
    try {
      json = JSON.parse(each.data);
      this.answer.apply({ event: each.event, json });
    } catch {
      json ??= each.data; // an event of a newer service: shown as it is
    }
    this.options.onEvent?.({ ...each, json }, this.answer);
  }

  async #refused(response, posting) {
    const error = await CozeError.from(response);
    const { status } = response;
    const times = (this.refusals.get(status) ?? 0) + 1;
    this.refusals.set(status, times);
    // An unknown chat is final, unless it was there a moment ago.
    const hopeful = posting ? GATEWAY.has(status) && error.retryable : status !== 404 || this.lastId !== "";
    const patience = PATIENCE[status] ?? 0;
    throw hopeful && times <= patience ? new Lost(error.code, error) : error;
  }

  async #pause(lost) {
    const { maxWaitMs = 10_000, patienceMs = 60_000, silenceMs = SILENCE_MS, signal } = this.options;
    const backoff = this.attempt ? Math.min(this.retryMs * 2 ** (this.attempt - 1), maxWaitMs) : FIRST_WAIT_MS;
    const waitMs = Math.max(lost.refusal?.retryAfterMs ?? 0, backoff * (0.75 + Math.random() / 2));
    const online = globalThis.navigator?.onLine !== false;
    if (online) this.troubleMs += Math.min(Date.now() - this.heardAt, silenceMs) + waitMs;
    if (this.troubleMs > patienceMs) throw this.#gaveUp(lost);
    this.attempt += 1;
    this.#say("lost", waitMs, lost.message);
    await new Promise((resolve) => {
      const wake = () => {
        clearTimeout(timer);
        globalThis.removeEventListener?.("online", wake);
        signal?.removeEventListener("abort", wake);
        resolve(undefined);
      };
      const timer = setTimeout(wake, waitMs);
      globalThis.addEventListener?.("online", wake);
      signal?.addEventListener("abort", wake);
    });
  }

  /** Patience is over. The chat may well go on: the details say where. */
  #gaveUp(lost) {
    const cors = this.chatId ? "" : "; from a web page also where CORS_ALLOW_ORIGINS lacks its origin";
    const message = `nothing comes from ${this.options.baseUrl || "the service"}: ${lost.message}${cors}`;
    const error = lost.refusal ?? new CozeError({ code: "NETWORK", message, retryable: true });
    error.details = { ...error.details, chat_id: this.chatId, last_event_id: this.lastId };
    return error;
  }

  #say(state, waitMs = 0, reason = "") {
    this.options.onState?.({ state, attempt: this.attempt, waitMs, reason });
  }
}
