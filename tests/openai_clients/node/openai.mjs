// OpenAI's own SDK for Node.
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { apiKey, baseURL, degrees, errorOf, model, Place, tell } from "./common.mjs";

const client = new OpenAI({ baseURL, apiKey });
const ask = (content, more = {}) =>
  client.chat.completions.create({ model, messages: [{ role: "user", content }], ...more });

const whole = await ask("hello");
const { data: raw, response } = await ask("hello").withResponse();
let streamed = "";
for await (const chunk of await ask("hello", { stream: true })) streamed += chunk.choices[0]?.delta?.content ?? "";

const parsed = await client.chat.completions.parse({
  model,
  messages: [{ role: "user", content: "a place, please" }],
  response_format: zodResponseFormat(Place, "place"),
});

const runner = client.chat.completions.runTools({
  model,
  messages: [{ role: "user", content: "[[sim:requires_action=function;rounds=2]] weather?" }],
  tools: [
    {
      type: "function",
      function: { name: "f", parameters: { type: "object" }, parse: JSON.parse, function: degrees },
    },
  ],
});
const final = await runner.finalContent();

const errors = {};
for (const code of [4010, 4028, 4100, 4013]) {
  const error = await errorOf(() => ask(`[[sim:fail=${code}]] heron${code}`, { stream: code !== 4100 }));
  errors[code] = [error?.constructor?.name, error?.status, error?.code];
}
const midway = await errorOf(() => ask("[[sim:fail_at=3]] heronmidway"));

tell({
  models: (await client.models.list()).data.map(({ id }) => id),
  whole: whole.choices[0].message.content,
  same: raw.choices[0].message.content === whole.choices[0].message.content,
  chat: response.headers.get("x-coze-chat-id"),
  streamed,
  parsed: parsed.choices[0].message.parsed,
  tools: final,
  errors,
  midway: [midway?.constructor?.name, midway?.status],
});
