/** Colours in code. highlight.js is loaded with the first code that names its language. */
let loading;

function highlighter() {
  loading ??= import("./vendor/highlight.min.js").then((module) => module.default).catch(() => ((loading = undefined), null));
  return loading;
}

const MOST = 50_000;

/** Colours the code; its text stays what it is. A language that is not known, or a long text, stays plain. */
export async function paintCode(code, language) {
  const source = code.textContent;
  if (source.length > MOST) return;
  const tool = await highlighter();
  if (!tool?.getLanguage(language)) return;
  const { _emitter: emitter } = tool.highlight(source, { language, ignoreIllegals: true });
  const painted = document.createDocumentFragment();
  append(painted, emitter.rootNode.children);
  if (painted.textContent === source && code.textContent === source) code.replaceChildren(painted);
}

/** Its tree as nodes: no HTML is made that would have to be parsed. */
function append(parent, children) {
  for (const child of children) {
    if (typeof child === "string") {
      parent.append(child);
      continue;
    }
    const span = document.createElement("span");
    if (child.scope) span.className = `hl-${child.scope.split(".")[0].replace(/[^a-z_-]/gi, "")}`;
    append(span, child.children);
    parent.append(span);
  }
}
