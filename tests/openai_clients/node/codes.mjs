// Every code that Coze may refuse with, asked of each client for Node as it comes: the status that it tells.
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { ChatOpenAI } from "@langchain/openai";
import { generateText } from "ai";
import OpenAI from "openai";
import { apiKey, baseURL, errorOf, model, tell } from "./common.mjs";

// Nobody waits between tries; what bounds a whole call stays as it is.
const { setTimeout: later } = globalThis;
globalThis.setTimeout = (call, milliseconds, ...rest) =>
  later(call, milliseconds < 120_000 ? 0 : milliseconds, ...rest);

const sdk = new OpenAI({ baseURL, apiKey });
const llm = new ChatOpenAI({ model, apiKey, configuration: { baseURL } });
const openai = createOpenAI({ baseURL, apiKey });
const compatible = createOpenAICompatible({ name: "coze", baseURL, apiKey })(model);
const clients = {
  "openai": (content) => sdk.chat.completions.create({ model, messages: [{ role: "user", content }] }),
  "responses": (input) => sdk.responses.create({ model, input }),
  "ai": (prompt) => generateText({ model: openai.chat(model), prompt }),
  "ai-responses": (prompt) => generateText({ model: openai(model), prompt }),
  "ai-compatible": (prompt) => generateText({ model: compatible, prompt }),
  "langchain": (text) => llm.invoke(text),
};
const told = {};
for (const [name, ask] of Object.entries(clients)) {
  told[name] = {};
  for (const code of JSON.parse(process.argv[2])) {
    const error = await errorOf(() => ask(`[[sim:fail=${code}]] |${name}|${code}|`));
    const cause = error?.lastError ?? error;
    told[name][code] = cause?.statusCode ?? cause?.status ?? cause?.cause?.status ?? cause?.name;
  }
}
tell(told);
