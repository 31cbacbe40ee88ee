// A conversation through the client that openapi-generator makes for fetch.
import {
  AdminApi,
  ChatsApi,
  Configuration,
  FilesApi,
  HealthApi,
  MessagesApi,
  OpenaiApi,
  ResponseError,
  SessionsApi,
  ErrorEnvelopeFromJSON,
} from "./fetch_client";
import { apiKey, host, lastLine, service, tell, token } from "./common";

const key = new Configuration({ basePath: service, accessToken: apiKey });
const admin = new Configuration({
  basePath: service,
  apiKey: (name) => ({ HtySudoerToken: token, HtyHost: host })[name] ?? "",
});

async function refusal(call: Promise<unknown>): Promise<unknown[]> {
  try {
    await call;
  } catch (error) {
    if (!(error instanceof ResponseError)) throw error;
    const told = ErrorEnvelopeFromJSON(await error.response.json());
    return [error.response.status, told.error.code, told.error.retryable];
  }
  return [];
}

tell(async () => {
  const [sessions, messages, chats] = [new SessionsApi(key), new MessagesApi(key), new ChatsApi(key)];
  const opened = await sessions.createSession({ createSession: { userId: "u-1", metaData: { app: "made" } } });
  const session = opened.data.taskResult.data;
  const sessionId = session.sessionId;
  const sent = await messages.sendMessage({
    sessionId,
    sendMessage: { message: "3 + 4" },
    idempotencyKey: "made-1",
  });
  const chat = sent.data.taskResult.data;
  const chatId = chat.chatId;
  const read = (await chats.getResult({ chatId, wait: 5 })).data.taskResult.data;
  const events = await chats.getEvents({ chatId });
  const page = (await sessions.listChats({ sessionId, limit: 1 })).data.taskResult.data;
  const file = await new FilesApi(key).uploadFile({ file: new File(["words"], "a.txt"), sessionId });
  const completion = await new OpenaiApi(key).openaiCreateChatCompletion({
    chatCompletionRequest: { model: "coze", messages: [{ role: "user", content: "5 + 6" }] },
  });
  const stats = (await new AdminApi(admin).getStats()).data.taskResult.data;
  const health = (await new HealthApi(key).getHealth()).data;
  const refused = [
    await refusal(sessions.getSession({ sessionId: "unknown" })),
    await refusal(messages.sendMessage({ sessionId, sendMessage: { message: " " } })),
    await refusal(new AdminApi(new Configuration({ basePath: service })).getStats()),
  ];
  return {
    app: session.metadata.app,
    status: chat.status,
    sent: chat.content,
    read: read.content,
    tokens: read.usage?.tokenCount ?? 0,
    error: read.error,
    last_event: lastLine(events ?? ""),
    page: page.chats.map((each) => each.chatId === chatId),
    file: file.data.taskResult.data.type,
    completion: completion.choices[0]?.message.content,
    draining: stats.process.draining,
    health: health.status,
    refused,
  };
});
