"""The bot's words: answers that look like answers, equal for equal (message, history, seed)."""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

_CJK = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_TOKEN = re.compile("\\s*(?:[A-Za-z0-9'_-]+|[^\\s])|\\s+")
_RECALL_EN = re.compile(
    r"\b(what|which)\b.{0,40}\b(did|have) i\b.{0,20}\b(say|said|ask|asked|tell|told|write)\b", re.IGNORECASE
)
_RECALL_EN_2 = re.compile(r"\bmy (previous|last|earlier|first) (message|question)s?\b", re.IGNORECASE)
_RECALL_ZH = re.compile("(我|刚才|之前|前面|上面).{0,8}(说|问|讲|提)(了|过|的|到)*.{0,3}(什么|啥|哪些|内容)")
_NAME_EN = re.compile(r"\bmy name is ([A-Za-z][\w'-]{0,30})", re.IGNORECASE)
_NAME_ZH = re.compile("我(?:叫|的名字是)\\s*([^\\s，。,.!！?？什么啥]{1,12})")
_ASK_NAME = re.compile(r"what(?:'s| is) my name|我叫什么|我的名字是什么", re.IGNORECASE)
_SUM = re.compile(r"(?<![\w/.-])(-?\d{1,9})\s*([-+*×/÷])\s*(-?\d{1,9})(?![\w/.-])", re.ASCII)
_GREETING = re.compile(r"^\s*(hi|hello|hey|你好|您好|嗨|哈喽)[\s!！,，。.~～]*$", re.IGNORECASE)
_MAX_ECHO = 400  # characters; of a longer text its beginning and its end
_MAX_RECALLED = 50


@dataclass(frozen=True, slots=True)
class Answer:
    """What the bot thinks, says, and proposes to ask next."""

    reasoning: str
    content: str
    follow_ups: tuple[str, str, str]


def is_chinese(text: str) -> bool:
    """Whether the bot should answer in Chinese."""
    return _CJK.search(text) is not None


def count_tokens(text: str) -> int:
    """A rough count, as a tokenizer would give: one per CJK character, one per four others."""
    cjk = len(_CJK.findall(text))
    return cjk + (len(text) - cjk + 3) // 4


def split_tokens(text: str) -> list[str]:
    """The pieces a model would emit: words with the blank before them, single characters of Chinese."""
    return _TOKEN.findall(text)


def split_deltas(text: str, count: int | None) -> list[str]:
    """``text`` as deltas: its natural pieces, or exactly ``count``, none empty (it grows if need be)."""
    if count is None:
        return split_tokens(text)
    if count == 0:
        return []
    if len(text) < count:
        text += "." * (count - len(text))
    step, extra = divmod(len(text), count)
    pieces, start = [], 0
    for index in range(count):
        end = start + step + (1 if index < extra else 0)
        pieces.append(text[start:end])
        start = end
    return pieces


def compose(
    question: str, history: Sequence[str], *, seed: int = 0, tool_outputs: Sequence[str] = ()
) -> Answer:
    """The answer to ``question``; ``history`` holds the user's earlier messages, oldest first.

    The content always holds the user's own words (of a very long message its beginning and its end).
    """
    chinese = is_chinese(question)
    key = f"{seed}\x00{len(history)}\x00{question}".encode(errors="replace")
    dice = random.Random(zlib.crc32(key))
    echo = _shortened(question)
    body = (
        _from_tools(echo, tool_outputs, chinese)
        or _special(echo, history, chinese)
        or _essay(echo, dice, chinese)
    )
    return Answer(_reasoning(echo, len(history), chinese), body, _follow_ups(echo, dice, chinese))


def _shortened(text: str) -> str:
    half = _MAX_ECHO // 2
    return text if len(text) <= _MAX_ECHO else f"{text[:half]}…{text[-half:]}"


def _from_tools(echo: str, outputs: Sequence[str], chinese: bool) -> str | None:
    if not outputs:
        return None
    joined = _shortened("; ".join(outputs))
    if chinese:
        return f"根据工具返回的结果：{joined}。\n\n所以关于“{echo}”，以上就是答案。"
    return f"The tool returned: {joined}.\n\nSo that answers “{echo}”."


def _special(echo: str, history: Sequence[str], chinese: bool) -> str | None:
    """Questions a bot can really answer: about the conversation, a name, a sum, a greeting."""
    if _RECALL_EN.search(echo) or _RECALL_EN_2.search(echo) or _RECALL_ZH.search(echo):
        return _recall(echo, history, chinese)
    if _ASK_NAME.search(echo):
        return _name(echo, history, chinese)
    if match := _SUM.search(echo):
        return _sum(echo, match, chinese)
    if _GREETING.match(echo):
        if chinese:
            return f"{echo.strip()}！我是你的智能助手，很高兴见到你。请问有什么可以帮你的吗？"
        return f"{echo.strip()}! I am your assistant, nice to meet you. How can I help you today?"
    return None


