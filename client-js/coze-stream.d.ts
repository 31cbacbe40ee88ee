/** Types of coze-stream.js: reads a chat's event stream, over as many connections as it takes. */

export type ChatStatus = "pending" | "processing" | "completed" | "failed" | "cancelled" | "requires_action";

export interface Usage {
  token_count: number;
  input_count: number;
  output_count: number;
}

export interface ToolCall {
  id: string;
  type: string;
  /** `arguments` is JSON, as the bot wrote it. */
  function?: { name: string; arguments: string };
}

export interface RequiredAction {
  type: string;
  submit_tool_outputs: { tool_calls: ToolCall[] };
}

/** Why a chat failed. */
export interface ChatError {
  code: string;
  message: string;
  retryable: boolean;
  coze_code: number | null;
  logid: string | null;
  hint: string | null;
  /** Seconds. */
  retry_after: number | null;
}

export interface SentAttachment {
  file_id: string | null;
  file_url: string | null;
  type: string;
  file_name: string | null;
  mime: string | null;
}

export interface UserMessage {
  message_id: string;
  role: "user";
  content: string;
  timestamp: string;
  metadata: Record<string, string>;
  /** What went along with it; not there where nothing did. */
  attachments?: SentAttachment[] | null;
}

export interface AssistantMessage {
  message_id: string;
  role: "assistant";
  content: string;
  content_type: string;
  timestamp: string;
  metadata: Record<string, string>;
}

/** One message and its answer, as the service tells it. */
export interface Chat {
  chat_id: string;
  session_id: string;
  status: ChatStatus;
  user_message: UserMessage;
  assistant_message: AssistantMessage | null;
  content: string;
  reasoning_content: string;
  follow_up_questions: string[];
  usage: Usage | null;
  required_action: RequiredAction | null;
  /** Until when it waits for tool outputs. */
  waits_until: string | null;
  error: ChatError | null;
  error_message: string | null;
  /** Whether Coze's stored answer had to complete a stream that was cut. */
  recovered: boolean;
  created_at: string;
  updated_at: string;
  completed_at: string | null;
  metadata: Record<string, string>;
}

/** What makes `fetch` of this package's calls: the platform's, or one like it (see examples/miniprogram). */
export type Fetch = (url: string, init: FetchInit) => Promise<FetchResponse>;

export interface FetchInit {
  method?: string;
  headers: Record<string, string>;
  body?: string | FormData;
  signal: AbortSignal;
  cache: "no-store";
  /** No redirect may be followed: the token would go along. What it was is told by `status`, or by `type`. */
  redirect: "manual";
}

/** What every request of the package has. */
export const FETCH: Pick<FetchInit, "cache" | "redirect">;

/** What is used of a response. */
export interface FetchResponse {
  readonly ok: boolean;
  readonly status: number;
  /** `opaqueredirect` where a browser does not tell more. */
  readonly type?: string;
  readonly headers: { get(name: string): string | null };
  readonly body: ReadableStream<Uint8Array> | { getReader(): Reader } | null;
  json(): Promise<unknown>;
}

/** What is used of a stream's reader. */
export interface Reader {
  read(): Promise<{ done: boolean; value?: Uint8Array | undefined }>;
}

/** Where the service is, and how it is called. */
export interface CallOptions {
  /** What stands before `/coze`; empty for the page's own origin. */
  baseUrl?: string;
  /** Sent with every request, or a function that is asked for them each time: HtySudoerToken, HtyHost. */
  headers?: Record<string, string> | (() => Record<string, string>);
  /** Ends the call with its reason. A chat goes on; `chats.cancel` ends it. */
  signal?: AbortSignal;
  /**
   * Milliseconds in which nothing may be heard of the service, while the device is online: 60,000 by default.
   * Then a `CozeError`. Of a stream, `details.chat_id` and `details.last_event_id` are where `followChat` goes on.
   */
  patienceMs?: number;
  /** This and the two below: for places that have none of their own, such as WeChat mini-programs. */
  fetch?: Fetch;
  TextDecoder?: new () => { decode(bytes?: Uint8Array, options?: { stream?: boolean }): string };
  AbortController?: new () => AbortController;
}

/** How an event stream is read. */
export interface StreamOptions extends CallOptions {
  /** After each event. */
  onEvent?: (event: StreamEvent, answer: AnswerFold) => void;
  /** What becomes of the connection. */
  onState?: (state: StreamState) => void;
  /** As soon as the chat's id is known; again after each new connection. */
  onChat?: (chatId: string) => void;
  /** An answer to go on with, together with `after`. */
  answer?: AnswerFold;
  /** No byte for so many milliseconds means a dead connection: 2.5 heartbeats by default. */
  silenceMs?: number;
  /** The longest pause between two attempts, in milliseconds: 10,000 by default. */
  maxWaitMs?: number;
}

