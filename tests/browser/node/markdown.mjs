// How much of the processor's time answers take that mean harm, and what becomes of formulas.
import { BoundedLexer } from "./lexer.js";
import { mathExtensions } from "./math.js";
import { Marked } from "./vendor/marked.esm.js";

const marked = new Marked({ gfm: true, breaks: true, extensions: mathExtensions((text) => text) });
const html = (text) => marked.parser(new BoundedLexer(marked.defaults).lex(text));
const LENGTH = 100_000;
const filled = (text) => text.repeat(Math.ceil(LENGTH / text.length)).slice(0, LENGTH);
const harm = {
  dollars: "$$a ", dollarLines: "$$a\n", dollarsBetween: "$$a\nb", brackets: "\\[a ", bracketLines: "\\[a\n\n", inline: "\\(a ", money: "$a ",
  formulas: "$a$ ", underscores: "_a_", parts: `${"_a_".repeat(990)}\n\n`, partLines: `${"_a_".repeat(990)}\n`, stars: "*a **a ", strikes: "~~a ", links: "[", images: "![[",
  addresses: "[a](", mails: "a@a.", ticks: "`a``b", tags: "<a ", quotes: "> ", quotesAgain: `${"> ".repeat(300)}a\n\n`, lists: "- ",
  listsAgain: `${"- ".repeat(300)}a\n\n`, items: "- a\n", rows: "|a|b|\n|-|-|\n", columns: "|", definitions: "[a]: b\n", lines: "a\n",
  paragraphs: "a\n\n", comments: "<!--", fences: "```\n", escapes: "\\", blanks: " ",
};
const told = { seconds: {}, formulas: {}, breaks: html(`${"*word*\n".repeat(1000)}${"_a_".repeat(2000)}`).match(/<br>|<em>/g).length };
for (const [name, part] of Object.entries(harm)) {
  const before = process.cpuUsage();
  html(filled(part));
  const { user, system } = process.cpuUsage(before);
  told.seconds[name] = (user + system) / 1e6;
}
const texts = {
  inline: "a $x$ b \\(y\\) c", block: "a\n\n$$\nx\n\ny\n$$\n\nb", middle: "so $$x$$\nand", brackets: "a\n\\[ x \\\\[2pt] y \\]\nb",
  bracketsMiddle: "so \\[x\\]\nand", afterLine: "a\n$$x$$\nb", money: "It costs $5 and $10.", escaped: "$$a \\$ b$$", open: "$$a $$b\n\n$$c$$",
  long: `${"word\n".repeat(1000)}$x$`, quoted: "> a\n> $$x$$\n> b", item: "- $x$\n- $$y$$",
};
for (const [name, text] of Object.entries(texts)) {
  told.formulas[name] = [...html(text).matchAll(/<code class="math-(\w+)">([^<]*)<\/code>/g)].map(([, kind, source]) => `${kind} ${source}`);
}
console.log(JSON.stringify(told));
