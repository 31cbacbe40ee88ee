// OpenAI's SDK for Node and the AI SDK's default provider, over the Responses API.
import { createOpenAI } from "@ai-sdk/openai";
import { ChatOpenAI } from "@langchain/openai";
import { generateObject, generateText, stepCountIs, streamText, tool } from "ai";
import OpenAI from "openai";
import { zodTextFormat } from "openai/helpers/zod";
import { apiKey, Asked, baseURL, degrees, errorOf, model, Place, tell } from "./common.mjs";

const ROUNDS = "[[sim:requires_action=function;rounds=2]] weather?";
const client = new OpenAI({ baseURL, apiKey });
const ask = (input, more = {}) => client.responses.create({ model, input, ...more });

async function withOpenai() {
  const whole = await ask("hello");
  let streamed = "";
  for await (const event of await ask("hello", { stream: true }))
    if (event.type === "response.output_text.delta") streamed += event.delta;
  const events = [];
  for await (const event of await ask("hello", { stream: true, background: true })) {
    events.push(event);
    if (events.length === 9) break;
  }
  const id = events[0].response.id;
  const rest = await client.responses.retrieve(id, { stream: true, starting_after: events.at(-1).sequence_number });
  for await (const event of rest) events.push(event);
  const parsed = await client.responses.parse({
    model,
    input: "a place, please",
    text: { format: zodTextFormat(Place, "place") },
  });
  let answer = await ask(ROUNDS);
  let rounds = 0;
  for (let calls; (calls = answer.output.filter(({ type }) => type === "function_call")).length; rounds++)
    answer = await ask(
      calls.map(({ call_id }) => ({ type: "function_call_output", call_id, output: degrees() })),
      { previous_response_id: answer.id },
    );
  const next = await ask("again", { previous_response_id: whole.id });
  const final = await client.responses.stream({ model, input: "hello" }).finalResponse();
  const error = await errorOf(() => ask("hello", { previous_response_id: "resp_x" }));
  return {
    whole: whole.output_text,
    streamed,
    accumulated: final.output_text,
    inOrder: events.every(({ sequence_number }, place) => sequence_number === place),
    last: events.at(-1).type,
    parsed: parsed.output_parsed,
    tools: answer.output_text,
    rounds,
    sameConversation: next.conversation.id === whole.conversation.id,
    items: (await client.responses.inputItems.list(next.id)).data.length,
    error: [error?.constructor?.name, error?.status, error?.code],
  };
}

async function withAiSdk() {
  const chosen = createOpenAI({ baseURL, apiKey })(model);
  const tools = { f: tool({ inputSchema: Asked, execute: degrees }) };
  const whole = await generateText({ model: chosen, prompt: "hello" });
  const stream = streamText({ model: chosen, prompt: "hello" });
  let streamed = "";
  for await (const text of stream.textStream) streamed += text;
  const withTools = await generateText({ model: chosen, tools, stopWhen: stepCountIs(5), prompt: ROUNDS });
  const streamedTools = streamText({
    model: chosen,
    tools,
    stopWhen: stepCountIs(5),
    prompt: "[[sim:requires_action=function]] weather?",
  });
  let steps = 0;
  for await (const part of streamedTools.fullStream) steps += part.type === "finish-step" ? 1 : 0;
  const { object } = await generateObject({ model: chosen, schema: Place, prompt: "a place, please" });
  const later = await generateText({
    model: chosen,
    messages: [{ role: "user", content: "hello" }, ...whole.response.messages, { role: "user", content: "again" }],
  });
  const silent = await generateText({ model: chosen, prompt: "[[sim:no_usage=1]] hello" });
  const errors = {};
  for (const code of [4010, 4028, 4100]) {
    const error = await errorOf(() => generateText({ model: chosen, prompt: `[[sim:fail=${code}]] heron${code}` }));
    errors[code] = (error?.lastError ?? error)?.statusCode;
  }
  await errorOf(() => generateText({ model: chosen, prompt: "[[sim:fail_at=3]] heronmidway" }));
  return {
    whole: whole.text,
    reasoning: whole.reasoningText,
    streamed,
    finish: await stream.finishReason,
    tools: withTools.text,
    steps: withTools.steps.length,
    streamedTools: await streamedTools.text,
    streamedSteps: steps,
    object,
    later: later.text,
    silent: silent.text,
    errors,
  };
}

async function withLangchain() {
  const llm = new ChatOpenAI({ model, apiKey, configuration: { baseURL }, useResponsesApi: true });
  const whole = await llm.invoke("hello");
  let streamed = "";
  for await (const chunk of await llm.stream("hello")) streamed += chunk.text;
  return { whole: whole.text, streamed };
}

tell({ openai: await withOpenai(), ai: await withAiSdk(), langchain: await withLangchain() });
