/** The service's JSON calls. Credentials are held here, in memory, and nowhere else. */
import { CozeError } from "./coze-stream.js";

/** What stands before /coze: empty, or a proxy's prefix. */
export const BASE = location.pathname.replace(/\/coze\/playground\/?$/, "");

export class Api {
  #credentials = { token: "", host: "" };

  setCredentials(token, host) {
    this.#credentials = { token, host };
  }

  get hasCredentials() {
    return this.#credentials.token !== "";
  }

  get host() {
    return this.#credentials.host;
  }

  /** @returns {Record<string, string>} */
  get headers() {
    const { token, host } = this.#credentials;
    return token ? { HtySudoerToken: token, HtyHost: host } : {};
  }

  /** `data.task_result.data` of a success. @throws {CozeError} also where there was no answer (status 0) */
  async call(method, path, body, headers = {}) {
    const init = { method, headers: { ...this.headers, ...headers }, cache: "no-store" };
    if (body instanceof FormData) init.body = body;
    else if (body !== undefined) {
      init.headers["Content-Type"] = "application/json";
      init.body = JSON.stringify(body);
    }
    let response;
    try {
      response = await fetch(BASE + path, init);
    } catch (error) {
      throw new CozeError({ code: "NETWORK", message: String(error?.message ?? error), retryable: true });
    }
    if (!response.ok) throw await CozeError.from(response);
    return (await response.json()).data.task_result.data;
  }

  sessionsOf(userId) {
    return this.call("GET", `/coze/users/${encodeURIComponent(userId)}/sessions?limit=100`);
  }

  createSession(body, key) {
    return this.call("POST", "/coze/sessions", body, { "Idempotency-Key": key });
  }

  session(sessionId) {
    return this.call("GET", `/coze/sessions/${encodeURIComponent(sessionId)}?history_limit=30`);
  }

  /** A page of chats that are older than `before`. */
  chats(sessionId, before) {
    return this.call("GET", `/coze/sessions/${encodeURIComponent(sessionId)}/chats?limit=30&before=${before}`);
  }

  /** The newest messages of the session's conversation, as Coze keeps them; oldest first. */
  async history(sessionId) {
    const page = await this.call("GET", `/coze/sessions/${encodeURIComponent(sessionId)}/history?limit=50`);
    return page.messages.reverse();
  }

  renameSession(sessionId, title) {
    return this.call("PATCH", `/coze/sessions/${encodeURIComponent(sessionId)}`, { title });
  }

  conversationsOf(userId) {
    return this.call("GET", `/coze/users/${encodeURIComponent(userId)}/conversations?limit=100`);
  }

  deleteConversation(userId, conversationId) {
    return this.call("DELETE", `/coze/users/${encodeURIComponent(userId)}/conversations/${encodeURIComponent(conversationId)}`);
  }

  async bots() {
    return (await this.call("GET", "/coze/bots")).bots;
  }

  /** `like`, `unlike`, or "" to take it back. */
  feedback(chatId, type) {
    const path = `/coze/chats/${encodeURIComponent(chatId)}/feedback`;
    return type ? this.call("POST", path, { feedback_type: type }) : this.call("DELETE", path);
  }

  upload(sessionId, file) {
    const form = new FormData();
    form.append("file", file, file.name || "image.png");
    return this.call("POST", `/coze/files?session_id=${encodeURIComponent(sessionId)}`, form);
  }

  endSession(sessionId) {
    return this.call("DELETE", `/coze/sessions/${encodeURIComponent(sessionId)}`);
  }

  cancelChat(chatId) {
    return this.call("POST", `/coze/chats/${encodeURIComponent(chatId)}/cancel`);
  }
}
