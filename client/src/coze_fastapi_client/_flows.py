"""What calls do, without doing it: generators that say which step comes next and are told how it went.

A ``Flow`` yields steps; the sync and the async client each have a few lines that carry them out, and a
``RunningFlow`` says which is next. So retries, waiting and resuming are written once.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar, Union
from urllib.parse import quote

import httpx

from ._errors import ConnectionLost, CozeError, CozeServiceError, UnexpectedAnswer, service_error
from ._models import Json
from ._version import __version__

T = TypeVar("T")
_FIRST_PAUSE: Final = 0.2
_LONGEST_PAUSE: Final = 2.0
_TRANSIENT: Final = frozenset({429, 502, 503, 504})
"""Statuses of a service, or of the proxy before it, that may answer the same call a moment later."""


def _sendable(name: str, value: str | None) -> str | None:
    """The value, fit for a header. Raises ValueError, which never quotes it: it may be a secret."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError(f"{name} has to be a str, not {type(value).__name__}")  # noqa: TRY004  # one error for all
    if value != value.strip():
        raise ValueError(f"{name} has white space around it (from a file? use .strip())")
    wrong = next((each for each in value if not "!" <= each <= "~"), "")
    if wrong:
        raise ValueError(
            f"{name} has the character U+{ord(wrong):04X}, which no header can have: is it a placeholder?"
        )
    return value


@dataclass(frozen=True)
class Settings:
    """Of a client. ``token`` and ``api_key`` may be functions: asked for every request. Times in seconds."""

    base_url: str
    token: str | Callable[[], str] | None = None
    host: str | None = None
    timeout: float = 10.0
    max_retries: int = 4
    patience: float = 60.0
    heartbeat: float = 15.0
    api_key: str | Callable[[], str] | None = None

    def __post_init__(self) -> None:
        if not self.base_url.startswith(("http://", "https://")):
            raise ValueError("base_url begins with http:// or https://")
        if self.api_key is not None and (self.token is not None or self.host is not None):
            raise ValueError("a caller has an api_key, or a token and its host")
        if not callable(self.token) and not callable(self.api_key):
            self.headers()  # what cannot be sent is said now, not by the first call

    def url(self, path: str) -> str:
        return self.base_url.rstrip("/") + path

    def headers(self) -> dict[str, str]:
        """Raises ValueError for a token, host or key that cannot be sent."""
        token = self.token() if callable(self.token) else self.token
        api_key = self.api_key() if callable(self.api_key) else self.api_key
        known = {"HtySudoerToken": _sendable("token", token), "HtyHost": _sendable("host", self.host)}
        if api_key:
            known["Authorization"] = f"Bearer {_sendable('api_key', api_key)}"
        ours = {"User-Agent": f"coze-fastapi-client/{__version__}"}
        return ours | {name: value for name, value in known.items() if value}

    @property
    def longest_silence(self) -> float:
        """Of a stream that is still connected: two heartbeats may be late, not lost."""
        return self.heartbeat * 2.5


@dataclass(frozen=True)
class Request:
    """One request to the service.

    Attributes:
        path: with its leading slash.
        read_timeout: seconds until the next byte of the answer, where that is not the client's ``timeout``.
        repeatable: the service takes a second one of it for the first, so it may be sent again although it
            may have arrived.
        files: by field: name, content, type.
    """

    method: str
    path: str
    json: Json | None = None
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    read_timeout: float | None = None
    repeatable: bool = True
    files: Mapping[str, tuple[str, bytes, str]] | None = None

    def build(self, settings: Settings) -> dict[str, Any]:
        """Arguments of ``httpx.Client.build_request``."""
        return {
            "method": self.method,
            "url": settings.url(self.path),
            "json": self.json,
            "params": self.params or None,
            "headers": {**settings.headers(), **self.headers},
            "files": self.files,
            "timeout": httpx.Timeout(settings.timeout, read=self.read_timeout or settings.timeout),
        }


def path(template: str, *ids: str) -> str:
    """``path("/coze/chats/{}/result", chat_id)``; an id may hold anything."""
    return template.format(*(quote(each, safe="") for each in ids))


# -- steps ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reply:
    """``body`` is empty for a stream that has been opened."""

    status: int
    headers: httpx.Headers
    body: bytes = b""

    @property
    def streaming(self) -> bool:
        return str(self.headers.get("content-type", "")).startswith("text/event-stream")


@dataclass(frozen=True)
class Send:
    """Reply: the whole ``Reply``."""

    request: Request


@dataclass(frozen=True)
class Open:
    """Reply: a ``Reply`` without body where it is an event stream, to be read by ``Read``; else the whole."""

    request: Request


@dataclass(frozen=True)
class Read:
    """Reply: bytes, empty at the end."""


