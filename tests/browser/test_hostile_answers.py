"""Answers that would hold or break the page: shown as far as they are Markdown, else as they are."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import ROOT
from tests.support import SimControl

from .support import Tab

NODE = Path(__file__).parent / "node/markdown.mjs"
DEEP = 6000
HARM = {
    "quotes": "> " * DEEP,
    "lists": "- " * DEEP,
    "dollars": "$$a " * 5000,
    "underscores": "_a_" * 7000,
    "stars": "*a **a " * 3000,
    "formulas": "$x$ " * 900 + "\n\n" + "$y_1$ " * 600,
    "roots": "$$" + r"\sqrt{" * 300 + "x" + "}" * 300 + "$$\n",
    "braces": "$$" + "{" * 5000 + "x" + "}" * 5000 + "$$\n",
    "paragraphs": "a\n\n" * 3000,
    "long": "**word** " * 12_000,
}
"""What each answer holds before its last word."""
END = "\n\nthe **end**"


def rendered(tmp_path: Path) -> Any:
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node on PATH (Debian: apt-get install nodejs)")
    shutil.copytree(ROOT / "app/routes/pages", tmp_path, dirs_exist_ok=True)
    shutil.copy(NODE, tmp_path)
    (tmp_path / "package.json").write_text('{"type": "module"}', encoding="utf-8")
    done = subprocess.run(
        [node, NODE.name], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=True
    )
    return json.loads(done.stdout)


def test_no_answer_takes_long_and_formulas_are_found_where_they_are(tmp_path: Path) -> None:
    told = rendered(tmp_path)
    # Of the processor, for 100,000 characters: about a second at most, where some took minutes.
    assert {name: spent for name, spent in told["seconds"].items() if spent > 5} == {}
    assert told["breaks"] == 2000  # a long paragraph keeps its lines, and what is marked in each
    assert told["formulas"] == {
        "inline": ["inline $x$", r"inline \(y\)"],
        "block": ["block $$\nx\n\ny\n$$"],
        "middle": ["block $$x$$"],
        "brackets": [r"block \[ x \\[2pt] y \]"],
        "bracketsMiddle": [r"block \[x\]"],
        "afterLine": ["block $$x$$"],
        "money": [],
        "escaped": [r"block $$a \$ b$$"],
        "open": ["block $$c$$"],
        "long": ["inline $x$"],
        "quoted": ["block $$x$$"],
        "item": ["inline $x$", "block $$y$$"],
    }


@pytest.mark.asyncio(loop_scope="session")
async def test_the_page_goes_on_and_a_session_opens_whatever_an_answer_holds(
    tab: Tab, simulator: SimControl
) -> None:
    for name, text in HARM.items():
        simulator.knob(match=f"harm {name}", text=text + END)
        await tab.ask(f"harm {name} [[sim:reasoning=0;followups=0;deltas=5]]")
        await tab.ended()
        assert (await tab.answer()).rstrip().endswith(("the end", "the **end**")), name
        assert await tab.page.is_visible("#send"), name
    plain = await tab.page.locator(".answer > .source").count()
    await tab.page.reload()
    await tab.page.wait_for_function("n => document.querySelectorAll('.turn').length === n", arg=len(HARM))
    ends = await tab.page.locator(".answer").evaluate_all(
        "all => all.map(e => e.textContent.trim().slice(-11))"
    )
    assert [end for end in ends if not end.endswith(("the end", "the **end**"))] == []
    assert await tab.page.locator(".answer > .source").count() == plain == 2  # paragraphs, long
    await tab.ask("And now?")
    await tab.ended()


ODD = ["[null]", '{"a": ' * 4000 + "1" + "}" * 4000, "null", "[1, {}]"]


@pytest.mark.asyncio(loop_scope="session")
async def test_messages_that_are_odd_json_are_shown(tab: Tab) -> None:
    for odd in ODD:
        shown = await tab.page.evaluate(
            """content => import('/coze/playground/markdown.js').then(({ readable }) =>
              ['object_string', 'card'].map(contentType => typeof readable({ content, contentType })))""",
            odd,
        )
        assert shown == ["string", "string"]
