// An app in TypeScript: every kind of call, with the types that it relies on.
import { AnswerFold, CozeClient, CozeError, followChat, type Chat, type ClientOptions, type Session } from "coze-fastapi-client";
import { SseParser, streamChat } from "coze-fastapi-client/coze-stream.js";

declare const process: { env: { SERVICE: string } };

const options: ClientOptions = {
  baseUrl: process.env.SERVICE,
  headers: () => ({ HtySudoerToken: "t", HtyHost: "localhost" }),
  fetch: (url, init) => fetch(url, init),
  TextDecoder,
  AbortController,
  patienceMs: 20_000,
};
const client = new CozeClient(options);
const session: Session = await client.sessions.create({ user_id: "u-1", meta_data: { app: "ts" } }, { idempotencyKey: "k" });
const title: string | null = session.title;
const chat: Chat = await client.chats.send(session.session_id, { message: "3 + 4", on_busy: "enqueue" }, { wait: 10 });
const tokens: number = chat.usage?.token_count ?? 0;

let drawn = "";
const answer: AnswerFold = await client.chats.stream(session.session_id, "你好", {
  onEvent: (event, answer) => { drawn = `${event.id} ${answer.text}`; },
  onState: ({ state, waitMs }) => { if (state === "lost") drawn = `${waitMs / 1000}`; },
});
if (answer.status === "requires_action") {
  const outputs = Object.fromEntries(answer.toolCalls.map((call) => [call.id, call.function?.name ?? ""]));
  await client.chats.streamToolOutputs(answer.chatId, outputs, { after: "1-1" });
}
const more: AnswerFold = await followChat({ ...options, chatId: answer.chatId, after: "1-1" });
const lines: string[] = [...more.messages.values()].map((message) => message.content);
const events = new SseParser().push("data: x\n\n").map(({ data }) => data);
const file = await client.files.upload(new Blob(["x"]), { name: "x.txt", session_id: session.session_id });
const page = await client.conversations.list("u-1", { limit: 1 });
const last: string | undefined = page.conversations[0]?.last_used_at;
const refused = await streamChat({ ...options, sessionId: "nope", body: { message: "hi" } })
  .catch((error: unknown) => (error instanceof CozeError ? error.code : "another"));
await client.users.erase("u-1");
console.log(JSON.stringify([chat.status, drawn.endsWith(answer.text) && tokens > 0, refused]));
export { events, file, last, lines, title };
