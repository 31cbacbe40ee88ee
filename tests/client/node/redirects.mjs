// What leads elsewhere gets nothing: neither the headers nor what was said. Two real servers.
import { createServer } from "node:http";
import { CozeClient } from "./coze-client.js";

const listen = (server) => new Promise((done) => server.listen(0, "127.0.0.1", () => done(server.address().port)));
const told = { elsewhere: [] };
const elsewhere = createServer((request, response) => {
  told.elsewhere.push(`${request.method} ${request.url} ${request.headers.htysudoertoken}`);
  response.writeHead(200, { "Content-Type": "application/json" }).end('{"data": {"task_result": {"data": {}}}}');
});
const port = await listen(elsewhere);
let [status, asked] = [307, 0];
const service = createServer((request, response) => {
  asked += 1;
  request.resume();
  response.writeHead(status, { Location: `http://127.0.0.1:${port}${request.url}` }).end();
});
const baseUrl = `http://127.0.0.1:${await listen(service)}`;
const client = new CozeClient({ baseUrl, headers: { HtySudoerToken: "secret" }, patienceMs: 2000, maxWaitMs: 100 });
const calls = {
  json: () => client.sessions.create("u-1"),
  read: () => client.sessions.get("s"),
  stream: () => client.chats.stream("s", "hi"),
  follow: () => client.chats.follow("c-1", { after: "1-1" }),
  tools: () => client.chats.streamToolOutputs("c-1", { call: "sunny" }),
  upload: () => client.files.upload(new Blob(["x"]), { name: "x.txt", session_id: "s" }),
};
for (const [name, call] of Object.entries(calls)) {
  told[name] = [];
  for (status of [301, 302, 303, 307, 308]) {
    asked = 0;
    told[name].push([await call().then(() => "answered", ({ code }) => code), asked]);
  }
}
for (const server of [service, elsewhere]) {
  server.closeAllConnections();
  server.close();
}
console.log(JSON.stringify(told));
