/**
 * coze-client.js: the calls of coze-fastapi, from browsers, Node 18 and newer, and mini-programs. It needs
 * coze-stream.js beside it and nothing else.
 *
 *   import { CozeClient } from "./coze-client.js";
 *   const client = new CozeClient({ baseUrl: "https://api.example.com", headers: { HtySudoerToken, HtyHost } });
 *   const session = await client.sessions.create("u-1");
 *   const answer = await client.chats.stream(session.session_id, "你好", {
 *     onEvent: (event, answer) => { output.textContent = answer.text; },
 *   });
 *
 * Bodies and results have the names of the service's own JSON; the envelope is taken off. Whatever is refused,
 * or cannot be had, is a CozeError. Options and types are described in client-js/coze-client.d.ts.
 */
import { CozeError, FETCH, followChat, headersOf, randomKey, regenerateChat, streamChat, submitToolOutputs } from "./coze-stream.js";

export * from "./coze-stream.js";

/** Statuses of a service, or of the proxy before it, that may answer the same call a moment later. */
const TRANSIENT = new Set([429, 502, 503, 504]);
const [FIRST_PAUSE_MS, LONGEST_PAUSE_MS] = [200, 2000];
const UPLOAD_MS = 120_000; // until a file has been passed on to Coze

/** The whole service. What the options hold counts for every call; `options` of a call come before it. */
export class CozeClient {
  constructor(options = {}) {
    const calls = new Calls(options);
    this.sessions = new Sessions(calls);
    this.chats = new Chats(calls);
    this.conversations = new Conversations(calls);
    this.bots = new Bots(calls);
    this.files = new Files(calls);
    this.users = new Users(calls);
    this.usage = (query = {}, options = {}) => calls.json("GET", "/coze/usage", { query, ...options });
    this.health = (options = {}) => calls.json("GET", "/coze/health", options);
  }
}

class Part {
  constructor(calls) {
    this.calls = calls;
  }
}

class Sessions extends Part {
  create(user, options = {}) {
    return this.calls.post("/coze/sessions", bodyOf(user, "user_id"), options);
  }

  get(sessionId, { history_limit = 20, ...options } = {}) {
    return this.calls.json("GET", at`/coze/sessions/${sessionId}`, { query: { history_limit }, ...options });
  }

  async list(userId, { limit = 100, ...options } = {}) {
    return (await this.calls.json("GET", at`/coze/users/${userId}/sessions`, { query: { limit }, ...options })).sessions;
  }

  update(sessionId, body, options = {}) {
    return this.calls.json("PATCH", at`/coze/sessions/${sessionId}`, { body, ...options });
  }

  delete(sessionId, options = {}) {
    return this.calls.json("DELETE", at`/coze/sessions/${sessionId}`, options);
  }

  history(sessionId, { limit, order, before, after, ...options } = {}) {
    const query = { limit, order, before, after };
    return this.calls.json("GET", at`/coze/sessions/${sessionId}/history`, { query, ...options });
  }

  clear(sessionId, options = {}) {
    return this.calls.post(at`/coze/sessions/${sessionId}/clear`, undefined, options);
  }
}

class Chats extends Part {
  send(sessionId, message, options = {}) {
    return this.calls.waiting(at`/coze/sessions/${sessionId}/messages`, bodyOf(message, "message"), options);
  }

  stream(sessionId, message, options = {}) {
    return streamChat({ ...this.calls.options, ...options, sessionId, body: bodyOf(message, "message") });
  }

  follow(chatId, options = {}) {
    return followChat({ ...this.calls.options, ...options, chatId });
  }

  result(chatId, { wait = 0, ...options } = {}) {
    const call = { query: { wait }, ...options, extraMs: wait * 1000 };
    return this.calls.json("GET", at`/coze/chats/${chatId}/result`, call);
  }

  list(sessionId, { limit, before, ...options } = {}) {
    return this.calls.json("GET", at`/coze/sessions/${sessionId}/chats`, { query: { limit, before }, ...options });
  }

