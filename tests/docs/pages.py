"""The pages of the documentation, and the blocks of code and of output that they show."""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LANGUAGES = ("zh", "en")
NOT_OURS = {"vendor", "results", "node_modules", "__pycache__"}
"""Folders whose pages others or programs have written."""


def _pages() -> Iterator[Path]:
    yield from ROOT.glob("*.md")
    for folder in ROOT.iterdir():
        if folder.is_dir() and not folder.name.startswith("."):
            yield from (page for page in folder.rglob("*.md") if not NOT_OURS & set(page.parts))


PAGES = sorted(_pages())
SERVICE = "http://127.0.0.1:6001"
"""Where the pages expect the service."""

_BLOCK = re.compile(
    r"^(?P<mark><!-- [^\n]* -->\n)?```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


_CLONE = ("<!-- 新克隆 -->\n", "<!-- fresh clone -->\n")


@dataclass(frozen=True)
class Block:
    """What stands between two fences."""

    page: str
    language: str
    text: str
    runs: bool
    """False where the line before the block says why no test runs it, or that it belongs to a fresh clone."""
    clone: bool
    """Run by ``test_first_page`` in a clone of its own, in which the service is set up."""


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, *languages: str) -> list[Block]:
    """The blocks of a page in these languages (all: none given), in order."""
    found = (
        Block(
            name_of(page),
            match["language"],
            match["text"],
            runs=match["mark"] is None,
            clone=match["mark"] in _CLONE,
        )
        for match in _BLOCK.finditer(page.read_text(encoding="utf-8"))
    )
    return [block for block in found if not languages or block.language in languages]


def pages_with(language: str) -> list[Path]:
    """The pages that have a block in this language which is to run."""
    return [page for page in PAGES if any(block.runs for block in blocks(page, language))]


def with_answers(page: Path) -> Iterator[tuple[Block, list[Block]]]:
    """Each block of shell commands that runs, with the blocks of output that stand behind it."""
    command: Block | None = None
    answers: list[Block] = []
    for block in blocks(page):
        if block.language == "bash":
            if command is not None and command.runs:
                yield command, answers
            command, answers = block, []
        elif block.language in ("json", "http", "text"):
            answers.append(block)
    if command is not None and command.runs:
        yield command, answers


# -- is what a page shows what came? ``…`` stands for anything -----------------------------------------------


def differs(shown: Block, output: str) -> str:
    """Why the output is not what the page shows; empty where it is."""
    if shown.language == "json":
        reasons = [_json_differs(json.loads(shown.text), each, "") for each in _objects(output)]
        return "" if "" in reasons else "\n".join(["no such JSON:", *reasons])
    wanted = [line for line in shown.text.splitlines() if line.strip(" …")]
    rest = iter(output.replace("\r", "").splitlines())
    for line in wanted:
        if not any(_line_fits(line, each, exact_case=shown.language == "text") for each in rest):
            return f"no such line, or not in this order: {line}"
    return ""


def _objects(output: str) -> Iterator[Any]:
    """The JSON objects of an output; curl puts no line end behind one."""
    decoder, at = json.JSONDecoder(), 0
    while match := re.compile(r"^\{|(?<=\})\{", re.MULTILINE).search(output, at):
        found, at = decoder.raw_decode(output, match.start())
        yield found


def _line_fits(shown: str, found: str, *, exact_case: bool) -> bool:
    if not exact_case:
        shown, found = shown.lower(), found.lower()
    return _fits(shown, found)


def _fits(shown: str, found: str) -> bool:
    return re.fullmatch(".*".join(re.escape(part) for part in shown.split("…")), found, re.DOTALL) is not None


def _json_differs(shown: Any, found: Any, where: str) -> str:
    """Objects may have more fields than are shown, lists more items; numbers only have to be numbers."""
    if isinstance(shown, bool) or shown is None:
        return "" if shown is found else f"{where}: {found!r} instead of {shown!r}"
    if isinstance(shown, int | float):
        ok = isinstance(found, int | float) and not isinstance(found, bool)
        return "" if ok else f"{where}: {found!r} is no number"
    if isinstance(shown, str):
        ok = isinstance(found, str) and _fits(shown, found)
        return "" if ok else f"{where}: {found!r} instead of {shown!r}"
    if isinstance(shown, list):
        if not isinstance(found, list) or len(found) < len(shown):
            return f"{where}: {found!r} has not {len(shown)} items"
        pairs = [(f"{where}[{at}]", one, found[at]) for at, one in enumerate(shown)]
    else:
        if not isinstance(found, dict) or not shown.keys() <= found.keys():
            return f"{where}: {found!r} lacks some of {list(shown)}"
        pairs = [(f"{where}.{key}", one, found[key]) for key, one in shown.items()]
    return next((reason for at, one, other in pairs if (reason := _json_differs(one, other, at))), "")


# -- links ---------------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """What ``#…`` may name on a page, as GitHub makes it of the headings."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    found: set[str] = set()
    for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        anchor = re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")
        while anchor in found:
            anchor += "-1"
        found.add(anchor)
    return found


def links(page: Path) -> list[str]:
    """The targets of all links and pictures of a page, those outside the repository left out."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"`[^`\n]*`", "", text)
    found = re.findall(r"\]\(([^()\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    return [link for link in found if not fnmatch.fnmatch(link, "*://*")]
