/** The service's calls, as the playground makes them. */
import { CozeClient } from "./coze-client.js";
import { BASE } from "./credentials.js";

export class Api {
  #client;

  /** @param {import("./credentials.js").Credentials} credentials */
  constructor(credentials) {
    // Nothing is tried again by itself: who looks at the page decides.
    this.#client = new CozeClient({ baseUrl: BASE, headers: () => credentials.headers, retries: 0 });
  }

  sessionsOf(userId) {
    return this.#client.sessions.list(userId);
  }

  createSession(body, key) {
    return this.#client.sessions.create(body, { idempotencyKey: key });
  }

  session(sessionId) {
    return this.#client.sessions.get(sessionId, { history_limit: 30 });
  }

  renameSession(sessionId, title) {
    return this.#client.sessions.update(sessionId, { title });
  }

  endSession(sessionId) {
    return this.#client.sessions.delete(sessionId);
  }

  /** A page of chats that are older than `before`. */
  chats(sessionId, before) {
    return this.#client.chats.list(sessionId, { limit: 30, before });
  }

  /** The newest messages of the session's conversation, as Coze keeps them; oldest first. */
  async history(sessionId) {
    return (await this.#client.sessions.history(sessionId, { limit: 50 })).messages.reverse();
  }

  conversationsOf(userId) {
    return this.#client.conversations.list(userId, { limit: 100 });
  }

  deleteConversation(userId, conversationId) {
    return this.#client.conversations.delete(userId, conversationId);
  }

  bots() {
    return this.#client.bots.list();
  }

  /** Asks, or asks once more (`again`: the chat), and does not wait for the answer. */
  ask(sessionId, body, again, key) {
    const options = { idempotencyKey: key, wait: 0 };
    return again ? this.#client.chats.regenerate(again, options) : this.#client.chats.send(sessionId, body, options);
  }

  /** `like`, `unlike`, or "" to take it back. */
  feedback(chatId, type) {
    return type ? this.#client.chats.giveFeedback(chatId, type) : this.#client.chats.takeFeedbackBack(chatId);
  }

  cancelChat(chatId) {
    return this.#client.chats.cancel(chatId);
  }

  upload(sessionId, file) {
    return this.#client.files.upload(file, { name: file.name || "image.png", session_id: sessionId });
  }
}
