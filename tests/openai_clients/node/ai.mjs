// The AI SDK, by its provider for OpenAI (chat) and by that for compatible services.
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, stepCountIs, streamText, tool } from "ai";
import { apiKey, Asked, baseURL, degrees, errorOf, model, Place, tell } from "./common.mjs";

const providers = {
  openai: createOpenAI({ baseURL, apiKey }).chat(model),
  compatible: createOpenAICompatible({ name: "coze", baseURL, apiKey, supportsStructuredOutputs: true })(model),
};
const result = {};
for (const [name, chosen] of Object.entries(providers)) {
  const tools = { f: tool({ inputSchema: Asked, execute: degrees }) };
  const whole = await generateText({ model: chosen, prompt: "hello" });
  let streamed = "";
  for await (const text of streamText({ model: chosen, prompt: "hello" }).textStream) streamed += text;
  const withTools = await generateText({
    model: chosen,
    tools,
    stopWhen: stepCountIs(5),
    prompt: "[[sim:requires_action=function;rounds=2]] weather?",
  });
  let steps = 0;
  const streamedTools = streamText({
    model: chosen,
    tools,
    stopWhen: stepCountIs(5),
    prompt: "[[sim:requires_action=function]] weather?",
  });
  for await (const part of streamedTools.fullStream) steps += part.type === "finish-step" ? 1 : 0;
  const { object } = await generateObject({ model: chosen, schema: Place, prompt: "a place, please" });
  const errors = {};
  for (const code of [4010, 4028, 4100]) {
    const error = await errorOf(() => generateText({ model: chosen, prompt: `[[sim:fail=${code}]] ${name}${code}` }));
    errors[code] = (error?.lastError ?? error)?.statusCode;
  }
  await errorOf(() => generateText({ model: chosen, prompt: `[[sim:fail_at=3]] ${name}midway` }));
  result[name] = {
    whole: whole.text,
    streamed,
    tools: withTools.text,
    steps: withTools.steps.length,
    streamedTools: await streamedTools.text,
    streamedSteps: steps,
    object,
    errors,
  };
}
tell(result);
