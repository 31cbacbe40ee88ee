"""Callers of two tenants, what each of them owns, and a walk through the published OpenAPI."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx

from coze_simulator.auth_server import RunningAuth
from tests.support import Client, RedisServer, RunningApp, data_of, mask, open_client, wait_until

USER = "u-1"
"""Every caller calls its user so: what keeps them apart is the owner, not the name."""
UNKNOWN = {
    "session_id": "coze_session_1795372833115_7l4mgyuf3lw2iispuvavf",
    "chat_id": "coze_chat_1795372834470_7gdps4qxt4cw5d2pknkytgwpw6mvfvekbqjatrh3n",
    "file_id": "coze_file_1795372832906_7l4mgyuf3lw2iispuvavf",
    "conversation_id": "7380000000000000001",
    "user_id": "nobody-of-this-name",
    "response_id": "resp_coze_chat_1795372834470_7gdps4qxt4cw5d2pknkytgwpw6mvfvekbqjatrh3n",
}
PUBLIC = {"/", "/coze/health", "/coze/health/live", "/coze/health/ready", "/coze/metrics"}
"""All that answers without a token."""
PLAIN_QUERIES = {"history_limit", "limit", "before", "wait", "after", "include_sessions"}
PLAIN_QUERIES |= {"user_id", "session_id", "order", "from", "to", "group_by"}
PLAIN_QUERIES |= {"stream", "starting_after"}
"""Query parameters that name nothing of anybody's, and ``before`` and ``session_id``, which have tests of
their own."""
A_FILE = {"file": ("a.txt", b"a file of the test")}
_VOLATILE = re.compile(r":leases$|:bell:|:inbox:|:rate:|^coze:rate:|:process|:replicas$")


@dataclass(frozen=True, slots=True)
class Who:
    """A caller as the auth service knows it."""

    name: str
    root: str
    hty_id: str | None
    roles: tuple[str, ...] = ()

    def headers(self, auth: RunningAuth, host: str | None = None) -> dict[str, str]:
        token = auth.app.issue(self.hty_id, self.roles or None)
        return {"HtySudoerToken": token, "HtyHost": host or f"music.{self.root}"}


ALICE = Who("alice", "moicen.com", "alice")
BOB = Who("bob", "moicen.com", "bob")
ALICE_ELSEWHERE = Who("alice of another tenant", "huiwings.cn", "alice")
BOB_ELSEWHERE = Who("bob of another tenant", "huiwings.cn", "bob")
NO_PERSON = Who("a token without a person", "moicen.com", None)
TESTER = Who("a tester", "moicen.com", "tess", ("TESTER",))
ADMIN = Who("the tenant's admin", "moicen.com", "anna", ("ADMIN",))
ADMIN_ELSEWHERE = Who("another tenant's admin", "huiwings.cn", "anna", ("ROOT", "ADMIN"))

OWNERS = (ALICE, BOB, ALICE_ELSEWHERE, BOB_ELSEWHERE)


@asynccontextmanager
async def calling(
    service: RunningApp, auth: RunningAuth, *callers: Who, **options: Any
) -> AsyncIterator[list[Client]]:
    """A client for each caller."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                open_client(service.base_url, headers=caller.headers(auth), **options)
            )
            for caller in callers
        ]


# -- what somebody owns ------------------------------------------------------------------------------------


@dataclass(slots=True)
class Belongings:
    """Sessions and chats, one of each state, a file and a response of OpenAI's API."""

    sessions: list[str] = field(default_factory=list)
    chats: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    conversations: list[str] = field(default_factory=list)
    responses: list[str] = field(default_factory=list)
    running: str = ""

    def named(self, parameter: str) -> list[str]:
        named = {"session_id": self.sessions, "chat_id": self.chats, "file_id": self.files}
        named["conversation_id"] = self.conversations
        named["response_id"] = self.responses
        return named.get(parameter, [USER])


