// Somebody uses the mini-program of the examples. Tells what was seen as one line of JSON.
import { createServer } from "node:http";
import { cuts, open, requests } from "./wx.mjs";

const page = await open("./pages/chat/chat.js");
const { uploadFile } = await import("./coze/wx-adapter.js");
const told = {};
const say = (message) => {
  page.onDraft({ detail: { value: message } });
  return page.send();
};
const until = async (condition) => {
  while (!condition()) await new Promise((wake) => setTimeout(wake, 5));
};

cuts.push(2001, 1502); // the first connection breaks off, and the second
await say("你好😀 [[sim:deltas=24;gap=0.2;reasoning=0]]");
told.first = page.data.turns[0];
told.wrong = page.drawn.filter((text) => !told.first.answer.startsWith(text));
told.pieces = page.drawn.length > 3;
told.requests = [...requests];
told.after = [page.data.running, page.data.draft, page.data.notice];

const stopping = say("[[sim:delay=100]] 讲一个很长的故事");
await until(() => page.chatId);
await page.stop();
await stopping;
told.stopped = page.data.turns[1].status;

await say("[[sim:fail=4101]] 你好");
told.failed = [page.data.turns[2].status, page.data.notice !== ""];

const file = await uploadFile(wx, { baseUrl: process.env.SERVICE, session_id: page.sessionId, filePath: "wxfile://tmp/照片.txt" });
told.file = [file.file_id.startsWith("coze_file_"), file.bytes > 0];
told.noFile = await uploadFile(wx, { baseUrl: process.env.SERVICE, session_id: "nope", filePath: "wxfile://a.txt" })
  .catch((error) => error.message.slice(0, 8));

page.sessionId = "coze_session_gone";
await say("还在吗");
told.gone = [page.data.draft, page.sessionId, page.data.notice !== "", page.data.running];
await page.send(); // the text is still there: it goes to a new session
told.renewed = page.data.turns.at(-1).status;

// A service that leads elsewhere: the token stays here.
const { CozeClient } = await import("./coze/coze-client.js");
const { miniProgram } = await import("./coze/wx-adapter.js");
const leading = createServer((request, response) => {
  const { port } = leading.address();
  if (request.url === "/elsewhere") {
    told.elsewhere = request.headers.htysudoertoken;
    return response.end("{}");
  }
  response.writeHead(307, { Location: `http://127.0.0.1:${port}/elsewhere` }).end();
});
await new Promise((done) => leading.listen(0, "127.0.0.1", done));
const led = { baseUrl: `http://127.0.0.1:${leading.address().port}`, headers: { HtySudoerToken: "secret" }, retries: 0 };
const client = new CozeClient({ ...led, ...miniProgram(wx) });
const code = (error) => error.code;
told.redirected = [await client.sessions.get("s").catch(code), await client.chats.stream("s", "hi").catch(code)];
leading.closeAllConnections();
leading.close();

const leaving = say("[[sim:delay=1]] 再见");
await until(() => page.chatId);
page.onUnload();
await leaving;
told.left = page.data.turns.at(-1).status ?? "not told";
console.log(JSON.stringify(told));
