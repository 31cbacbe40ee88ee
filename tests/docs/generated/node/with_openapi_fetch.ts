// A conversation through openapi-fetch with the types that openapi-typescript makes.
import createClient from "openapi-fetch";
import type { components, paths } from "./schema";
import { apiKey, host, lastLine, service, tell, token } from "./common";

type Refusal = components["schemas"]["ErrorEnvelope"];

// A message is answered with JSON or, where it says `stream`, with events: JSON is what these ask for.
type Json = "application/json";
const headers = { Authorization: `Bearer ${apiKey}` };
const key = createClient<paths, Json>({ baseUrl: service, headers });
const reader = createClient<paths, "text/event-stream">({ baseUrl: service, headers });
const admin = createClient<paths, Json>({ baseUrl: service, headers: { HtySudoerToken: token, HtyHost: host } });

const refusal = ({ response, error }: { response: Response; error?: Refusal }): unknown[] => [
  response.status,
  error?.error.code,
  error?.error.retryable,
];

tell(async () => {
  const opened = await key.POST("/coze/sessions", { body: { user_id: "u-1", meta_data: { app: "made" } } });
  const session = opened.data!.data.task_result.data;
  const path = { session_id: session.session_id };
  const sent = await key.POST("/coze/sessions/{session_id}/messages", {
    params: { path, header: { "Idempotency-Key": "made-1" } },
    body: { message: "3 + 4" },
  });
  const chat = sent.data!.data.task_result.data;
  const chatPath = { chat_id: chat.chat_id };
  const result = await key.GET("/coze/chats/{chat_id}/result", { params: { path: chatPath, query: { wait: 5 } } });
  const read = result.data!.data.task_result.data;
  const events = await reader.GET("/coze/chats/{chat_id}/events", { params: { path: chatPath }, parseAs: "text" });
  const page = await key.GET("/coze/sessions/{session_id}/chats", { params: { path, query: { limit: 1 } } });
  const form = new FormData();
  form.append("file", new File(["words"], "a.txt"));
  const file = await key.POST("/coze/files", {
    params: { query: path },
    body: { file: "" },
    bodySerializer: () => form,
  });
  const completion = await key.POST("/coze/openai/v1/chat/completions", {
    body: { model: "coze", messages: [{ role: "user", content: "5 + 6" }] },
  });
  const stats = await admin.GET("/coze/admin/stats");
  const health = await key.GET("/coze/health");
  const refused = [
    refusal(await key.GET("/coze/sessions/{session_id}", { params: { path: { session_id: "unknown" } } })),
    refusal(await key.POST("/coze/sessions/{session_id}/messages", { params: { path }, body: { message: " " } })),
    refusal(await createClient<paths, Json>({ baseUrl: service }).GET("/coze/admin/stats")),
  ];
  return {
    app: session.metadata.app,
    status: chat.status,
    sent: chat.content,
    read: read.content,
    tokens: read.usage?.token_count ?? 0,
    error: read.error,
    last_event: lastLine(events.data ?? ""),
    page: page.data!.data.task_result.data.chats.map((each) => each.chat_id === chat.chat_id),
    file: file.data!.data.task_result.data.type,
    completion: completion.data!.choices[0]?.message.content,
    draining: stats.data!.data.task_result.data.process.draining,
    health: health.data!.data.status,
    refused,
  };
});
