/**
 * Markdown as it grows, safely: marked makes HTML, DOMPurify lets through what is listed here and nothing
 * else. HTML in an answer is shown as the text that it is, images as links: the page loads nothing from
 * anywhere but its own service.
 */
import "./vendor/purify.min.js";
import { Marked } from "./vendor/marked.esm.js";
import { h, icon, t } from "./dom.js";
import { paintCode } from "./code.js";
import { BoundedLexer } from "./lexer.js";
import { mathExtensions, paintMath } from "./math.js";

/** Characters and blocks of an answer that is shown as Markdown; what is longer is shown as its text. */
const [MOST, MOST_BLOCKS] = [100_000, 2000];
const PLAIN_TAG = /^<\/?(?:br|sub|sup|kbd|mark|u|b|i|ins|del)\s*\/?>$/i;
const CLASSES = /^(?:language-[\w+#.-]{1,30}|math-inline|math-block)$/;
const PURIFY = {
  ALLOWED_TAGS: [
    ...["p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "li", "blockquote", "pre", "code"],
    ...["strong", "em", "b", "i", "u", "del", "ins", "mark", "sub", "sup", "kbd", "a"],
    ...["table", "thead", "tbody", "tr", "th", "td"],
  ],
  ALLOWED_ATTR: ["href", "title", "align", "start", "class"],
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
  ADD_URI_SAFE_ATTR: ["start", "align"], // else their values are taken for addresses, and go
  RETURN_DOM_FRAGMENT: true,
};

const ENTITIES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
const escape = (text) => String(text).replace(/[&<>"']/g, (character) => ENTITIES[character]);

const marked = new Marked({
  gfm: true,
  breaks: true,
  renderer: {
    html: ({ text, block }) => (PLAIN_TAG.test(text.trim()) ? text : block ? `<p>${escape(text.trim())}</p>` : escape(text)),
    image: ({ href, text }) => `<a href="${escape(href)}">🖼 ${escape(text || t("image"))}</a>`,
    checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
  },
  extensions: mathExtensions(escape),
});

const purify = globalThis.DOMPurify;
purify.addHook("uponSanitizeAttribute", (element, data) => {
  // Classes are the page's own language: an answer could dress up as a button of ours.
  if (data.attrName === "class") data.keepAttr = element.nodeName === "CODE" && CLASSES.test(data.attrValue);
});
purify.addHook("afterSanitizeAttributes", (element) => {
  if (element.nodeName !== "A" || !element.hasAttribute("href")) return;
  element.setAttribute("target", "_blank");
  element.setAttribute("rel", "noopener noreferrer");
});

/** Clean nodes of a piece of Markdown. */
function nodesOf(tokens) {
  const fragment = purify.sanitize(marked.parser(tokens), PURIFY);
  for (const code of fragment.querySelectorAll("code[class^=math-]")) void paintMath(code);
  for (const pre of fragment.querySelectorAll("pre")) dressCode(pre);
  for (const table of fragment.querySelectorAll("table")) {
    const frame = h("div", { class: "table", role: "region", tabindex: "0", label: "table" });
    table.replaceWith(frame);
    frame.append(table);
  }
  return fragment;
}

function dressCode(pre) {
  const code = pre.querySelector("code");
  const language = code?.className.replace("language-", "") ?? "";
  if (code && language) void paintCode(code, language);
  const button = h("button", { type: "button", class: "quiet", label: "copyCode", "data-copy": "code" }, icon("copy"));
  const frame = h("div", { class: "code" }, h("div", { class: "code-head" }, h("span", {}, language), button));
  pre.replaceWith(frame);
  pre.tabIndex = 0; // it may scroll, and a keyboard must be able to
  frame.append(pre);
}

/**
 * An element that shows a text that grows. What has not changed stays, so that a selection stays, too. A text
 * that cannot be shown as Markdown, or would take too long, is shown as it is, from then on.
 */
export class MarkdownView {
  constructor(element) {
    this.element = element;
    /** @type {{raw: string, box: HTMLElement}[]} */
    this.blocks = [];
    this.plain = false;
  }

  /** @param {string} text @param {boolean} complete  Nothing more will come. */
  show(text, complete) {
    try {
      this.plain ||= text.length > MOST || !this.#showBlocks(text, complete);
    } catch {
      this.plain = true; // whatever it was: the page goes on
    }
    if (this.plain && this.element.textContent !== text) this.element.replaceChildren(h("div", { class: "source" }, text));
  }

  /** False: there are too many. */
  #showBlocks(text, complete) {
    const tokens = new BoundedLexer(marked.defaults).lex(text);
    // A definition at the end changes links that stand before it.
    const fresh = complete && tokens.some((token) => token.type === "def");
    const shown = tokens.filter((token) => token.type !== "space" && token.type !== "def");
    if (shown.length > MOST_BLOCKS) return false;
    shown.forEach((token, index) => {
      const block = this.blocks[index];
      if (block && block.raw === token.raw && !fresh) return;
      const box = h("div", { class: "block" });
      box.append(nodesOf([token]));
      if (block) block.box.replaceWith(box);
      else this.element.append(box);
      this.blocks[index] = { raw: token.raw, box };
    });
    for (const { box } of this.blocks.splice(shown.length)) box.remove();
    return true;
  }
}

/** What a message of another kind than text says, as Markdown. */
export function readable({ content, contentType }) {
  if (contentType === "text" || !content) return content;
  try {
    const parsed = JSON.parse(content);
    if (contentType !== "object_string" || !Array.isArray(parsed)) {
      return `\`\`\`json\n${JSON.stringify(parsed, null, 2)}\n\`\`\``;
    }
    return parsed
      .map((item) => item.text ?? (item.file_url ? `[${item.type ?? "file"}](${item.file_url})` : `\`${item.type}\``))
      .join("\n\n");
  } catch {
    return content; // no JSON, or none that can be laid out
  }
}
