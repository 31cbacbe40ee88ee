// A conversation through the client that openapi-generator makes for axios.
import { isAxiosError } from "axios";
import {
  AdminApi,
  ChatsApi,
  Configuration,
  FilesApi,
  HealthApi,
  MessagesApi,
  OpenaiApi,
  SessionsApi,
  type ErrorEnvelope,
} from "./axios_client";
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
    if (isAxiosError<ErrorEnvelope>(error) && error.response)
      return [error.response.status, error.response.data.error.code, error.response.data.error.retryable];
    throw error;
  }
  return [];
}

tell(async () => {
  const [sessions, messages, chats] = [new SessionsApi(key), new MessagesApi(key), new ChatsApi(key)];
  const opened = await sessions.createSession({ user_id: "u-1", meta_data: { app: "made" } });
  const session = opened.data.data.task_result.data;
  const sent = await messages.sendMessage(session.session_id, { message: "3 + 4" }, "made-1");
  const chat = sent.data.data.task_result.data;
  const read = (await chats.getResult(chat.chat_id, 5)).data.data.task_result.data;
  const events = (await chats.getEvents(chat.chat_id)).data;
  const page = (await sessions.listChats(session.session_id, 1)).data.data.task_result.data;
  const file = await new FilesApi(key).uploadFile(new File(["words"], "a.txt"), session.session_id);
  const completion = await new OpenaiApi(key).openaiCreateChatCompletion({
    model: "coze",
    messages: [{ role: "user", content: "5 + 6" }],
  });
  const stats = (await new AdminApi(admin).getStats()).data.data.task_result.data;
  const health = (await new HealthApi(key).getHealth()).data.data;
  const refused = [
    await refusal(sessions.getSession("unknown")),
    await refusal(messages.sendMessage(session.session_id, { message: " " })),
    await refusal(new AdminApi(new Configuration({ basePath: service })).getStats()),
  ];
  return {
    app: session.metadata.app,
    status: chat.status,
    sent: chat.content,
    read: read.content,
    tokens: read.usage?.token_count ?? 0,
    error: read.error,
    last_event: lastLine(events),
    page: page.chats.map((each) => each.chat_id === chat.chat_id),
    file: file.data.data.task_result.data.type,
    completion: completion.data.choices[0]?.message.content,
    draining: stats.process.draining,
    health: health.status,
    refused,
  };
});
