"""What nobody should send, to each route of the door: always an answer in Coze's envelope, never a failure of
ours, and the service goes on as before."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from app.http.connections import MOST_HEAD_BYTES
from app.main import create_app
from tests.security.helpers import operations
from tests.security.hostile import fixed, grown, split_at_each_place
from tests.support import RedisServer, ServiceProcess, SimControl

from .conftest import VALUES, base_of
from .support import BOT, KEY, OTHER_KEY, CozeCaller, Json, calling, events_of
from .table import OVER, UNKNOWN, WAITS, Ids, calls, settle_in

JSON_TYPE = "application/json"
MESSAGE = {"role": "user", "type": "question", "content": "x", "content_type": "text"}
MESSAGE |= {"meta_data": {"a": "b"}}  # type: ignore[dict-item]
BODIES: dict[str, Json] = {
    "POST /v3/chat": {
        "bot_id": BOT,
        "user_id": "u-1",
        "stream": False,
        "auto_save_history": True,
        "additional_messages": [MESSAGE],
        "custom_variables": {"a": "b"},
        "meta_data": {"a": "b"},
        "parameters": {"a": [1]},
        "extra_params": {"a": "b"},
        "shortcut_command": {"command_id": "1", "parameters": {"a": "b"}},
        "enable_card": False,
        "publish_status": "published_online",
    },
    "POST /v3/chat/submit_tool_outputs": {
        "tool_outputs": [{"tool_call_id": "x", "output": "y"}],
        "stream": False,
    },
    "POST /v3/chat/cancel": {
        "conversation_id": UNKNOWN["conversation_id"],
        "chat_id": UNKNOWN["chat_id"],
    },
    "POST /v1/conversation/create": {
        "bot_id": BOT,
        "name": "x",
        "messages": [MESSAGE],
        "meta_data": {"a": "b"},
        "connector_id": "1024",
    },
    "PUT /v1/conversations/{conversation_id}": {"name": "x"},
    "POST /v1/conversation/message/list": {
        "order": "desc",
        "chat_id": UNKNOWN["chat_id"],
        "before_id": UNKNOWN["message_id"],
        "after_id": UNKNOWN["message_id"],
        "limit": 20,
    },
    "POST /v1/conversation/message/create": MESSAGE,
    "POST /v1/conversations/{conversation_id}/messages/{message_id}/feedback": {
        "feedback_type": "like",
        "reason_types": ["x"],
        "comment": "x",
    },
}
"""Of each route that takes JSON, a body with all that Coze knows of."""

ESCAPED = [
    *("", "%20", "%00", "1%00", "%0d%0aX-Evil:1", "%ED%A0%80", "%FF%FE", "%C0%80", "%F0%9F%99%82", "%25"),
    *("..", "%2e%2e", "..%2F..%2Fetc", "%2F", "a%2Fb", "%5C", "*", "{00}", "%7Bx%7D", "null", "true", "[]"),
    *("-1", "0", "0.5", "1e9", "NaN", "ASC%00", "%zz", *("9" * n for n in (19, 32, 33, 320))),
    *("a" * 128, "a" * 1280),
    "%D9%A1%D9%A2",  # digits, but not those of ASCII
]
"""For queries and paths, as they stand in the address."""
KINDS = [
    ("", b"{}"),
    ("text/plain", b"{}"),
    ("application/x-www-form-urlencoded", b"conversation_id=1&chat_id=1"),
    ("multipart/form-data", b"{}"),
    ("multipart/form-data; boundary=x", b"--x\r\n\r\n\r\n--x--\r\n"),
    ("application/xml", b"<a/>"),
    ("application/json; charset=utf-16", '{"a":"b"}'.encode("utf-16")),
    ("application/json\xff", b"{}"),
    (JSON_TYPE, b""),
]
"""Content types, and bodies of them."""


@dataclass(frozen=True, slots=True)
class Thrown:
    """One request. ``address``: path and query as they are sent."""

    route: str
    address: str
    content: bytes | None = None
    kind: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        body = self.content or b""
        shown = body if len(body) < 400 else body[:200] + b" ... " + body[-100:]
        return f"{self.route}: {self.address[:300]} {self.kind} {shown!r}"


class Table:
    """What is thrown, made of an owner's things and of somebody else's. The owner has nothing that matters:
    it may be renamed, cleared and deleted."""

    def __init__(self, own: Ids, foreign: list[Ids], *, share: int) -> None:
        """``share``: each place gets one of so many values of the table, in turn."""
        self.own = own
        self.foreign = sorted({quote(value, safe="") for ids in foreign for value in ids.values()})
        self.routes = calls(own)
        self._share = share
        self._turn = itertools.count()

    def _some(self, values: list[Any]) -> list[Any]:
        share = min(self._share, len(values))
        return values[next(self._turn) % share :: share]

    def _address(self, route: str, params: Json | None = None, **parts: str) -> str:
        path = route.split(" ")[1]
        values = {name: quote(value, safe="") for name, value in self.own.items()} | {"bot_id": BOT} | parts
        query = self.routes[route].get("params", {}) if params is None else params
        return path.format(**values) + (f"?{urlencode(query)}" if query else "")

    def bodies(self, grown_values: int) -> Iterator[Thrown]:
        """Each place of each body gets its values, and so many grown ones."""
        known, number = fixed(), itertools.count()
        for route, body in BODIES.items():
            address = self._address(route)
            for before, after in split_at_each_place(body):
                values = itertools.chain(
                    self._some(known), itertools.islice(grown(next(number)), grown_values)
                )
                for value in values:
                    yield Thrown(route, address, before + value + after, JSON_TYPE)

    def addresses(self) -> Iterator[Thrown]:
        """Each parameter of query and path: hostile, somebody else's, absent, twice, far too many."""
        for route, how in self.routes.items():
            content = json.dumps(how["json"]).encode() if "json" in how else None
            kind = JSON_TYPE if content is not None else None
            params = how.get("params", {})
            for name in params:
                others = {key: value for key, value in params.items() if key != name}
                rest = self._address(route, others)
                joint = "&" if "?" in rest else "?"
                for value in self._some([*ESCAPED, *self.foreign]):
                    yield Thrown(route, f"{rest}{joint}{name}={value}", content, kind)
                yield Thrown(route, rest, content, kind)
                for twice in self._some([params[name], *self.foreign]):
                    yield Thrown(route, f"{self._address(route)}&{name}={twice}", content, kind)
                many = "&".join(f"{name}={number}" for number in range(1000))
                yield Thrown(route, f"{rest}{joint}{many}", content, kind)
            for name in ("conversation_id", "message_id", "bot_id"):
                if f"{{{name}}}" in route:
                    for value in self._some([*ESCAPED, *self.foreign]):
                        yield Thrown(route, self._address(route, **{name: value}), content, kind)

    def kinds(self) -> Iterator[Thrown]:
        """Bodies of another type than the route takes, and in places where it takes none."""
        for route in self.routes:
            for kind, content in self._some(KINDS):
                yield Thrown(route, self._address(route), content, kind)
            for coding in self._some(["gzip", "br", "x"]):
                headers = {"Content-Encoding": coding}
                yield Thrown(route, self._address(route), b"{}", JSON_TYPE, headers)

    def large(self) -> Iterator[Thrown]:
        """Longer than may be: address, header, body."""
        for route in self._some(list(self.routes)):
            address = self._address(route)
            joint = "&" if "?" in address else "?"
            yield Thrown(route, f"{address}{joint}x={'a' * 60_000}")  # httpx itself takes no longer one
            yield Thrown(route, address, headers={"X-Long": "a" * 10 * MOST_HEAD_BYTES})
        for route in self._some(list(BODIES)):
            yield Thrown(route, self._address(route), b'{"a":"' + b"a" * 10 * MOST_BODY + b'"}', JSON_TYPE)


