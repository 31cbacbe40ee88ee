/** The calls of the console: all go to /coze/admin, and nothing is tried again by itself. */
import { CozeError, FETCH, headersOf } from "./coze-stream.js";
import { BASE } from "./credentials.js";

/** A path whose ids may hold anything. */
const at = (texts, ...ids) => texts.map((text, place) => (place ? encodeURIComponent(ids[place - 1]) : "") + text).join("");

export class AdminApi {
  /** @param {import("./credentials.js").Credentials} credentials */
  constructor(credentials) {
    this.credentials = credentials;
  }

  stats() {
    return this.#call("GET", "/stats");
  }

  async failures() {
    return (await this.#call("GET", "/failures")).failures;
  }

  /** `days` days up to today, by day and `group` (bot or user). */
  usage(days, group) {
    const from = new Date(Date.now() - (days - 1) * 86_400_000).toISOString().slice(0, 10);
    return this.#call("GET", `/usage?from=${from}&group_by=day,${group}`);
  }

  session(sessionId) {
    return this.#call("GET", at`/sessions/${sessionId}?history_limit=50`);
  }

  endSession(sessionId) {
    return this.#call("DELETE", at`/sessions/${sessionId}`);
  }

  cancelChat(chatId) {
    return this.#call("POST", at`/chats/${chatId}/cancel`);
  }

  /** As many calls as it takes; what cannot be erased now (`remaining_sessions`) is told. */
  async eraseUser(userId) {
    const sum = { erased_sessions: 0, erased_chats: 0, erased_files: 0 };
    for (;;) {
      const erased = await this.#call("DELETE", at`/users/${userId}`);
      for (const name of Object.keys(sum)) sum[name] += erased[name];
      if (!erased.remaining_sessions || !(erased.erased_sessions || erased.erased_files)) return { ...erased, ...sum };
    }
  }

  async #call(method, path) {
    const { signal } = this.credentials;
    const headers = headersOf({ headers: this.credentials.headers });
    const response = await fetch(`${BASE}/coze/admin${path}`, { ...FETCH, method, headers, signal }).catch((error) => {
      if (signal.aborted) throw error;
      throw new CozeError({ code: "NETWORK", message: String(error?.message ?? error), retryable: true });
    });
    if (!response.ok) throw await CozeError.from(response);
    return (await response.json()).data.task_result.data;
  }
}
