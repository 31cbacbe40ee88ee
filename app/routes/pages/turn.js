/** One message and its answer, as the page shows it. */
import { AnswerFold } from "./coze-stream.js";
import { chip } from "./attachments.js";
import { duration, h, icon, iconButton, moment, pretty, say, t } from "./dom.js";
import { explain, isGone } from "./errors.js";
import { MarkdownView, readable } from "./markdown.js";

const PAINT_MS = 50;
const MOST_EVENTS = 20_000;

/**
 * @typedef {Object} Actions  What the buttons of a turn do.
 * @property {(text: string) => void} ask
 * @property {(turn: Turn, outputs: {tool_call_id: string, output: string}[]) => void} submit
 * @property {(turn: Turn) => void} cancel
 * @property {(turn: Turn) => void} retry
 * @property {(turn: Turn) => void} again  Asks the same once more.
 * @property {(turn: Turn) => void} sendInNew  Where the session is over.
 * @property {(turn: Turn, type: "like" | "unlike") => void} feedback
 * @property {(turn: Turn) => void} events
 * @property {(turn: Turn, button: HTMLElement) => void} curl
 * @property {(turn: Turn, button: HTMLElement) => void} copy
 */

export class Turn {
  /** @param {{number: number, question: string, sentAt: string, actions: Actions}} options */
  constructor({ number, question, sentAt, actions }) {
    this.question = question;
    this.actions = actions;
    this.answer = new AnswerFold();
    this.events = [];
    this.lastId = "";
    this.startedAt = 0;
    /** Whether `startedAt` is the moment of sending: after a reload it is not. */
    this.measured = false;
    this.firstTokenMs = 0;
    this.resumed = 0;
    this.running = false;
    /** What was POSTed, for a repeat and for curl. @type {{body: object, key: string} | null} */
    this.request = null;
    this.failure = null;
    /** What went along with the question. @type {{file_id?: string, name: string, url?: string, preview?: string}[]} */
    this.attachments = [];
    /** What was said of the answer here: "like", "unlike" or "". */
    this.feedback = "";
    this.build(number, sentAt);
  }

  static fromChat(chat, number, actions) {
    const question = chat.user_message.content;
    const turn = new Turn({ number, question, sentAt: chat.user_message.timestamp, actions });
    turn.answer = AnswerFold.fromChat(chat);
    turn.lastId = chat.metadata?.last_event_id ?? "";
    turn.request = { body: { message: question, stream: true }, key: "" };
    turn.attach(
      (chat.user_message.attachments ?? []).map(({ file_id, file_url, file_name, type }) => ({ file_id, url: file_url, name: file_name ?? file_url ?? type })),
    );
    turn.paint();
    return turn;
  }

  /** Shows what goes along with the question. */
  attach(attachments) {
    this.attachments = attachments;
    this.fileList.hidden = !attachments.length;
    this.fileList.replaceChildren(...attachments.map((each) => chip(each)));
    this.words.hidden = !this.question.trim();
  }

  build(number, sentAt) {
    this.thought = h("div", { class: "thought" });
    this.thoughtTitle = h("span", { t: "thinking" });
    this.reasoning = h("details", { class: "reasoning", hidden: true }, h("summary", {}, icon("spark"), this.thoughtTitle), this.thought);
    this.body = h("div", { class: "answer" });
    this.markdown = new MarkdownView(this.body);
    this.wait = h("p", { class: "wait", hidden: true }, h("span", { class: "dots", "aria-hidden": "true" }), h("span", { t: "waiting" }));
    this.calls = h("div", { class: "calls" });
    this.action = h("div", {});
    this.problem = h("div", {});
    this.followUps = h("div", { class: "follow-ups", role: "group", label: "followUps" });
    this.facts = h("span", { class: "facts" });
    this.tools = h(
      "span",
      { class: "tools" },
      (this.like = iconButton("like", "like", () => this.actions.feedback(this, "like"), { "aria-pressed": "false" })),
      (this.unlike = iconButton("unlike", "unlike", () => this.actions.feedback(this, "unlike"), { "aria-pressed": "false" })),
      (this.againButton = iconButton("refresh", "again", () => this.actions.again(this), { class: "quiet again" })),
      iconButton("copy", "copyAnswer", (event) => this.actions.copy(this, event.currentTarget)),
      iconButton("terminal", "copyCurl", (event) => this.actions.curl(this, event.currentTarget)),
      iconButton("events", "showEvents", () => this.actions.events(this)),
    );
    this.footer = h("footer", { class: "meta" }, this.facts, this.tools);
    this.reply = h("div", { class: "reply", "aria-busy": "false" }, this.reasoning, this.calls, this.body, this.wait, this.action, this.problem, this.followUps, this.footer);
    this.root = h(
      "article",
      { class: "turn", label: "turn", values: { number } },
      h("div", { class: "question" }, h("span", { class: "offscreen", t: "you" }), (this.words = h("p", {}, this.question)), (this.fileList = h("ul", { class: "files", label: "files", hidden: true })), h("time", { datetime: sentAt }, moment(sentAt))),
      this.reply,
    );
  }

