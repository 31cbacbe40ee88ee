"""Links lead somewhere, and both languages say the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .pages import LANGUAGES, PAGES, ROOT, anchors, blocks, links, name_of


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_to_a_file_and_a_heading_that_are_there(page: Path) -> None:
    broken = []
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_every_page_of_docs_is_linked_from_the_first_page_of_its_language() -> None:
    for first, language in (("README.md", "zh"), ("README.en.md", "en")):
        there = {name_of(page) for page in PAGES if f"docs/{language}/" in name_of(page)}
        assert there - {link.partition("#")[0] for link in links(ROOT / first)} == set()


TWINS = [
    *((ROOT / "docs/zh" / page.name, page) for page in sorted((ROOT / "docs/en").glob("*.md"))),
    (ROOT / "README.md", ROOT / "README.en.md"),
    (ROOT / "CONTRIBUTING.zh.md", ROOT / "CONTRIBUTING.md"),
]


def _without_words(text: str) -> str:
    """Commands without comments, and without what is meant for readers of one language."""
    text = re.sub(r"(#|//)[ :].*", "", text)
    return re.sub(r"[ \t]+", " ", re.sub(r"[^\x00-\x7f]+|<[^>]*>", "", text))


@pytest.mark.parametrize(("chinese", "english"), TWINS, ids=name_of)
def test_both_languages_show_the_same_commands_and_answers(chinese: Path, english: Path) -> None:
    shown = [
        [(each.language, each.runs, _without_words(each.text).split()) for each in blocks(page) if each.runs]
        for page in (chinese, english)
    ]
    strict = [[each for each in side if each[0] != "text"] for side in shown]
    assert strict[0] == strict[1]
    assert [each[0] for each in shown[0]] == [each[0] for each in shown[1]]


def test_there_is_a_page_for_each_page_of_the_other_language() -> None:
    names = [{page.name for page in (ROOT / "docs" / language).glob("*.md")} for language in LANGUAGES]
    assert names[0] == names[1]


@pytest.mark.parametrize(("chinese", "english"), TWINS, ids=name_of)
def test_both_languages_have_the_same_headings_and_tables(chinese: Path, english: Path) -> None:
    def outline(page: Path) -> list[str]:
        text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        return [match[0] for match in re.finditer(r"^(#+ |\||[-*] |\d\. )", text, re.MULTILINE)]

    assert outline(chinese) == outline(english)