MOST_BODY = 1024 * 1024
"""Bytes of a body here: ten times the default would be ten seconds' work for the sender."""


class Thrower:
    """Sends what the table has and looks at each answer."""

    def __init__(self, caller: CozeCaller) -> None:
        self.caller = caller
        self.answers: Counter[tuple[str, int]] = Counter()
        self.chats: list[Ids] = []
        self.documented = {
            f"{operation.method} {operation.path.removeprefix('/coze/api')}": operation.statuses
            for operation in operations(create_app().openapi())
        }

    async def throw(self, thrown: Thrown) -> None:
        headers = {name: value.encode("latin-1") for name, value in thrown.headers.items()}
        if thrown.kind is not None:
            headers["Content-Type"] = thrown.kind.encode("latin-1")
        method = thrown.route.split(" ")[0]
        response = await self.caller.call(method, thrown.address, content=thrown.content, headers=headers)
        status = response.status_code
        assert status < 500, f"{status} to {thrown}: {response.text[:500]}"
        if response.headers["content-type"].startswith("text/event-stream"):
            code = 0
            assert events_of(response.content)[-1][0] in ("done", "error", "conversation.chat.failed"), thrown
        else:
            code = envelope_code(response.json(), thrown)
            # A wrong address is another route, or none at all; longer than may be is none of them either.
            told = status in self.documented[thrown.route] or (status in (404, 405) and code == 4200)
            assert told or (status in (414, 431) and code == 4000), f"{status} {code} to {thrown}"
        self.answers[thrown.route, code] += 1

    async def all(self, todo: Iterator[Thrown], lanes: int) -> int:
        """Over several connections at once; returns how many."""
        before = self.answers.total()

        async def work() -> None:
            for thrown in todo:
                await self.throw(thrown)

        async with asyncio.TaskGroup() as group:
            for _ in range(lanes):
                group.create_task(work())
        return self.answers.total() - before