async def settle_in(client: Client, user_id: str = USER) -> Belongings:
    """A chat that is over, one that waits for tool outputs, one that runs; each in its own session."""
    own = Belongings()
    for message in ("hello", "[[sim:requires_action=function]] weather?", "[[sim:delay=100]] slow"):
        session_id = await client.open_session(user_id)
        chat_id = await client.start(session_id, message)
        own.sessions.append(session_id)
        own.chats.append(chat_id)
        if "delay" not in message:
            await client.ended(chat_id)
    own.running = own.chats[-1]
    uploaded = await client.post("/coze/files", files=A_FILE, params={"user_id": user_id})
    own.files.append(data_of(uploaded)["file_id"])
    body = {"model": "coze", "input": "hello", "user": user_id}
    own.responses.append((await client.post("/coze/openai/v1/responses", json=body)).json()["id"])
    async with client.streaming("GET", f"/coze/chats/{own.running}/events") as reader:
        await reader.until("conversation.chat.in_progress")

    async def listed() -> list[str]:
        page = data_of(await client.get(f"/coze/users/{quote(user_id, safe='')}/conversations"))
        return [each["conversation_id"] for each in page["conversations"]]

    own.conversations = await wait_until(listed)  # written down behind a chat's end
    return own


def contents(redis: RedisServer) -> dict[str, Any]:
    """Everything in Redis but what time alone changes (leases, token buckets, doorbells)."""
    found: dict[str, Any] = {}
    with redis.client() as client:
        for key in client.scan_iter(count=1000):
            name = key.decode()
            if _VOLATILE.search(name):
                continue
            kind = client.type(key)
            reader: Any = {
                b"string": client.get,
                b"hash": client.hgetall,
                b"set": client.smembers,
                b"list": lambda k: client.lrange(k, 0, -1),
                b"zset": lambda k: client.zrange(k, 0, -1, withscores=True),
                b"stream": client.xrange,
            }[kind]
            found[name] = reader(key)
    return found


def settled_contents(redis: RedisServer) -> dict[str, Any]:
    """The same, once two looks in a row agree."""
    before = contents(redis)
    while (now := contents(redis)) != before:
        before = now
    return now


# -- the published OpenAPI ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Operation:
    """One route, as the document describes it. ``ids``: names of its path parameters, the last of which names
    what it is about."""

    method: str
    path: str
    ids: tuple[str, ...]
    queries: tuple[str, ...]
    body: Any
    upload: bool
    streams: bool
    statuses: frozenset[int]

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def for_admins(self) -> bool:
        """Everybody else is refused before the id is looked at."""
        return self.path.startswith("/coze/admin/")

    def url(self, **values: str) -> str:
        return self.path.format(**values)

    def bodies(self) -> list[Any]:
        """None where it takes none; else the document's example, also as a stream where there are streams."""
        if self.body is None:
            return [None]
        return [self.body, {**self.body, "stream": True}] if self.streams else [self.body]


def operations(document: dict[str, Any]) -> Iterator[Operation]:
    schemas = document["components"]["schemas"]
    for path, methods in document["paths"].items():
        for method, described in methods.items():
            body, content = None, described.get("requestBody", {}).get("content", {})
            if "application/json" in content:
                reference = content["application/json"]["schema"]["$ref"]
                body = schemas[reference.rsplit("/", 1)[1]]["examples"][0]
            parameters = described.get("parameters", [])
            yield Operation(
                method=method.upper(),
                path=path,
                ids=tuple(re.findall(r"{(\w+)}", path)),
                queries=tuple(p["name"] for p in parameters if p["in"] == "query"),
                body=body,
                upload="multipart/form-data" in content,
                streams=body is not None and "stream" in body,
                statuses=frozenset(int(status) for status in described["responses"]),
            )


async def ask(client: Client, operation: Operation, body: Any = None, **values: str) -> httpx.Response:
    """Calls the operation; a stream is read to its end."""
    form = {"files": A_FILE} if operation.upload else {"json": body}
    return await client.http.request(operation.method, operation.url(**values), **form)


def comparable(response: httpx.Response, *echoes: str) -> dict[str, Any]:
    """What a caller can see of an answer, without what differs between any two answers. ``echoes``: what the
    caller itself wrote into the address."""
    text = response.text
    for echo in echoes:
        text = text.replace(echo, "<given>")
    headers = {
        name: value
        for name, value in response.headers.items()
        if name not in ("date", "x-request-id", "content-length", "server-timing")
    }
    try:
        body = mask(json.loads(text))
    except ValueError:
        body = text
    return {"status": response.status_code, "headers": headers, "body": body}
