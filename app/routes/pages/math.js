/**
 * Formulas in answers: `$…$`, `$$…$$`, `\(…\)` and `\[…\]`. KaTeX makes nodes of them, never HTML that would
 * have to be parsed, and is loaded with the first formula that there is.
 */
let loading;

/** KaTeX and its style sheet; null where it cannot be loaded: the formula then stays as it was written. */
function katex() {
  loading ??= (async () => {
    const sheet = document.createElement("link");
    sheet.rel = "stylesheet";
    sheet.href = new URL("./vendor/katex.min.css", import.meta.url).href;
    document.head.append(sheet);
    await import("./vendor/katex.min.js");
    return globalThis.katex;
  })().catch(() => ((loading = undefined), null));
  return loading;
}

// A dollar before a digit and after a space is money; between two blank-free ends it is a formula.
// None reaches over the mark that begins the next one, so that all of them together look at a text once.
const INLINE = [/^\$(?![\s$])((?:\\.|[^$\\\n])*?[^\s$\\])\$(?![\d$])/, /^\\\(((?:\\[^()\n]|[^\\\n])+?)\\\)/];
const BLOCK = [/^\$\$((?:\\[^]|(?!\$\$)[^\\])+?)\$\$(?:\n|$)/, /^\\\[((?:\\[^[\]]|[^\\])+?)\\\](?:\n|$)/];

const MARKS = /^(?:\$\$?|\\[[(])|(?:\$\$?|\\[\])])$/g;

/** The end of a paragraph, or in it a line that begins a whole formula: marked begins anew at each start. */
const LINE = new RegExp(`\\n(?:\\n|(?=${BLOCK.map(({ source }) => source.slice(1)).join("|")}))`);

/** Where in this paragraph a line begins a formula; what is in the middle of a line is found inline. */
function startOfLine(text) {
  const found = LINE.exec(text);
  return found?.[0] === "\n" ? found.index + 1 : undefined;
}

function extension(name, level, rules, start, html) {
  return {
    name,
    level,
    start,
    tokenizer(text) {
      for (const rule of rules) {
        const found = rule.exec(text);
        if (found) return { type: name, raw: found[0], text: found[1].trim() };
      }
      return undefined;
    },
    renderer: html,
  };
}

/** What marked needs to know formulas. They become `code` elements, which `paintMath` then paints. */
export function mathExtensions(escape) {
  const code = (raw, name) => `<code class="${name}">${escape(raw.trim())}</code>`;
  const block = ({ raw }) => `<p>${code(raw, "math-block")}</p>`;
  const inline = ({ raw }) => code(raw, /^(?:\$\$|\\\[)/.test(raw) ? "math-block" : "math-inline");
  return [
    extension("mathBlock", "block", BLOCK, startOfLine, block),
    extension("mathInline", "inline", [...BLOCK, ...INLINE], (text) => /\$|\\[([]/.exec(text)?.index, inline),
  ];
}

const MOST = 2000;
const TURN_MS = 10;
let [turn, turnBegan] = [Promise.resolve(), 0];

/** Formulas are painted one after the other, and between them the page goes on. */
function myTurn() {
  turn = turn.then(async () => {
    if (performance.now() - turnBegan < TURN_MS) return;
    await new Promise((wake) => setTimeout(wake));
    turnBegan = performance.now();
  });
  return turn;
}

/** Puts the formula in the place of its source; what KaTeX does not know, or is very long, stays as it was written. */
export async function paintMath(code) {
  const source = code.textContent.replace(MARKS, "").trim();
  if (source.length > MOST) return;
  const tool = await katex();
  await myTurn();
  if (!tool || !code.isConnected) return; // or it has grown meanwhile, and is another one
  const box = document.createElement("span");
  box.className = code.className;
  box.title = source;
  try {
    tool.render(source, box, {
      displayMode: code.className === "math-block",
      throwOnError: true,
      trust: false,
      strict: "ignore",
      maxExpand: 200,
      maxSize: 20,
      output: "htmlAndMathml",
    });
  } catch {
    return;
  }
  code.replaceWith(box);
}