  /** Reading begins. `measured`: it was sent just now. */
  begin(measured) {
    this.running = true;
    this.failure = null;
    if (measured || !this.startedAt) {
      this.startedAt = performance.now();
      this.measured = measured;
    }
    this.paint();
  }

  /** One event has been folded into `answer`. */
  note(event) {
    this.lastId = event.id;
    const at = performance.now() - this.startedAt;
    if (!this.firstTokenMs && event.event === "conversation.message.delta") this.firstTokenMs = at;
    if (this.events.length < MOST_EVENTS) this.events.push({ ...event, at });
  }

  end(failure = null) {
    this.running = false;
    this.failure = failure;
    this.paint();
  }

  /** Paints soon, and not more often than the eye needs; a long text may take longer. */
  paintSoon(after) {
    if (this.timer) return;
    this.timer = setTimeout(() => {
      const began = performance.now();
      this.paint();
      after();
      this.pace = Math.max(PAINT_MS, (performance.now() - began) * 4);
    }, this.pace ?? PAINT_MS);
  }

  paint() {
    clearTimeout(this.timer);
    this.timer = undefined;
    const { answer, running } = this;
    const over = !running;
    this.root.dataset.status = running ? "running" : answer.status;
    this.reply.setAttribute("aria-busy", String(running));
    this.markdown.show([...answer.messages.values()].map(readable).filter(Boolean).join("\n\n"), over);
    this.paintReasoning();
    this.wait.hidden = over || answer.text !== "" || answer.reasoning !== "";
    say(this.wait.lastElementChild, answer.status === "pending" ? "queued" : "waiting");
    this.paintCalls();
    this.paintAction();
    this.paintProblem();
    this.paintFollowUps();
    this.paintFacts();
  }

  paintReasoning() {
    const { reasoning, text } = this.answer;
    this.reasoning.hidden = !reasoning;
    if (this.thought.textContent !== reasoning) this.thought.textContent = reasoning;
    say(this.thoughtTitle, this.running && !text ? "thinking" : "reasoning");
  }

  paintCalls() {
    const made = this.calls.childElementCount;
    for (const message of [...this.answer.calls.values()].slice(made)) {
      const name = message.type === "function_call" ? "pluginCall" : "pluginResult";
      this.calls.append(h("details", { class: "call" }, h("summary", {}, icon("tool"), h("span", { t: name })), h("pre", { tabindex: "0" }, pretty(message.content))));
    }
  }