  cancel(chatId, options = {}) {
    return this.calls.post(at`/coze/chats/${chatId}/cancel`, undefined, options);
  }

  submitToolOutputs(chatId, outputs, options = {}) {
    return this.calls.waiting(at`/coze/chats/${chatId}/tool_outputs`, { tool_outputs: outputsOf(outputs) }, options);
  }

  streamToolOutputs(chatId, outputs, options = {}) {
    return submitToolOutputs({ ...this.calls.options, ...options, chatId, toolOutputs: outputsOf(outputs) });
  }

  regenerate(chatId, { body = {}, ...options } = {}) {
    return this.calls.waiting(at`/coze/chats/${chatId}/regenerate`, body, options);
  }

  streamRegenerated(chatId, options = {}) {
    return regenerateChat({ ...this.calls.options, ...options, chatId });
  }

  giveFeedback(chatId, feedback, options = {}) {
    return this.calls.json("POST", at`/coze/chats/${chatId}/feedback`, { body: bodyOf(feedback, "feedback_type"), ...options });
  }

  takeFeedbackBack(chatId, options = {}) {
    return this.calls.json("DELETE", at`/coze/chats/${chatId}/feedback`, options);
  }
}

class Conversations extends Part {
  list(userId, { limit, before, ...options } = {}) {
    return this.calls.json("GET", at`/coze/users/${userId}/conversations`, { query: { limit, before }, ...options });
  }

  rename(userId, conversationId, title, options = {}) {
    return this.calls.json("PATCH", at`/coze/users/${userId}/conversations/${conversationId}`, { body: { title }, ...options });
  }

  delete(userId, conversationId, options = {}) {
    return this.calls.json("DELETE", at`/coze/users/${userId}/conversations/${conversationId}`, options);
  }
}

class Bots extends Part {
  async list(options = {}) {
    return (await this.calls.json("GET", "/coze/bots", options)).bots;
  }

  get(botId, options = {}) {
    return this.calls.json("GET", at`/coze/bots/${botId}`, options);
  }
}

class Files extends Part {
  /** Sent again only where it was refused before it was read: a second one would be another file. */
  upload(content, { name = content.name || "file", session_id, user_id, ...options } = {}) {
    const form = new FormData();
    form.append("file", content instanceof Blob ? content : new Blob([content]), name);
    const call = { query: { session_id, user_id }, body: form, timeoutMs: UPLOAD_MS, ...options, repeatable: false };
    return this.calls.json("POST", "/coze/files", call);
  }

  get(fileId, options = {}) {
    return this.calls.json("GET", at`/coze/files/${fileId}`, options);
  }

  delete(fileId, options = {}) {
    return this.calls.json("DELETE", at`/coze/files/${fileId}`, options);
  }
}

class Users extends Part {
  /** As many calls as it takes. What cannot be erased now (`remaining_sessions`) is told, not tried for ever. */
  async erase(userId, options = {}) {
    const sum = { erased_sessions: 0, erased_chats: 0, erased_files: 0 };
    for (;;) {
      const erased = await this.calls.json("DELETE", at`/coze/users/${userId}`, options);
      for (const name of Object.keys(sum)) sum[name] += erased[name];
      const moved = erased.erased_sessions || erased.erased_files;
      if (!erased.remaining_sessions || !moved) return { ...erased, ...sum };
    }
  }
}

/** A text stands for the one field that has to be there. */
const bodyOf = (given, name) => (typeof given === "string" ? { [name]: given } : given);
const outputsOf = (outputs) => Object.entries(outputs).map(([tool_call_id, output]) => ({ tool_call_id, output }));

/** A path whose ids may hold anything. */
const at = (texts, ...ids) => texts.map((text, place) => (place ? encodeURIComponent(ids[place - 1]) : "") + text).join("");

/** Sends requests, again where that may help and cannot harm, and takes the envelope off. */
class Calls {
  constructor(options) {
    this.options = options;
  }

