// Coze's own SDK for Node, with nothing but its base URL and token changed.
import { createReadStream, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ChatEventType, ChatStatus, CozeAPI, RoleType } from "@coze/api";

const bot_id = process.env.MODEL;
const settings = { baseURL: `${process.env.SERVICE}/coze/api`, allowPersonalAccessTokenInBrowser: true };
const coze = new CozeAPI({ ...settings, token: process.env.API_KEY });
const said = (content) => [{ role: RoleType.User, content, content_type: "text" }];
const ask = (text, more = {}) => ({ bot_id, user_id: "u-1", additional_messages: said(text), ...more });

async function read(stream) {
  let text = "";
  let last = null;
  for await (const part of stream) {
    if (part.event === ChatEventType.CONVERSATION_MESSAGE_DELTA) text += part.data.content;
    if (part.event !== ChatEventType.DONE) last = part;
  }
  return { text, last };
}

const streamed = await read(coze.chat.stream(ask("hello")));
const polled = await coze.chat.createAndPoll(ask("hello"));

const conversation = await coze.conversations.create({ bot_id });
await read(coze.chat.stream(ask("my name is Li", { conversation_id: conversation.id })));
const again = await read(coze.chat.stream(ask("what is my name?", { conversation_id: conversation.id })));
const messages = await coze.conversations.messages.list(conversation.id, { order: "asc" });
await coze.conversations.clear(conversation.id);

let round = await read(coze.chat.stream(ask("[[sim:requires_action=function;rounds=2]] weather?")));
let rounds = 0;
while (round.last.event === ChatEventType.CONVERSATION_CHAT_REQUIRES_ACTION) {
  rounds += 1;
  const { id, conversation_id, required_action } = round.last.data;
  const calls = required_action.submit_tool_outputs.tool_calls;
  const tool_outputs = calls.map((call) => ({ tool_call_id: call.id, output: `${20 + rounds} degrees` }));
  const more = { conversation_id, chat_id: id, tool_outputs, stream: true };
  round = await read(coze.chat.submitToolOutputs(more));
}

const path = join(tmpdir(), `coze-${process.pid}.png`);
writeFileSync(path, Buffer.concat([Buffer.from("89504e470d0a1a0a", "hex"), Buffer.alloc(64)]));
const file = await coze.files.upload({ file: createReadStream(path) });
const objects = JSON.stringify([
  { type: "text", text: "what is this?" },
  { type: "image", file_id: file.id },
]);
const picture = await read(
  coze.chat.stream({
    bot_id,
    user_id: "u-1",
    additional_messages: [{ role: RoleType.User, content: objects, content_type: "object_string" }],
  }),
);

const errors = {};
const note = async (name, call) => {
  try {
    await call();
  } catch (error) {
    errors[name] = [error.constructor.name, error.code ?? null, Boolean(error.logid)];
  }
};
await note("token", () => new CozeAPI({ ...settings, token: "sk-wrong-0123456789abcd" }).conversations.create({}));
await note("busy", async () => {
  const { id } = await coze.conversations.create({ bot_id });
  const slow = await coze.chat.create(ask("[[sim:delay=20]] slow", { conversation_id: id }));
  try {
    await coze.chat.create(ask("hello", { conversation_id: id }));
  } finally {
    await coze.chat.cancel(slow.conversation_id, slow.id);
  }
});
await note("unknown", () => coze.conversations.retrieve("7380000000000000005"));
await note("not offered", () => coze.workspaces.list({}));

// A refusal of a stream is no exception in this SDK, but an event.
const refused = await read(coze.chat.stream(ask("[[sim:fail=4028]] hello")));
rmSync(path);

console.log(
  JSON.stringify({
    streamed: streamed.text,
    usage: streamed.last.data.usage.token_count,
    polled: polled.messages.find((message) => message.type === "answer").content,
    status: polled.chat.status === ChatStatus.COMPLETED,
    again: again.text,
    messages: messages.data.length,
    rounds,
    weather: round.text,
    picture: picture.text,
    errors,
    refused: refused.last,
  }),
);
