/** Types of coze-client.js: all calls of the service. */
import type {
  AnswerFold,
  CallOptions,
  Chat,
  EnterMessage,
  Regenerate,
  SendMessage,
  StreamOptions,
} from "./coze-stream.js";

export * from "./coze-stream.js";

export interface ClientOptions extends StreamOptions {
  /** How often a call is tried again that found no service, or a busy one: 4 by default. */
  retries?: number;
  /** Milliseconds until an answer that needs no waiting: 10,000 by default (uploads: 120,000). */
  timeoutMs?: number;
}

/** Of a call whose result comes in one piece. */
export interface JsonOptions extends CallOptions {
  retries?: number;
  timeoutMs?: number;
}

/** Calls under one key count once, for 24 hours; without one they get a key of their own. */
export interface KeyOptions extends JsonOptions {
  idempotencyKey?: string;
}

export interface WaitOptions extends KeyOptions {
  /** Seconds (30 by default, at most 600) until the chat is returned as it stands; it goes on. 0: at once. */
  wait?: number;
}

export interface KeyedStreamOptions extends StreamOptions {
  idempotencyKey?: string;
}

export interface CreateSession {
  user_id: string;
  bot_id?: string;
  /** One to go on with. */
  conversation_id?: string;
  additional_messages?: EnterMessage[];
  auto_save_history?: boolean;
  meta_data?: Record<string, string>;
}

export interface UpdateSession {
  title?: string;
  /** Replaces all of it. */
  metadata?: Record<string, string>;
}

/** What one user says to one bot. */
export interface Session {
  session_id: string;
  user_id: string;
  title: string | null;
  status: "active" | "inactive" | "expired" | "terminated";
  created_at: string;
  updated_at: string;
  last_activity_at: string;
  expires_at: string;
  conversation_id: string | null;
  metadata: Record<string, string>;
  context: SessionContext;
  chat_count: number;
  chat_history: Chat[];
}

export interface SessionContext {
  bot_id: string;
  additional_messages: EnterMessage[];
  auto_save_history: boolean;
}

export interface ChatPage {
  /** The newest first. */
  chats: Chat[];
  has_more: boolean;
  /** `before` of the next page. */
  next_before: string | null;
}

/** A message as Coze keeps it. */
export interface HistoryMessage {
  message_id: string;
  role: string;
  type: string;
  content: string;
  content_type: string;
  reasoning_content: string;
  created_at: string | null;
  chat_id: string | null;
  meta_data: Record<string, string>;
}

export interface HistoryPage {
  messages: HistoryMessage[];
  has_more: boolean;
  first_id: string | null;
  last_id: string | null;
  conversation_id: string | null;
}

export interface ClearedContext {
  session_id: string;
  conversation_id: string | null;
  section_id: string | null;
}

/** Coze's, which outlives sessions: `sessions.create({ user_id, conversation_id })` goes on with it. */
export interface Conversation {
  conversation_id: string;
  title: string | null;
  bot_id: string;
  created_at: string;
  last_used_at: string;
}

export interface ConversationPage {
  /** The last used first. */
  conversations: Conversation[];
  has_more: boolean;
  next_before: string | null;
}

export interface DeletedConversation {
  conversation_id: string;
  deleted: boolean;
}

export interface Bot {
  bot_id: string;
  /** null while Coze does not describe the bot. */
  name: string | null;
  description: string;
  icon_url: string | null;
  opening_text: string;
  suggested_questions: string[];
}

export interface GiveFeedback {
  feedback_type: "like" | "unlike";
  reason_types?: string[];
  comment?: string;
}

export interface GivenFeedback {
  chat_id: string;
  feedback_type: "like" | "unlike" | null;
  reason_types: string[];
  comment: string;
}

export interface StoredFile {
  file_id: string;
  file_name: string;
  bytes: number;
  type: string;
  mime: string;
  created_at: string;
  expires_at: string;
}

export interface Erased {
  user_id: string;
  erased_sessions: number;
  erased_chats: number;
  erased_files: number;
  /** What cannot be erased now. */
  remaining_sessions: number;
}

export interface UsageSums {
  chats: number;
  tokens: number;
  input: number;
  output: number;
}

/** What it is not grouped by is null. */
export interface UsageRow extends UsageSums {
  day: string | null;
  bot_id: string | null;
  user_id: string | null;
  root: string | null;
}

export interface UsageReport {
  /** Days (UTC), inclusive. */
  from: string;
  to: string;
  group_by: string[];
  rows: UsageRow[];
  total: UsageSums;
}

export interface Health {
  status: string;
  service: string;
  version: string;
  redis: string;
  redis_mode: string;
  running_chats: number;
  uptime_seconds: number;
}

