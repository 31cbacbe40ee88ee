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
const INLINE = [/^\$(?![\s$])((?:\\.|[^$\\\n])*?[^\s$\\])\$(?![\d$])/, /^\\\(([^\n]+?)\\\)/];
const BLOCK = [/^\$\$([\s\S]+?)\$\$(?:\n|$)/, /^\\\[([\s\S]+?)\\\](?:\n|$)/];

const MARKS = /^(?:\$\$?|\\[[(])|(?:\$\$?|\\[\])])$/g;

function extension(name, level, rules, begin, html) {
  return {
    name,
    level,
    start: (text) => begin.exec(text)?.index,
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
  const block = ({ raw }) => `<p><code class="math-block">${escape(raw.trim())}</code></p>`;
  const inline = ({ raw }) => `<code class="math-inline">${escape(raw.trim())}</code>`;
  return [
    extension("mathBlock", "block", BLOCK, /\$\$|\\\[/, block),
    extension("mathInline", "inline", [BLOCK[0], ...INLINE], /\$|\\\(/, inline),
  ];
}

/** Puts the formula in the place of its source; what KaTeX does not know stays as it was written. */
export async function paintMath(code) {
  const source = code.textContent.replace(MARKS, "").trim();
  const tool = await katex();
  if (!tool) return;
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