def _recall(echo: str, history: Sequence[str], chinese: bool) -> str:
    listed = list(history)[-_MAX_RECALLED:]
    lines = "\n".join(f"{number}. {_shortened(text)}" for number, text in enumerate(listed, start=1))
    if chinese:
        if not listed:
            return f"你问“{echo}”，不过在此之前你还没有说过什么，这是我们对话的第一条消息。"
        return f"你问“{echo}”。在此之前你说过：\n\n{lines}"
    if not listed:
        return f"You ask “{echo}”, but you have not said anything before: this is our first message."
    return f"You ask “{echo}”. Before that you said:\n\n{lines}"


def _name(echo: str, history: Sequence[str], chinese: bool) -> str:
    for text in reversed(history):
        if match := _NAME_ZH.search(text) or _NAME_EN.search(text):
            name = match.group(1)
            return f"你问“{echo}”。你叫{name}。" if chinese else f"You ask “{echo}”. Your name is {name}."
    if chinese:
        return f"你问“{echo}”，但你还没有告诉我你的名字。"
    return f"You ask “{echo}”, but you have not told me your name yet."


def _sum(echo: str, match: re.Match[str], chinese: bool) -> str:
    left, operator, right = int(match.group(1)), match.group(2), int(match.group(3))
    if operator in "/÷" and right == 0:
        result = "∞"
    else:
        value = {"+": left + right, "-": left - right, "*": left * right, "×": left * right}
        result = f"{value[operator]}" if operator in value else f"{left / right:g}"
    if chinese:
        return f"你问“{echo}”。计算结果是：{match.group(0)} = {result}。"
    return f"You ask “{echo}”. The result is: {match.group(0)} = {result}."


def _essay(echo: str, dice: random.Random, chinese: bool) -> str:
    if chinese:
        opening = dice.choice(["这是一个很好的问题。", "好的，我来说说我的看法。", "谢谢你的提问。"])
        points = dice.sample(
            [
                "先弄清目标：你最想得到的结果是什么，以及什么时候需要它",
                "把大问题拆成几个小步骤，每一步都能单独检查",
                "从最简单可行的做法开始，看到效果以后再改进",
                "留意常见的误区，遇到不确定的地方先做小范围验证",
                "把过程和结论记录下来，方便以后复用",
            ],
            3,
        )
        lines = "\n".join(f"{number}. {point}。" for number, point in enumerate(points, start=1))
        return f"关于“{echo}”：{opening}\n\n{lines}\n\n如果你能补充一些背景，我可以给出更具体的建议。"
    opening = dice.choice(["That is a good question.", "Here is how I see it.", "Thank you for asking."])
    points = dice.sample(
        [
            "Be clear about the goal: which result you want, and by when",
            "Cut the problem into small steps that can be checked one by one",
            "Begin with the simplest thing that works, and improve it from there",
            "Watch for the usual traps, and try uncertain parts on a small scale first",
            "Write down what you found, so that you can use it again",
        ],
        3,
    )
    lines = "\n".join(f"{number}. {point}." for number, point in enumerate(points, start=1))
    return (
        f"About “{echo}”: {opening}\n\n{lines}\n\nTell me more of the background, and I can be more specific."
    )


def _reasoning(echo: str, earlier: int, chinese: bool) -> str:
    short = echo if len(echo) <= 60 else echo[:60] + "…"
    if chinese:
        context = f"之前有{earlier}条消息可以参考。" if earlier else "这是第一条消息。"
        return f"用户说的是“{short}”。{context}我先理解意思，再组织一个清楚的回答。"
    context = f"There are {earlier} earlier messages." if earlier else "This is the first message."
    return f"The user says “{short}”. {context} I should understand it first and then answer clearly."


def _follow_ups(echo: str, dice: random.Random, chinese: bool) -> tuple[str, str, str]:
    short = echo if len(echo) <= 20 else echo[:20] + "…"
    if chinese:
        pool = [
            f"能详细说说“{short}”吗？",
            "可以举一个具体的例子吗？",
            "有哪些常见的误区？",
            "下一步我该做什么？",
        ]
    else:
        pool = [
            f"Can you tell me more about “{short}”?",
            "Can you give me an example?",
            "What are the usual mistakes?",
            "What should I do next?",
        ]
    first, second, third = dice.sample(pool, 3)
    return first, second, third