/** Talks to one service, or to the balancer before its replicas. */
export class CozeClient {
  constructor(options?: ClientOptions);
  readonly sessions: Sessions;
  readonly chats: Chats;
  readonly conversations: Conversations;
  readonly bots: Bots;
  readonly files: Files;
  readonly users: Users;
  /** Chats and tokens of the caller. `group_by`: of day, bot, user and root, with commas. */
  usage(query?: { from?: string; to?: string; group_by?: string }, options?: JsonOptions): Promise<UsageReport>;
  health(options?: JsonOptions): Promise<Health>;
}

export interface Sessions {
  /** A session for one of your users, by id or with more. */
  create(user: string | CreateSession, options?: KeyOptions): Promise<Session>;
  /** With its newest chats (0 to 100, 20 by default). Looking counts as activity. */
  get(sessionId: string, options?: JsonOptions & { history_limit?: number }): Promise<Session>;
  /** The user's live ones, the newest activity first. */
  list(userId: string, options?: JsonOptions & { limit?: number }): Promise<Session[]>;
  update(sessionId: string, body: UpdateSession, options?: JsonOptions): Promise<Session>;
  /** Ends it; its running chats are cancelled. */
  delete(sessionId: string, options?: JsonOptions): Promise<Session>;
  /** A page of what Coze keeps of the conversation, the newest first by default. */
  history(
    sessionId: string,
    options?: JsonOptions & { limit?: number; order?: "desc" | "asc"; before?: string; after?: string },
  ): Promise<HistoryPage>;
  /** The bot forgets what was said; the messages stay in the history. */
  clear(sessionId: string, options?: KeyOptions): Promise<ClearedContext>;
}

export interface Chats {
  /** The answer, or after `wait` seconds the chat as it stands. Throws the error of a chat that failed. */
  send(sessionId: string, message: string | SendMessage, options?: WaitOptions): Promise<Chat>;
  /** The answer as it comes, to its end: one chat, however often the connection has to be made anew. */
  stream(sessionId: string, message: string | SendMessage, options?: KeyedStreamOptions): Promise<AnswerFold>;
  /** A chat's stream from its start, or behind the event id `after`, to its end. */
  follow(chatId: string, options?: StreamOptions & { after?: string }): Promise<AnswerFold>;
  /** The chat as it stands, or once it is settled, within `wait` seconds (at most 60). */
  result(chatId: string, options?: JsonOptions & { wait?: number }): Promise<Chat>;
  /** A page of the session's chats, the newest first. */
  list(sessionId: string, options?: JsonOptions & { limit?: number; before?: string }): Promise<ChatPage>;
  /** Cancels, here and at Coze; a chat that is over answers as it is. */
  cancel(chatId: string, options?: KeyOptions): Promise<Chat>;
  /** Answers all tool calls (call id: output); the chat goes on under its id. */
  submitToolOutputs(chatId: string, outputs: Record<string, string>, options?: WaitOptions): Promise<Chat>;
  /** The same, streamed. `after`: the chat's last event id. */
  streamToolOutputs(
    chatId: string,
    outputs: Record<string, string>,
    options?: KeyedStreamOptions & { after?: string },
  ): Promise<AnswerFold>;
  /** The message of the session's newest chat once more, as a new chat; Coze keeps both turns. */
  regenerate(chatId: string, options?: WaitOptions & { body?: Regenerate }): Promise<Chat>;
  streamRegenerated(chatId: string, options?: KeyedStreamOptions & { body?: Regenerate }): Promise<AnswerFold>;
  /** Coze keeps it with the answer; the last one counts. */
  giveFeedback(chatId: string, feedback: "like" | "unlike" | GiveFeedback, options?: JsonOptions): Promise<GivenFeedback>;
  takeFeedbackBack(chatId: string, options?: JsonOptions): Promise<GivenFeedback>;
}

export interface Conversations {
  list(userId: string, options?: JsonOptions & { limit?: number; before?: string }): Promise<ConversationPage>;
  rename(userId: string, conversationId: string, title: string, options?: JsonOptions): Promise<Conversation>;
  /** At Coze, too; sessions that go on with it end. */
  delete(userId: string, conversationId: string, options?: JsonOptions): Promise<DeletedConversation>;
}

export interface Bots {
  /** The configured ones, the default first. */
  list(options?: JsonOptions): Promise<Bot[]>;
  get(botId: string, options?: JsonOptions): Promise<Bot>;
}

export interface Files {
  /** Passes a file on to Coze, to go along with messages: `attachments: [{ file_id }]`. */
  upload(
    content: Blob | ArrayBuffer | Uint8Array,
    options?: JsonOptions & { name?: string; session_id?: string; user_id?: string },
  ): Promise<StoredFile>;
  get(fileId: string, options?: JsonOptions): Promise<StoredFile>;
  /** The service forgets it; Coze deletes it when its time is up. */
  delete(fileId: string, options?: JsonOptions): Promise<StoredFile>;
}

export interface Users {
  /** Erases all that is kept of the user, in as many calls as it takes. */
  erase(userId: string, options?: JsonOptions): Promise<Erased>;
}