@dataclass(frozen=True)
class Pause:
    seconds: float


@dataclass(frozen=True)
class Opened:
    """Nothing to do: a stream says so once, when it was not refused."""


Step = Union[Send, Open, Read, Pause]
STEPS: Final = (Send, Open, Read, Pause)
Flow = Generator[Step, Any, T]


class RunningFlow(Generic[T]):
    """One flow. ``step`` is to be carried out next; None: it is over, and ``value`` is what it returned.

    A step stays until it was answered: whoever is cancelled in the middle of one may carry it out again.
    """

    def __init__(self, flow: Generator[Any, Any, T]) -> None:
        self._flow = flow
        self.step: Any = None
        self.value: T | None = None
        self._advance(lambda: next(flow))

    def answer(self, value: Any = None) -> None:
        self._advance(lambda: self._flow.send(value))

    def fail(self, error: ConnectionLost) -> None:
        self._advance(lambda: self._flow.throw(error))

    def close(self) -> None:
        self.step = None
        self._flow.close()

    def _advance(self, move: Callable[[], Any]) -> None:
        try:
            self.step = move()
        except StopIteration as stop:
            self.step, self.value = None, stop.value
        except BaseException:
            self.step = None
            raise


@contextmanager
def connection_errors() -> Iterator[None]:
    """httpx' errors as ours. A ``LocalProtocolError`` is a fault of the caller's (a header with a line end)
    and stays what it is."""
    try:
        yield
    except httpx.LocalProtocolError:
        raise
    except (httpx.TransportError, httpx.DecodingError, httpx.StreamError) as error:
        unsent = isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout))
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise ConnectionLost(text, request_sent=not unsent) from error


# -- answers ----------------------------------------------------------------------------------------------


def error_of(reply: Reply) -> CozeServiceError:
    """What an answer with a status from 400 on says; a proxy's page has only its status."""
    after = reply.headers.get("retry-after", "")
    seconds = float(after) if after.isascii() and after.isdigit() else None
    try:
        body = json.loads(reply.body)["error"]
        return service_error(body, status=reply.status, retry_after=seconds)
    except (ValueError, KeyError, TypeError):
        page = {"message": f"HTTP status {reply.status}", "retryable": reply.status in _TRANSIENT}
        return service_error(page, status=reply.status, retry_after=seconds)


def data_of(reply: Reply) -> Any:
    """The envelope unwrapped: ``data.task_result.data``, or ``data`` where there is no task (health)."""
    try:
        data = json.loads(reply.body)["data"]
        return data["task_result"]["data"] if "task_result" in data else data
    except (ValueError, KeyError, TypeError):
        raise UnexpectedAnswer(f"HTTP status {reply.status} without the service's envelope") from None


def is_transient(error: CozeServiceError) -> bool:
    """Whether the same call may succeed a moment later. A chat that failed has failed: only a new message,
    which the caller has to pay for and so has to decide on, can help."""
    return error.retryable and error.status in _TRANSIENT and "chat_id" not in error.details


# -- calls ------------------------------------------------------------------------------------------------


class RetryState:
    """Counts what goes wrong in a row: how long to pause before the next try, and when to give up."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._since: float | None = None
        self.tries = 0

    def reset(self) -> None:
        """Something went well."""
        self._since, self.tries = None, 0

    @property
    def seconds(self) -> float:
        """Seconds since it began."""
        return 0.0 if self._since is None else time.monotonic() - self._since

    def pause(self, error: CozeError | None) -> Pause | None:
        """Before the next try; None when that would be past the patience. ``Retry-After`` is a least; the
        rest is chance, or all clients of a replica that restarts would come back at the same moment."""
        self._since = time.monotonic() if self._since is None else self._since
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0**self.tries)
        pause = random.uniform(pause / 2, pause)  # noqa: S311  # not a secret
        self.tries += 1
        asked = error.retry_after if isinstance(error, CozeServiceError) else None
        pause += asked or 0.0
        return Pause(pause) if self.seconds + pause <= self._settings.patience else None


def call(settings: Settings, request: Request, retries: RetryState | None = None) -> Flow[Reply]:
    """One call, repeated while that may help and cannot harm."""
    retries = retries or RetryState(settings)
    while True:
        problem: CozeError
        try:
            reply: Reply = yield Send(request)
        except ConnectionLost as lost:
            problem, again = lost, request.repeatable or not lost.request_sent
        else:
            if reply.status < 400:
                return reply
            problem = refusal = error_of(reply)
            # The first two are said before anything has begun; a proxy's 502 and 504 are not.
            again = is_transient(refusal) and (request.repeatable or refusal.status in (429, 503))
        pause = retries.pause(problem) if again and retries.tries < settings.max_retries else None
        if pause is None:
            raise problem
        yield pause
