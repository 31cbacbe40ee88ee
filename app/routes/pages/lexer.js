/**
 * Reads Markdown with bounds, so that no answer holds the page: what marked does again from each mark on (in
 * one paragraph full of underscores say), and by calling itself (quotes in quotes), is done for so much and
 * no more. What lies beyond is shown as the text that it is.
 */
import { Lexer } from "./vendor/marked.esm.js";

/** Characters of one paragraph, item or cell. Past that its lines are read one by one; a line has no more, either. */
const MOST_INLINE = 3000;
/** Quotes and lists inside of each other, two levels for each list; marks inside of marks. */
const DEEPEST = 40;

export class BoundedLexer extends Lexer {
  depth = 0;

  blockTokens(src, tokens = [], clipped = false) {
    return this.#deeper(src, tokens, () => super.blockTokens(src, tokens, clipped));
  }

  inlineTokens(src, tokens = []) {
    if (src.length <= MOST_INLINE) return this.#deeper(src, tokens, () => super.inlineTokens(src, tokens));
    src.split("\n").forEach((line, index) => {
      if (index) tokens.push({ type: "br", raw: "\n" });
      if (line.length > MOST_INLINE) plain(line, tokens);
      else this.inlineTokens(line, tokens);
    });
    return tokens;
  }

  #deeper(src, tokens, work) {
    if (this.depth >= DEEPEST) return plain(src, tokens);
    this.depth += 1;
    try {
      return work();
    } finally {
      this.depth -= 1;
    }
  }
}

function plain(src, tokens) {
  tokens.push({ type: "text", raw: src, text: src, escaped: false });
  return tokens;
}
