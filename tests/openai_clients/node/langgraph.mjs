// LangChain's ChatOpenAI, and a LangGraph agent whose bot asks for its tool in two rounds.
import { tool } from "@langchain/core/tools";
import { createReactAgent } from "@langchain/langgraph/prebuilt";
import { ChatOpenAI } from "@langchain/openai";
import { apiKey, Asked, baseURL, degrees, errorOf, model, Place, tell } from "./common.mjs";

const llm = new ChatOpenAI({ model, apiKey, configuration: { baseURL } });
const f = tool(degrees, { name: "f", description: "Tells the weather.", schema: Asked });
const agent = createReactAgent({ llm, tools: [f] });
const question = (text) => ({ messages: [{ role: "user", content: text }] });

const whole = await llm.invoke("hello");
let streamed = "";
for await (const chunk of await llm.stream("hello")) streamed += chunk.content;
const state = await agent.invoke(question("[[sim:requires_action=function;rounds=2]] weather?"));
const seen = [];
for await (const update of await agent.stream(question("[[sim:requires_action=function]] weather?"), {
  streamMode: "updates",
}))
  seen.push(...Object.keys(update));
const parsed = await llm.withStructuredOutput(Place).invoke("a place, please");
const errors = {};
for (const code of [4010, 4028, 4100]) {
  const error = await errorOf(() => llm.invoke(`[[sim:fail=${code}]] heron${code}`));
  errors[code] = error?.status;
}
await errorOf(() => llm.invoke("[[sim:fail_at=3]] heronmidway"));

tell({
  whole: whole.content,
  streamed,
  kinds: state.messages.map((message) => message.getType()),
  ids: new Set(state.messages.map(({ id }) => id)).size,
  answer: state.messages.at(-1).content,
  seen,
  parsed,
  errors,
});
