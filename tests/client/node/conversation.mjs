// All calls of the client, with a running service. Tells what came as one line of JSON.
import { CozeClient } from "./coze-client.js";

const [direct, shaky] = [process.env.SERVICE, process.env.SHAKY];
const client = new CozeClient({ baseUrl: direct, patienceMs: 20_000 });
const told = {};
const TYPING = "[[sim:deltas=24;gap=0.02;reasoning=0]]";

const session = await client.sessions.create({ user_id: "u/1 你好", meta_data: { app: "js" } });
const id = session.session_id;
const whole = await client.chats.send(id, "3 + 4");
told.whole = [whole.status, whole.content.includes("7"), whole.usage.token_count > 0];

// A stream whose connection is cut: every text is the beginning of the answer.
const [texts, states, chats] = [[], [], []];
const answer = await client.chats.stream(id, { message: `hello ${TYPING}` }, {
  baseUrl: shaky,
  onEvent: (event, answer) => texts.push(answer.text),
  onState: ({ state }) => states.push(state),
  onChat: (chatId) => chats.push(chatId),
});
const stored = await client.chats.result(answer.chatId);
told.stream = {
  same: answer.text === stored.content,
  wrong: texts.filter((text) => !stored.content.startsWith(text)),
  lost: states.filter((state) => state === "lost").length,
  chats: new Set(chats).size,
  end: [answer.status, states.at(-1), answer.usage.token_count > 0],
};
const followed = await client.chats.follow(answer.chatId, { after: "1-3" });
told.followed = stored.content.endsWith(followed.text) && followed.text.length > 0;

const slow = await client.chats.send(id, "[[sim:delay=100]] slow", { wait: 0 });
const busy = await client.chats.send(id, "more").catch((error) => error);
told.busy = [slow.status, busy.name, busy.code, busy.status, busy.details.chat_id === slow.chat_id];
told.cancelled = (await client.chats.cancel(slow.chat_id)).status;

const asked = await client.chats.stream(id, "[[sim:requires_action=function]] weather");
const outputs = Object.fromEntries(asked.toolCalls.map((call) => [call.id, '{"degrees": 21}']));
const [count, after] = [asked.toolCalls.length, asked.result.metadata.last_event_id];
const settled = await client.chats.streamToolOutputs(asked.chatId, outputs, { after, answer: asked });
told.tools = [count, settled.status, settled.text.includes("21")];
const again = await client.chats.send(id, "[[sim:requires_action=function]] weather");
const calls = again.required_action.submit_tool_outputs.tool_calls;
const outputsAgain = Object.fromEntries(calls.map((call) => [call.id, "sunny"]));
told.toolsWhole = (await client.chats.submitToolOutputs(again.chat_id, outputsAgain)).status;

const file = await client.files.upload(new TextEncoder().encode("notes"), { name: "notes.txt", session_id: id });
const seen = await client.chats.send(id, { message: "look", attachments: [{ file_id: file.file_id }] });
told.file = [file.file_name, file.bytes, seen.user_message.attachments[0].file_id === file.file_id];
told.fileAgain = (await client.files.get(file.file_id)).file_id === file.file_id;
const feedback = await client.chats.giveFeedback(seen.chat_id, { feedback_type: "unlike", comment: "too short" });
told.feedback = [feedback.feedback_type, (await client.chats.takeFeedbackBack(seen.chat_id)).feedback_type];
const renewed = await client.chats.streamRegenerated(seen.chat_id);
const renewedAgain = await client.chats.regenerate(renewed.chatId);
told.regenerated = [renewed.status, renewedAgain.status, new Set([seen.chat_id, renewed.chatId, renewedAgain.chat_id]).size];

await client.files.delete(file.file_id); // not before: the message could not be asked again
told.titled = (await client.sessions.update(id, { title: "a talk" })).title;
told.listed = (await client.sessions.list("u/1 你好")).map((each) => each.session_id === id);
const page = await client.chats.list(id, { limit: 1 });
const next = await client.chats.list(id, { limit: 1, before: page.next_before });
told.pages = [page.chats.length, page.has_more, page.chats[0].chat_id !== next.chats[0].chat_id];
told.history = (await client.sessions.history(id, { limit: 2, order: "asc" })).messages.map((message) => message.role);
told.cleared = (await client.sessions.clear(id)).session_id === id;
const { conversation_id: conversation } = await client.sessions.get(id);
await client.conversations.rename("u/1 你好", conversation, "named");
told.conversations = (await client.conversations.list("u/1 你好")).conversations.map((each) => each.title);
told.bot = (await client.bots.get((await client.bots.list())[0].bot_id)).name;
told.deleted = (await client.conversations.delete("u/1 你好", conversation)).deleted;
told.ended = (await client.sessions.delete(id)).status;

// Under one key a call counts once.
const keyed = await Promise.all([1, 2].map(() => client.sessions.create("u-2", { idempotencyKey: "k-1" })));
told.once = keyed[0].session_id === keyed[1].session_id;
const failed = await client.chats.send(keyed[0].session_id, "[[sim:fail=4101]] hi").catch((error) => error);
told.failed = [failed.code, failed.details.coze_code];
told.unknown = await client.chats.stream("nope", "hi").catch(({ code, status }) => [code, status]);

// What cannot be sent is said at once; who is aborted says why.
const placeholder = new CozeClient({ baseUrl: direct, headers: () => ({ HtySudoerToken: "…" }) });
told.placeholder = [
  await placeholder.sessions.create("u-1").catch((error) => error.name),
  await placeholder.chats.stream("s", "hi").catch((error) => error.name),
];
const abort = new AbortController();
const reading = client.chats.stream(keyed[0].session_id, `hello ${TYPING}`, {
  signal: abort.signal,
  onEvent: () => abort.abort(new Error("left")),
});
told.left = await reading.catch((error) => error.message);

told.usage = (await client.usage({ group_by: "day,user" })).rows.map((row) => row.user_id).sort();
told.health = (await client.health()).status;
told.erased = (await client.users.erase("u-2")).erased_sessions;
console.log(JSON.stringify(told));