def envelope_code(body: Any, thrown: Thrown) -> int:
    """Coze's envelope, with no word of the inside."""
    assert isinstance(body, dict), (thrown, body)
    assert set(body) <= {"code", "msg", "data", "detail", "first_id", "last_id", "has_more"}, (thrown, body)
    assert type(body["code"]) is int, (thrown, body)
    assert isinstance(body["msg"], str), (thrown, body)
    # Coze itself has no better word for some ids of a bot; ours is for what should not happen.
    assert body["code"] != 5000 or "Coze answered with code 5000" in body["msg"], (thrown, body)
    assert bool(body["msg"]) == (body["code"] != 0), (thrown, body)
    assert len(body["msg"]) < 4000, (thrown, body["msg"][:200])
    assert body["detail"]["logid"], (thrown, body)
    code: int = body["code"]
    return code


async def throw_all(
    service: ServiceProcess, *, share: int, grown_values: int, lanes: int = 4
) -> Counter[tuple[str, int]]:
    """Everything of the table; what the other app has is then as it was, and the service has not stumbled."""
    base = base_of(service)
    async with calling(base, KEY) as caller, calling(base, OTHER_KEY) as other:
        foreign = await settle_in(other, OVER, WAITS)
        states = [await seen(other, ids) for ids in foreign]
        thrower = Thrower(caller)
        for kind in ("addresses", "kinds", "large", "bodies"):
            [own] = await settle_in(caller, OVER)  # the one before may be deleted by now
            table = Table(own, foreign, share=share)
            todo = table.bodies(grown_values) if kind == "bodies" else getattr(table, kind)()
            assert await thrower.all(todo, lanes) > 0
        assert [await seen(other, ids) for ids in foreign] == states
    assert service.running
    assert "Traceback" not in service.log, service.log[-3000:]
    assert '"level": "ERROR"' not in service.log, service.log[-3000:]
    return thrower.answers


async def seen(owner: CozeCaller, ids: Ids) -> Any:
    """What an owner sees of a chat, its conversation and the messages in it."""
    where = {"conversation_id": ids["conversation_id"]}
    return [
        await owner.data("GET", "/v3/chat/retrieve", params=where | {"chat_id": ids["chat_id"]}),
        await owner.data("GET", "/v1/conversation/retrieve", params=where),
        await owner.data("GET", "/v1/conversation/message/list", params=where),
        await owner.data("GET", "/v1/files/retrieve", params={"file_id": ids["file_id"]}),
    ]


@pytest.fixture
def service(
    start_process: Callable[..., ServiceProcess], redis: RedisServer, simulator: SimControl
) -> ServiceProcess:
    return start_process(
        REDIS_URL=redis.url,
        COZE_LOG_LEVEL="WARNING",
        COZE_API_MAX_BODY_BYTES=str(MOST_BODY),
        MAX_FILE_BYTES=str(MOST_BODY),
        **VALUES,
    )


async def test_whatever_is_sent_to_a_route_is_answered_in_cozes_envelope_and_changes_nothing_of_others(
    service: ServiceProcess,
) -> None:
    """Each place gets its share of the values, in turn; the full run gives all to each."""
    answers = await throw_all(service, share=31, grown_values=0)
    assert {route for route, _ in answers} == set(calls(UNKNOWN))
    assert {code for _, code in answers} >= {0, 4000, 4002, 4200}


@pytest.mark.full
@pytest.mark.timeout(2400)
async def test_all_values_in_each_place_are_answered_in_cozes_envelope_and_change_nothing_of_others(
    service: ServiceProcess,
) -> None:
    answers = await throw_all(service, share=1, grown_values=30)
    assert answers.total() > 10_000
