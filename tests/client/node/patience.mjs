// How long is tried again, and what is said then. A scripted server stands for the service.
import { createServer } from "node:http";
import { CozeClient, followChat } from "./coze-client.js";

let [answer, asked] = [null, 0];
const server = createServer((request, response) => {
  request.resume(); // a body
  asked += 1;
  answer(response, request);
});
await new Promise((done) => server.listen(0, "127.0.0.1", done));
const baseUrl = `http://127.0.0.1:${server.address().port}`;
const short = { patienceMs: 700, maxWaitMs: 100 };
const streams = (response, text) => {
  response.writeHead(200, { "Content-Type": "text/event-stream", "X-Coze-Chat-Id": "c-1" });
  response.write(text);
  setTimeout(() => response.destroy(), 20);
};
const told = {};
const tell = ({ name, code, status, details, message }) => ({ name, code, status, details, message });

async function tried(call) {
  asked = 0;
  const found = await call().then(() => "no error", tell);
  return { ...found, asked };
}

const client = new CozeClient({ baseUrl, ...short });
answer = (response) => response.destroy();
told.silent = await tried(() => client.chats.stream("s", "hi"));
told.silentCall = await tried(() => client.sessions.get("s"));

const error = { code: "COZE_REDIS_ERROR", message: "no Redis", retryable: true, request_id: "r", details: {} };
answer = (response) => response.writeHead(503, { "Content-Type": "application/json" }).end(JSON.stringify({ error }));
told.refusing = await tried(() => client.chats.stream("s", "hi"));
told.refusingCall = await tried(() => client.sessions.get("s"));
answer = (response) => {
  response.writeHead(429, { "Retry-After": "3600" }).end(JSON.stringify({ error: { ...error, code: "RATE_LIMITED" } }));
};
told.tooLong = await tried(() => client.sessions.get("s"));

// It begins, and then every connection dies at its head.
answer = (response, { method }) => {
  const delta = 'id: 1-2\nevent: conversation.message.delta\ndata: {"id": "m", "type": "answer", "content": "a"}\n\n';
  streams(response, method === "POST" ? delta : "retry: 100\n\n");
};
told.broken = await tried(() => client.chats.stream("s", "hi"));

// A bot thinks for longer than the patience; a proxy cuts each connection, but heartbeats come.
const data = { chat_id: "c-1", status: "completed", usage: null, recovered: false };
const result = JSON.stringify({ data: { task_result: { data } } });
const began = Date.now();
answer = (response) => {
  if (Date.now() - began < 1200) return streams(response, "retry: 100\n\n: keep-alive\n\n");
  streams(response, `id: 1-9\nevent: result\ndata: ${result}\n\nid: 1-10\nevent: done\ndata: "[DONE]"\n\n`);
};
told.thinking = (await followChat({ baseUrl, ...short, chatId: "c-1" })).status;

answer = (response) => response.writeHead(200, { "Content-Type": "text/html" }).end("<html>");
told.another = await tried(() => client.sessions.get("s"));
answer = () => {};
told.late = await tried(() => client.sessions.get("s", { timeoutMs: 100, retries: 1 }));
server.closeAllConnections();
server.close();
console.log(JSON.stringify(told));