export interface StreamEvent {
  /** Where to resume. */
  id: string;
  event: string;
  data: string;
  /** `data` read as JSON; the text itself where it is none. */
  json: any;
}

export interface StreamState {
  state: "connecting" | "open" | "lost" | "closed";
  /** How many attempts in a row have failed. */
  attempt: number;
  /** Until the next attempt, where the connection is lost. */
  waitMs: number;
  reason: string;
}

export interface AnswerMessage {
  id: string;
  type: string;
  content: string;
  reasoning: string;
  contentType: string;
}

/** The body of a message. */
export interface SendMessage {
  message: string;
  additional_messages?: EnterMessage[];
  attachments?: Attachment[];
  custom_variables?: Record<string, string>;
  meta_data?: Record<string, string>;
  parameters?: Record<string, unknown>;
  on_busy?: "reject" | "interrupt" | "enqueue";
}

/** A message of the conversation so far. */
export interface EnterMessage {
  role: "user" | "assistant";
  content: string;
  content_type?: "text" | "object_string";
  type?: string;
  meta_data?: Record<string, string>;
}

/** Either `file_id`, or an https `file_url`, which needs `type`. */
export interface Attachment {
  file_id?: string;
  file_url?: string;
  type?: "image" | "file" | "audio";
}

/** The body of a regeneration: of a message's fields these are not kept. */
export interface Regenerate {
  custom_variables?: Record<string, string>;
  parameters?: Record<string, unknown>;
}

/** A refusal by the service, or `NETWORK`: nothing was heard of it, `UNEXPECTED_ANSWER`: it is another one. */
export class CozeError extends Error {
  constructor(
    error: { code?: string; message?: string; retryable?: boolean; details?: Record<string, unknown>; request_id?: string },
    status?: number,
    retryAfterMs?: number,
  );
  static from(response: FetchResponse): Promise<CozeError>;
  readonly code: string;
  readonly retryable: boolean;
  readonly details: Record<string, unknown>;
  readonly requestId: string;
  /** Of HTTP; 0 where there was no answer. */
  readonly status: number;
  readonly retryAfterMs: number;
}

/** The grammar of event streams (WHATWG HTML, 9.2.6) on text that arrives in pieces, cut anywhere. */
export class SseParser {
  constructor(lastEventId?: string);
  lastEventId: string;
  /** Milliseconds that the server asks for. */
  retry: number | undefined;
  /** How many heartbeats came. */
  comments: number;
  push(text: string): { id: string; event: string; data: string }[];
}

/** Folds the events of one chat into its answer. */
export class AnswerFold {
  static fromChat(chat: Chat): AnswerFold;
  chatId: string;
  sessionId: string;
  status: ChatStatus;
  /** By message id, in order of first appearance. */
  messages: Map<string, AnswerMessage>;
  followUps: string[];
  /** Plugin calls of the bot and what they returned. */
  calls: Map<string, AnswerMessage>;
  requiredAction: RequiredAction | null;
  usage: Usage | null;
  error: ChatError | null;
  recovered: boolean;
  /** The whole chat, once it is over. */
  result: Chat | null;
  readonly text: string;
  readonly reasoning: string;
  /** Calls that wait for outputs. */
  readonly toolCalls: ToolCall[];
  apply(event: { event: string; json: any }): void;
}

/** Sends a message and reads its answer to the end. */
export function streamChat(
  options: StreamOptions & { sessionId: string; body: SendMessage; idempotencyKey?: string },
): Promise<AnswerFold>;

/** Asks the message of a session's newest chat once more, as a new chat, and reads its answer. */
export function regenerateChat(
  options: StreamOptions & { chatId: string; body?: Regenerate; idempotencyKey?: string },
): Promise<AnswerFold>;

/** Reads a chat from its start, or from `after` (an event id) on, to its end. */
export function followChat(options: StreamOptions & { chatId: string; after?: string }): Promise<AnswerFold>;

/** Answers a chat that `requires_action`, all its calls at once, and reads on. `after`: its last event id. */
export function submitToolOutputs(
  options: StreamOptions & {
    chatId: string;
    toolOutputs: { tool_call_id: string; output: string }[];
    after?: string;
    idempotencyKey?: string;
  },
): Promise<AnswerFold>;

/** A key that nobody has used. */
export function randomKey(): string;

/** The headers of these options. Throws TypeError where one cannot be sent. */
export function headersOf(options: Pick<CallOptions, "headers">): Record<string, string>;
