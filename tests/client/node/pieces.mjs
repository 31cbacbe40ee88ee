// An event stream that arrives in pieces, cut anywhere, and a line of megabytes. Tells what was found.
import { SseParser } from "./coze-stream.js";

/** The same numbers in every run. */
let state = 7;
const below = (most) => (state = (state * 48271) % 2147483647) % most;

function parsed(pieces) {
  const [parser, decoder] = [new SseParser(), new TextDecoder()];
  const events = pieces.flatMap((piece) => parser.push(decoder.decode(piece, { stream: true })));
  return { events, last: parser.lastEventId, retry: parser.retry, comments: parser.comments };
}

const parts = ["\n", "\r", "\r\n", "\n\n", "data: x", "data:你🙂", "data", "event: a", "id: 1-1", ": hi", "retry: 1", "é", "\ufeff"];
const told = { wrong: [], events: 0, seconds: [] };
for (let round = 0; round < 3000; round += 1) {
  const text = Array.from({ length: below(40) }, () => parts[below(parts.length)]).join("");
  const bytes = new TextEncoder().encode(text);
  const cuts = Array.from({ length: below(12) }, () => below(bytes.length + 1)).sort((one, other) => one - other);
  const pieces = [0, ...cuts].map((from, index) => bytes.slice(from, cuts[index] ?? bytes.length));
  const whole = parsed([bytes]);
  told.events += whole.events.length;
  if (JSON.stringify(parsed(pieces)) !== JSON.stringify(whole)) told.wrong.push([text, cuts]);
}

for (const end of ["\n", ""]) {
  const piece = new TextEncoder().encode(`data: ${"x".repeat(4089)}${end}`);
  const before = process.cpuUsage();
  const { events } = parsed([...Array(2048).fill(piece), new TextEncoder().encode("\n\n")]);
  const { user, system } = process.cpuUsage(before);
  told.seconds.push((user + system) / 1e6);
  told.long = events[0].data.length;
}
console.log(JSON.stringify(told));
