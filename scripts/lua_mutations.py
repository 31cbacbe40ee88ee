"""One small change at a time to a Lua script: where one can be made, and what it is called.

What is changed: a call or an assignment is dropped, also a ``return`` that is not its block's only
statement; a condition is always or never met; a comparison is turned round or moved by one; ``and`` and
``or``, ``min`` and ``max`` change places; a ``not`` goes; a number becomes the next one, and 1 becomes 0.

Left out because it cannot show or would show at once, whatever the tests are:

- the only statement of an ``if`` without ``else``: dropping it is a condition that is never met;
- ``while true``: it never ends;
- places in KEYS and ARGV, and in the tables that replies are: a wrong one is noticed by any test;
- the 1 in ``string.sub(text, 1, ...)``: 0 means the same;
- ``local x = ...``: without it the script has no such name;
- what does not compile.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_TOKEN: Final = re.compile(
    r"""(?P<space>\s+|--[^\n]*)
      | (?P<string>'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*")
      | (?P<number>\d+(?:\.\d+)?)
      | (?P<name>[A-Za-z_]\w*)
      | (?P<op>\.\.|==|~=|<=|>=|[-+*/%\#<>=(){}\[\];:,.])""",
    re.VERBOSE,
)
_BINARY: Final = {"..", "==", "~=", "<=", ">=", "<", ">", "+", "-", "*", "/", "%", "and", "or"}
_UNARY: Final = {"not", "-", "#"}
_OPEN: Final = {"(": ")", "[": "]", "{": "}"}
_BLOCK_ENDS: Final = {"end", "else", "elseif", ""}
_COMPARED: Final = {
    "==": ("~=",),
    "~=": ("==",),
    "<": (">=", "<="),
    "<=": (">", "<"),
    ">": ("<=", ">="),
    ">=": ("<", ">"),
}
_SWAPPED: Final = {"and": "or", "or": "and", "min": "max", "max": "min"}

_FROM_THE_START: Final = re.compile(r"string\.sub\(\w+, \Z")


@dataclass(frozen=True)
class Mutation:
    """``source[begin:end]`` becomes ``instead``."""

    begin: int
    end: int
    instead: str
    kind: str

    def applied_to(self, source: str) -> str:
        return source[: self.begin] + self.instead + source[self.end :]


@dataclass(frozen=True)
class _Token:
    text: str
    begin: int
    end: int
    kind: str


def _tokens(source: str) -> list[_Token]:
    found, place = [], 0
    while place < len(source):
        match = _TOKEN.match(source, place)
        if match is None:
            raise ValueError(f"not Lua as we write it: {source[place : place + 30]!r}")
        if match.lastgroup != "space":
            found.append(_Token(match.group(), place, match.end(), str(match.lastgroup)))
        place = match.end()
    return found


class _Parser:
    """Walks statements; expressions only as far as to find where they end."""

    def __init__(self, source: str) -> None:
        self._tokens = _tokens(source)
        self._place = 0
        self._only: set[int] = set()
        self.found: list[Mutation] = []

    def _at(self, ahead: int = 0) -> str:
        place = self._place + ahead
        return self._tokens[place].text if place < len(self._tokens) else ""

    def _take(self, *texts: str) -> None:
        if texts and self._at() not in texts:
            raise ValueError(f"{self._at()!r} instead of {texts}")
        self._place += 1

    def _begin(self) -> int:
        return self._tokens[self._place].begin

    def _end(self) -> int:
        return self._tokens[self._place - 1].end

    def chunk(self) -> list[Mutation]:
        self._nested()
        if self._place != len(self._tokens):
            raise ValueError(f"{self._at()!r} is not understood")
        return self.found

    def _block(self, *, guarded: bool) -> tuple[int, list[Mutation]]:
        """How many statements it has, and the mutations that drop one of them."""
        count, drops = 0, []
        while self._at() not in _BLOCK_ENDS:
            begin, kind = self._begin(), self._statement()
            count += 1
            if kind in ("call", "assignment") or (kind == "return" and guarded):
                drops.append(Mutation(begin, self._end(), "", f"drop {kind}"))
            if self._at() == ";":
                self._take()
        return count, drops

    def _nested(self, *, guarded: bool = False) -> None:
        self.found += self._block(guarded=guarded)[1]

    def _statement(self) -> str:
        word = self._at()
        if word == "if":
            self._if()
        elif word == "while":
            self._take()
            self._condition(both=False)
            self._take("do")
            self._nested()
            self._take("end")
        elif word == "for":
            while self._at() != "do":
                self._take()
            self._take("do")
            self._nested()
            self._take("end")
        elif word == "local":
            return self._local()
        elif word in ("return", "break"):
            self._take()
            if word == "return" and self._at() not in _BLOCK_ENDS and self._at() != ";":
                self._expressions()
        else:
            self._suffixed()
            if self._at() not in ("=", ","):
                if self._at(-1) != ")":
                    raise ValueError(f"{self._at(-1)!r} is no statement")
                return "call"
            while self._at() == ",":
                self._take()
                self._suffixed()
            self._take("=")
            self._expressions()
            return "assignment"
        return word

    def _local(self) -> str:
        self._take("local")
        if self._at() == "function":
            self._take()
            self._take()
            self._brackets()
            self._nested()
            self._take("end")
            return "function"
        self._take()
        while self._at() == ",":
            self._take()
            self._take()
        if self._at() == "=":
            self._take()
            self._expressions()
        return "local"

    def _if(self) -> None:
        first = True
        alone: list[Mutation] = []
        while self._at() in ("if", "elseif"):
            self._take()
            self._condition(both=True)
            self._take("then")
            count, drops = self._block(guarded=True)
            if first and count == 1 and self._at() == "end":
                alone = drops
            self.found += [drop for drop in drops if drop not in alone]
            first = False
        if self._at() == "else":
            self._take()
            self._nested()
        self._take("end")

    def _condition(self, *, both: bool) -> None:
        begin = self._begin()
        self._expression()
        for instead in ("true", "false") if both else ("false",):
            self.found.append(Mutation(begin, self._end(), instead, f"always {instead}"))

    def _expressions(self) -> None:
        self._expression()
        while self._at() == ",":
            self._take()
            self._expression()

    def _expression(self) -> None:
        while True:
            while self._at() in _UNARY:
                self._take()
            self._suffixed()
            if self._at() not in _BINARY:
                return
            self._take()

    def _suffixed(self) -> None:
        """A name, a value or something in brackets, with what is behind it."""
        if self._at() == "[":
            raise ValueError("text in square brackets is not understood")
        if self._at() in _OPEN:
            self._brackets()
        else:
            self._take()
        while True:
            if self._at() == "." or self._at() == ":":
                self._take()
                self._take()
            elif self._at() in ("(", "["):
                self._brackets()
            else:
                return

    def _brackets(self) -> None:
        closing = _OPEN[self._at()]
        self._take()
        while self._at() != closing:
            if not self._at():
                raise ValueError(f"there is no {closing!r}")
            if self._at() in _OPEN:
                self._brackets()
            else:
                self._take()
        self._take(closing)


def _of_words(source: str) -> Iterator[Mutation]:
    tokens = _tokens(source)
    for place, token in enumerate(tokens):
        before = tokens[place - 1].text if place else ""
        behind = tokens[place + 1].text if place + 1 < len(tokens) else ""
        begin, end = token.begin, token.end
        if token.text in _COMPARED and token.kind == "op":
            for number, instead in enumerate(_COMPARED[token.text]):
                yield Mutation(begin, end, instead, "move comparison" if number else "turn comparison")
        elif (
            token.text in _SWAPPED and token.kind == "name" and (before == "." or token.text in ("and", "or"))
        ):
            yield Mutation(begin, end, _SWAPPED[token.text], "swap")
        elif token.text == "not":
            yield Mutation(begin, end, "", "drop not")
        elif token.kind == "number" and not (before == "[" and behind == "]"):
            if token.text == "1" and _FROM_THE_START.search(source, 0, begin):
                continue
            yield Mutation(begin, end, "0" if token.text == "1" else str(int(token.text) + 1), "number")


def mutations(source: str) -> list[Mutation]:
    """All that can be made of a script, in the order of their places. Some may not compile."""
    found = [*_Parser(source).chunk(), *_of_words(source)]
    return sorted(set(found), key=lambda each: (each.begin, each.end, each.instead))