  /** A POST that counts once, however often it is sent. */
  post(path, body, { idempotencyKey = randomKey(), ...call } = {}) {
    return this.json("POST", path, { ...call, body, extra: { ...call.extra, "Idempotency-Key": idempotencyKey } });
  }

  /** The whole answer, or after `wait` seconds the chat as it stands. */
  waiting(path, body, { wait = 30, ...call } = {}) {
    const Prefer = wait > 0 ? `wait=${Math.ceil(wait)}` : "respond-async";
    return this.post(path, { ...body, stream: false }, { ...call, extra: { Prefer }, extraMs: wait * 1000 });
  }

  async json(method, path, call = {}) {
    const all = { ...this.options, ...call };
    const { retries = 4, patienceMs = 60_000, repeatable = true, signal } = all;
    let spentMs = 0;
    for (let attempt = 0; ; attempt += 1) {
      signal?.throwIfAborted();
      const began = Date.now();
      try {
        return await this.#once(method, path, all);
      } catch (error) {
        signal?.throwIfAborted();
        const pause = Math.min(FIRST_PAUSE_MS * 2 ** attempt, LONGEST_PAUSE_MS) * (0.5 + Math.random() / 2);
        const waitMs = pause + (error.retryAfterMs ?? 0);
        spentMs += Date.now() - began + waitMs;
        if (attempt >= retries || spentMs > patienceMs || !mayHelp(error, repeatable)) throw error;
        await sleep(waitMs, signal);
      }
    }
  }

  async #once(method, path, all) {
    const { baseUrl = "", query = {}, body, extra, timeoutMs = 10_000, extraMs = 0, signal } = all;
    const { fetch = globalThis.fetch, AbortController = globalThis.AbortController } = all;
    const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== null);
    const asked = given.map(([name, value]) => `${name}=${encodeURIComponent(value)}`).join("&");
    const json = body !== undefined && !(globalThis.FormData && body instanceof FormData);
    const headers = { ...headersOf(all), ...(json ? { "Content-Type": "application/json" } : {}), ...extra };
    const connection = new AbortController();
    const hangUp = () => connection.abort();
    let late = false;
    const alarm = setTimeout(() => (late = true) && hangUp(), timeoutMs + extraMs);
    const failed = (error) => unreachable(late ? new Error(`no answer within ${(timeoutMs + extraMs) / 1000} s`) : error);
    signal?.addEventListener("abort", hangUp);
    try {
      const init = { ...FETCH, method, headers, body: json ? JSON.stringify(body) : body, signal: connection.signal };
      const response = await fetch(baseUrl + path + (asked && `?${asked}`), init).catch(failed);
      if (!response.ok) throw await CozeError.from(response);
      return unwrapped(await response.json().catch(failed), response.status);
    } finally {
      clearTimeout(alarm);
      hangUp(); // what nobody has read
      signal?.removeEventListener("abort", hangUp);
    }
  }
}

function unreachable(error) {
  if (error instanceof SyntaxError) throw new CozeError({ code: "UNEXPECTED_ANSWER", message: "what answered is not this service" });
  throw new CozeError({ code: "NETWORK", message: String(error?.message ?? error), retryable: true });
}

/** `data.task_result.data`, or `data` where there is no task (health). */
function unwrapped(envelope, status) {
  const data = envelope?.data;
  if (!data) throw new CozeError({ code: "UNEXPECTED_ANSWER", message: "what answered is not this service" }, status);
  return "task_result" in data ? data.task_result.data : data;
}

/** A chat that failed has failed: only a new message, which costs, can help. */
function mayHelp(error, repeatable) {
  if (!(error instanceof CozeError) || !error.retryable || "chat_id" in error.details) return false;
  return repeatable ? error.status === 0 || TRANSIENT.has(error.status) : [429, 503].includes(error.status);
}

/** Wakes early where the signal says so: whoever called looks at it next. */
function sleep(ms, signal) {
  return new Promise((resolve) => {
    const wake = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", wake);
      resolve();
    };
    const timer = setTimeout(wake, ms);
    signal?.addEventListener("abort", wake);
  });
}
