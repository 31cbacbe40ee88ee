"""The three lines of figures on the first page, from the checks of the last run."""

import re
from dataclasses import dataclass
from typing import Any, Final

BEGIN: Final = "<!-- figures -->"
END: Final = "<!-- /figures -->"
_OF_PASSTHROUGH: Final = "server CPU per chat / passthrough's"


@dataclass(frozen=True)
class Piece:
    """``check``: a pattern of the whole text of one check or several, of which the highest value is shown."""

    check: str
    zh: str
    en: str

    def text(self, checks: list[dict[str, Any]], language: str) -> str:
        """Empty where nothing of that was measured."""
        values = [check["value"] for check in checks if re.fullmatch(self.check, check["text"])]
        form = self.zh if language == "zh" else self.en
        return form.format(_rounded(max(values))) if values else ""


@dataclass(frozen=True)
class Line:
    zh: str
    en: str
    pieces: tuple[Piece, ...]


LINES: Final = (
    Line(
        "**CPU**：一次 100 个增量的流式问答所用，是只转发字节的 FastAPI + httpx 的 ",
        "**CPU** of a streamed chat of 100 deltas / that of FastAPI with httpx which only passes bytes on: ",
        (
            Piece(f"20 at once, paced 20 ms: {_OF_PASSTHROUGH}", "{} 倍（间隔 20 毫秒）", "{} (20 ms apart)"),
            Piece(f"20 at once: {_OF_PASSTHROUGH}", "{} 倍（无间隔）", "{} (without a pause)"),
            Piece(f"500 at once: {_OF_PASSTHROUGH}", "{} 倍（500 个并发）", "{} (500 at once)"),
        ),
    ),
    Line(
        "**速度**：",
        "**Speed**: ",
        (
            Piece(
                "20 at once: chats/s / LiteLLM's",
                "流式每秒问答数是 LiteLLM 的 {} 倍",
                "streamed {} times the chats a second of LiteLLM",
            ),
            Piece(
                "not streamed: chats/s / cozepy app's.*",
                "非流式每秒问答数是用扣子 SDK 手写的应用的 {} 倍",
                "not streamed {} times the chats a second of an app on Coze's SDK",
            ),
            Piece(
                "one at a time: first delta later than upstream's, median ms",
                "首个增量比直连晚 {} 毫秒",
                "the first delta {} ms later than directly",
            ),
        ),
    ),
    Line(
        "**内存与 Redis**：",
        "**Memory and Redis**: ",
        (
            Piece(r"\d+ open streams: resident KiB .*", "每个打开的流 {} KiB", "{} KiB for an open stream"),
            Piece(
                r"\d+ finished chats .*KiB.*",
                "每个结束的问答在 Redis 中保留 {} KiB",
                "{} KiB in Redis for a finished chat",
            ),
            Piece(
                ".*: pipelines/s of the process",
                "每个进程每秒至多 {} 次 pipeline",
                "at most {} pipelines a second from a process",
            ),
        ),
    ),
)


def with_headlines(page: str, found: dict[str, Any], language: str) -> str:
    """The page with other figures between its marks, which stand at the ends of lines; else as it is."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        return page
    return f"{before}{begin}\n" + "\n".join(lines(found, language)) + f" {end}{after}"


def lines(found: dict[str, Any], language: str) -> list[str]:
    """``found`` as ``results.as_json`` makes it. What was not measured is left out."""
    checks = [check for part in found["parts"].values() for check in part["checks"]]
    comma, stop, all_of_it = ("，", "。", "全部数据") if language == "zh" else (", ", ".", "all figures")
    shown = []
    for line in LINES:
        pieces = [text for piece in line.pieces if (text := piece.text(checks, language))]
        shown.append(f"- {line.zh if language == 'zh' else line.en}{comma.join(pieces)}{stop}")
    opened, closed = ("（", "）") if language == "zh" else (" (", ")")
    link = f"[{all_of_it}](docs/{language}/benchmarks.md)"
    shown[-1] = f"{shown[-1].removesuffix(stop)}{opened}{link}{closed}{stop}"
    return shown


def _rounded(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.2f}" if value < 1 else f"{value:.1f}"