  /** The form for tool outputs. It stays as it is while somebody types into it. */
  paintAction() {
    const calls = this.running ? [] : this.answer.toolCalls;
    const wanted = calls.map((call) => call.id).join(" ");
    if (this.action.dataset.calls === wanted) return;
    this.action.dataset.calls = wanted;
    this.action.replaceChildren();
    if (!calls.length || this.answer.status !== "requires_action") return;
    const rows = calls.map((call, index) => toolRow(call, `${this.answer.chatId}-${index}`));
    const form = h(
      "form",
      { class: "action", label: "toolAsked" },
      h("p", { class: "action-title" }, icon("tool"), h("span", { t: "toolAsked" })),
      ...rows.map((row) => row.box),
      h(
        "div",
        { class: "row end" },
        h("button", { type: "button", class: "plain", t: "cancel", onclick: () => this.actions.cancel(this) }),
        h("button", { type: "submit", class: "primary", t: "submitOutputs" }),
      ),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.actions.submit(this, rows.map(({ id, area }) => ({ tool_call_id: id, output: area.value })));
    });
    this.action.append(form);
  }

  paintProblem() {
    this.problem.replaceChildren();
    const error = this.running ? null : this.failure ?? (this.answer.status === "failed" ? this.answer.error : null);
    if (!error) return;
    const { code, text, said, fields, hint, extra } = explain(error);
    const gone = isGone(error);
    const retry = gone ? ["sendInNew", () => this.actions.sendInNew(this)] : ["tryAgain", () => this.actions.retry(this)];
    this.problem.append(
      h(
        "div",
        { class: "problem" },
        h("p", {}, h("strong", {}, code), " ", text),
        fields.length ? h("ul", { class: "fields" }, ...fields.map((field) => h("li", {}, field))) : null,
        said ? h("p", { class: "small", lang: "en" }, said) : null,
        hint ? h("p", { t: "hint", values: { hint } }) : null,
        extra.length ? h("p", { class: "small" }, extra.join(" · ")) : null,
        h("button", { type: "button", class: "plain", t: retry[0], onclick: retry[1] }),
      ),
    );
  }

  paintFollowUps() {
    const wanted = this.running || this.answer.status !== "completed" ? [] : this.answer.followUps;
    if (this.followUps.childElementCount === wanted.length) return;
    this.followUps.replaceChildren(
      ...wanted.map((question) => h("button", { type: "button", class: "follow-up", onclick: () => this.actions.ask(question) }, question)),
    );
  }

  paintFacts() {
    const { answer } = this;
    this.footer.hidden = this.running && !this.firstTokenMs;
    const kept = !this.running && answer.status === "completed" && answer.chatId && answer.text !== "";
    for (const [button, type] of [[this.like, "like"], [this.unlike, "unlike"]]) {
      button.hidden = !kept;
      button.setAttribute("aria-pressed", String(this.feedback === type));
    }
    this.againButton.hidden = this.running || !answer.chatId || !OVER.has(answer.status);
    const facts = [];
    if (!this.running && answer.status !== "completed" && STATES.has(answer.status)) {
      facts.push(h("span", { class: `tag ${answer.status}`, t: `status_${answer.status}` }));
    }
    if (answer.recovered) facts.push(h("span", { class: "tag recovered", t: "recovered", title: t("recoveredHint") }));
    if (this.measured && this.firstTokenMs) facts.push(h("span", { t: "firstToken", values: { time: duration(this.firstTokenMs) } }));
    const chat = answer.result;
    if (chat?.completed_at) {
      facts.push(h("span", { t: "total", values: { time: duration(new Date(chat.completed_at) - new Date(chat.created_at)) } }));
    }
    if (answer.usage && !this.running) {
      const { token_count: total, input_count: input, output_count: output } = answer.usage;
      facts.push(h("span", { t: "usage", values: { total, input, output } }));
    }
    if (this.resumed) facts.push(h("span", { t: "resumedTimes", values: { count: this.resumed } }));
    this.facts.replaceChildren(...facts);
  }
}

const OVER = new Set(["completed", "failed", "cancelled"]);
const STATES = new Set(["failed", "cancelled", "requires_action"]);

function toolRow(call, suffix) {
  const name = call.function?.name ?? call.type;
  const id = `output-${suffix}`;
  const area = h("textarea", { id, rows: "2", required: true, hint: "toolOutputHint", spellcheck: "false" });
  const box = h(
    "div",
    { class: "tool" },
    h("p", { class: "small" }, h("span", { t: "toolCall" }), " ", h("code", {}, name)),
    h("pre", { tabindex: "0", label: "toolArguments" }, pretty(call.function?.arguments ?? "")),
    h("label", { for: id, t: "toolOutput", values: { name } }),
    area,
  );
  return { id: call.id, area, box };
}
