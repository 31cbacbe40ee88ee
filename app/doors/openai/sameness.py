"""Whether two texts are the same answer: white space, normal form and U+FFFD make no other one."""

import unicodedata
from typing import Final

_UNREADABLE: Final = "\ufffd"
_LOOKED_AT: Final = 8
"""Characters that have to agree behind U+FFFD."""


def continuation(sent: str, text: str) -> str | None:
    """What ``text`` says beyond ``sent``; None where it does not begin with it."""
    pairs = enumerate(zip(sent, text, strict=False))
    start = next((place for place, (one, other) in pairs if one != other), min(len(sent), len(text)))
    start = max(0, start - 1)  # the last one that agrees may be a letter that has its accent behind it
    had, _ = _signs(sent[start:])
    new, ends = _signs(text[start:])
    place = other = 0
    while place < len(had):
        if other < len(new) and had[place] == new[other]:
            place, other = place + 1, other + 1
        elif had[place] == _UNREADABLE:
            run = _run(had, place)
            other = _behind(had[place + run :], new, other, run)
            place += run
        elif other < len(new) and new[other] == _UNREADABLE:
            run = _run(new, other)
            place = _behind(new[other + run :], had, place, run)
            other += run
        else:
            return None
    return text[start + (ends[other - 1] if other else 0) :]


def _signs(text: str) -> tuple[str, list[int]]:
    """``text`` decomposed and without white space, and for each sign of that where it ends in ``text``."""
    signs: list[str] = []
    ends: list[int] = []
    for place, character in enumerate(text, 1):
        for sign in unicodedata.normalize("NFKD", character):
            if not sign.isspace():
                signs.append(sign)
                ends.append(place)
    return "".join(signs), ends


def _run(signs: str, place: int) -> int:
    """How many U+FFFD there are from ``place`` on."""
    end = place
    while end < len(signs) and signs[end] == _UNREADABLE:
        end += 1
    return end - place


def _behind(rest: str, signs: str, place: int, most: int) -> int:
    """The place in ``signs`` behind what ``most`` U+FFFD stand for: one character at least where it fits."""
    wanted = rest[:_LOOKED_AT].partition(_UNREADABLE)[0]
    lengths: list[int] = [*range(1, most + 1), 0]
    for skipped in lengths:
        end = min(place + skipped, len(signs))
        seen = signs[end : end + len(wanted)]
        if wanted.startswith(seen) and (seen or not wanted or end == len(signs)):
            return end
    return min(place + 1, len(signs))
