// What every script has: where the service is, the tool that the bot asks for, and how results are told.
import { z } from "zod";

export const baseURL = `${process.env.SERVICE}/coze/openai/v1`;
export const apiKey = process.env.API_KEY;
export const model = process.env.MODEL;
export const Place = z.object({ name: z.string(), people: z.number() });
export const Asked = z.object({ question: z.string(), number: z.number() });

export async function errorOf(call) {
  try {
    await call();
  } catch (error) {
    return error;
  }
  return null;
}

// A tool of two runs says another thing each time, so that rounds can be told apart.
let runs = 0;
export const degrees = () => `${20 + ++runs} degrees`;

export const tell = (result) => console.log(JSON.stringify(result));
