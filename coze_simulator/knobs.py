"""Faults and shapes that a test can ask for, by a directive in the message or by a rule.

A directive is ``[[sim:key=value;key=value]]`` anywhere in the user's message; it is removed from what the
bot sees. A rule has the same keys and is posted to ``/_sim/knobs``. The keys are the fields of
:class:`Knobs`, plus ``times`` (apply to the first K matching requests only).
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
from typing import Any

from coze_simulator.errors import ApiError

CHAT_PATH = "/v3/chat"
MAX_RULES = 1000
_MAX_COUNTERS = 10_000
_DIRECTIVE = re.compile(r"\[\[sim:(.*?)\]\]", re.DOTALL)
_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}


@dataclass(frozen=True, slots=True)
class Stall:
    """Silence of ``seconds`` after ``after`` content deltas."""

    after: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Knobs:
    """What is to be different about one request. Times in s, sizes in bytes, counts of *content* deltas."""

    # Refusals, before anything happens.
    fail: int | None = None  # Coze's code in a JSON envelope
    fail_http: int | None = None  # the HTTP status of `fail` (200)
    http: int | None = None  # a bare HTTP status: HTML from 502 on, else text
    http_body: str | None = None  # html | text | json | empty
    retry_after: float | None = None  # a Retry-After header for `http`
    drop: bool = False  # close the connection without an answer
    # The response as bytes.
    first_byte: float | None = None  # hold the response back after its work has begun
    cut: int | None = None  # close the connection after so many bytes of body
    chunk: int | None = None  # at most so many bytes per network write
    called: str | None = None  # the stream's content type
    no_done: bool = False
    no_terminal: bool = False  # end cleanly without chat.completed and done
    done_after_error: bool = False
    on_disconnect: str | None = None  # continue | stop
    # The course of the chat.
    delay: float | None = None  # silence before the first delta
    gap: float | None = None  # between two deltas
    stall: Stall | None = None
    fail_at: int | None = None  # conversation.chat.failed after so many deltas
    fail_code: int = 5000
    fail_shape: str = "chat"  # chat | bare | string
    error_at: int | None = None  # event:error after so many deltas
    error_code: int | None = None
    error_shape: str = "code"  # code | error_code | empty
    last_error: int | None = None  # the chat is created and then found failed
    requires_action: str | None = None  # function | reply_message
    rounds: int = 1  # how many times outputs are asked for
    tool_calls: int = 1
    tool_name: str = "f"  # of the function; those of further calls have their number behind it
    # The shape of the answer.
    text: str | None = None
    completed_text: str | None = None  # what message.completed says after the deltas of `text`
    stored_text: str | None = None  # what the list of messages says of an answer afterwards
    deltas: int | None = None
    reasoning: bool = True
    followups: int = 3
    verbose: str = "finish"  # finish | knowledge | none
    multi: int = 1
    card: bool = False
    object_string: bool = False
    huge: int | None = None
    plugin: bool = False
    audio: bool = False
    no_usage: bool = False
    shell_action: bool = False  # an empty required_action on ordinary chats
    # What the other endpoints say of this chat afterwards.
    status_lag: float | None = None
    cancel_lag: float | None = None  # the conversation stays locked so long after a cancel
    empty_list: int = 0
    not_found: int = 0  # so many retrieves do not know it yet


def _integer(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("an integer is needed")  # noqa: TRY004 - one error for a bad value
    number = int(value)
    if number < 0:
        raise ValueError("must not be negative")
    return number


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("a number of seconds is needed")  # noqa: TRY004
    seconds = float(value)
    if not 0 <= seconds <= 86_400:
        raise ValueError("must be between 0 and 86400")
    return seconds


def _flag(value: object) -> bool:
    text = str(value).strip().lower()
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError("1 or 0 is needed")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("a text is needed")  # noqa: TRY004
    return value


def _choice(*allowed: str, **aliases: str) -> Callable[[object], str]:
    def parse(value: object) -> str:
        text = str(value).strip().lower()
        text = aliases.get(f"_{text}", text)
        if text not in allowed:
            raise ValueError("one of " + ", ".join(allowed))
        return text

    return parse


def _stall(value: object) -> Stall:
    after, colon, seconds = str(value).partition(":")
    if not colon:
        raise ValueError("N:SECONDS is needed")
    return Stall(_integer(after.strip()), _seconds(seconds.strip()))


def _action(value: object) -> str | None:
    text = str(value).strip().lower()
    if text in _FALSE:
        return None
    return _choice("function", "reply_message")("function" if text in _TRUE else text)


_PARSERS: dict[str, Callable[[object], Any]] = {
    **dict.fromkeys(
        [
            "fail",
            "fail_http",
            "http",
            "cut",
            "chunk",
            "fail_at",
            "fail_code",
            "error_at",
            "error_code",
            "last_error",
            "rounds",
            "tool_calls",
            "deltas",
            "followups",
            "multi",
            "huge",
            "empty_list",
            "not_found",
        ],
        _integer,
    ),
    **dict.fromkeys(["retry_after", "first_byte", "delay", "gap", "status_lag", "cancel_lag"], _seconds),
    **dict.fromkeys(
        [
            "drop",
            "no_done",
            "no_terminal",
            "done_after_error",
            "reasoning",
            "card",
            "object_string",
            "plugin",
            "audio",
            "no_usage",
            "shell_action",
        ],
        _flag,
    ),
    "http_body": _choice("html", "text", "json", "empty"),
    "on_disconnect": _choice("continue", "stop"),
    "stall": _stall,
    "fail_shape": _choice("chat", "bare", "string"),
    "error_shape": _choice("code", "error_code", "empty"),
    "requires_action": _action,
    **dict.fromkeys(["called", "text", "completed_text", "stored_text", "tool_name"], _text),
    "verbose": _choice("finish", "knowledge", "none", _0="none", _1="finish"),
}
KNOB_NAMES = frozenset(item.name for item in fields(Knobs))


def parse_knobs(values: Mapping[str, object]) -> dict[str, Any]:
    """Checks ``values`` (texts of a directive, or JSON of a rule). Raises ValueError naming the key."""
    parsed: dict[str, Any] = {}
    for name, value in values.items():
        parser = _PARSERS.get(name)
        if parser is None:
            raise ValueError(f"unknown knob {name!r}; known: {', '.join(sorted(KNOB_NAMES))}")
        try:
            parsed[name] = parser(value)
        except ValueError as error:
            raise ValueError(f"knob {name}={value!r}: {error}") from error
    return parsed


def strip_directives(text: str) -> str:
    """The message without its directives."""
    return _DIRECTIVE.sub("", text).strip() if "[[sim:" in text else text


@dataclass(slots=True)
class Rule:
    """A rule of the control endpoint. ``path``: glob on the path without prefix; ``match``: substring."""

    values: dict[str, Any]
    given: dict[str, object]
    path: str = CHAT_PATH
    match: str | None = None
    times: int | None = None
    hits: int = 0

    def applies(self, path: str, text: str) -> bool:
        """Whether this request is meant, and some of ``times`` is left."""
        if self.times is not None and self.hits >= self.times:
            return False
        return fnmatchcase(path, self.path) and (self.match is None or self.match in text)

    def view(self) -> dict[str, object]:
        """As shown by the control endpoint."""
        head = {"path": self.path, "match": self.match, "times": self.times, "hits": self.hits}
        return head | self.given


@dataclass(slots=True)
class KnobBoard:
    """The rules in force, and how often each limited directive has been used."""

    rules: list[Rule] = field(default_factory=list)
    _used: OrderedDict[tuple[str, str], int] = field(default_factory=OrderedDict)

    def add(self, body: Mapping[str, object]) -> Rule:
        """Adds the rule ``{"match"?, "path"?, "times"?, knobs...}``. Raises ValueError."""
        given = {name: value for name, value in body.items() if name not in ("match", "path", "times")}
        times, match, path = body.get("times"), body.get("match"), body.get("path")
        if match is not None and not isinstance(match, str):
            raise ValueError("match must be a text or null")
        if path is not None and not isinstance(path, str):
            raise ValueError("path must be a text or null")
        if len(self.rules) >= MAX_RULES:
            raise ValueError(f"more than {MAX_RULES} rules; DELETE /_sim/knobs clears them")
        rule = Rule(
            values=parse_knobs(given),
            given=given,
            path=path or CHAT_PATH,
            match=match,
            times=None if times is None else _integer(times),
        )
        self.rules.append(rule)
        return rule

    def clear(self) -> None:
        """Forgets the rules and the counts of directives."""
        self.rules.clear()
        self._used.clear()

    def resolve(self, path: str, text: str, *, directives: bool = True) -> Knobs:
        """The knobs of a request: the rules in their order, then (``directives``) those written in ``text``.

        Raises ApiError 4000 for a directive that cannot be read, so that a typing error does not pass for
        a test that succeeded.
        """
        merged: dict[str, Any] = {}
        for rule in self.rules:
            if rule.applies(path, text):
                rule.hits += 1
                merged.update(rule.values)
        if directives and "[[sim:" in text:
            try:
                for directive in _DIRECTIVE.findall(text):
                    merged.update(self._directive(directive, text))
            except ValueError as error:
                raise ApiError(4000, f"simulator directive: {error}") from error
        return replace(Knobs(), **merged)

    def _directive(self, directive: str, text: str) -> dict[str, Any]:
        values: dict[str, object] = {}
        for item in directive.split(";"):
            name, equals, value = item.partition("=")
            if name.strip():
                values[name.strip()] = value if equals else "1"
        times = values.pop("times", None)
        parsed = parse_knobs(values)
        if times is None:
            return parsed
        # A retry sends the same text again, so text and directive together are the key of the count.
        key = (directive, text)
        used = self._used.pop(key, 0)
        self._used[key] = used + 1
        if len(self._used) > _MAX_COUNTERS:
            self._used.popitem(last=False)
        return parsed if used < _integer(times) else {}
