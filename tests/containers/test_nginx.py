"""deploy/nginx/nginx.conf in a real nginx, in front of real replicas."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from coze_simulator import SIMULATOR_TOKEN
from tests.coze_clients.support import KEY, KEYS, asking, calling, comparable
from tests.support import (
    RedisServer,
    RunningApp,
    ServiceProcess,
    SimControl,
    block_until,
    data_of,
    error_of,
    free_port,
    open_client,
    service_process,
    wait_until,
)

from .podman import ROOT, adapted

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
SLOW = "[[sim:stall=2:{seconds};deltas=6;reasoning=0]]"


class Proxy:
    """nginx with the project's configuration; ``url`` is where it listens."""

    def __init__(self, directory: Path, replicas: list[int]) -> None:
        self.port = free_port()
        text = (ROOT / "deploy/nginx/nginx.conf").read_text()
        servers = " ".join(f"server 127.0.0.1:{port} max_fails=0;" for port in replicas)
        # What is of its container alone: places, the port, and the name server that finds the replicas.
        changes = {
            "include /tmp/resolver.conf;": f"upstream replicas {{ {servers} }}",
            "http://service:6000;": "http://replicas;",
            "listen 8080;": f"listen 127.0.0.1:{self.port};",
            "access_log /dev/stdout line;": f"access_log {directory}/access.log line;",
            "/tmp/nginx": f"{directory}/nginx",
            "worker_processes auto;": "worker_processes 1;",
        }
        text = adapted(text, changes)
        self.configuration = directory / "nginx.conf"
        self.configuration.write_text(("user root;\n" if os.geteuid() == 0 else "") + text)
        command = [str(NGINX), "-e", "stderr", "-c", str(self.configuration), "-g", "daemon off;"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def listens(self) -> bool:
        assert self.process.poll() is None, self.process.stderr and self.process.stderr.read()
        try:
            return httpx.get(f"{self.url}/coze/metrics", trust_env=False).status_code == 404
        except httpx.TransportError:
            return False

    def end(self) -> None:
        self.process.terminate()
        self.process.communicate(timeout=30)


@pytest.fixture
def start_proxy(tmp_path: Path) -> Iterator[Callable[..., Proxy]]:
    with ExitStack() as stack:

        def start(*replicas: int) -> Proxy:
            proxy = Proxy(tmp_path, list(replicas))
            stack.callback(proxy.end)
            block_until(proxy.listens, 30, 0.05)
            return proxy

        yield start


@pytest.fixture
def replicas(own_redis: RedisServer, simulator: SimControl) -> Iterator[list[ServiceProcess]]:
    """Two on one Redis. They have time for a drain."""
    values = {
        "REDIS_URL": own_redis.url,
        "COZE_API_URL": simulator.chat_url,
        "LEASE_SECONDS": "2",
        "DRAIN_SECONDS": "60",
    }
    with service_process(values) as one, service_process(values) as two:
        yield [one, two]


@pytest.fixture
def away(start_proxy: Callable[..., Proxy]) -> Proxy:
    """No replica is there."""
    return start_proxy(free_port(), free_port())


# -- a browser's EventSource -------------------------------------------------------------------------------


class EventSource:
    """As the HTML standard says: any answer but 200 with an event stream is the end; ``retry`` is obeyed."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.answers: list[int] = []
        self.waits: list[int] = []
        self.events: list[str] = []
        self.last_id = ""
        self.connected = asyncio.Event()

    async def read_to(self, event: str) -> None:
        retry = 100
        async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
            while event not in self.events:
                headers = {"Accept": "text/event-stream", "Cache-Control": "no-cache"}
                if self.last_id:
                    headers["Last-Event-ID"] = self.last_id
                try:
                    async with http.stream("GET", self.url, headers=headers) as response:
                        self.answers.append(response.status_code)
                        assert response.status_code == 200, "it gives up for good"
                        assert response.headers["content-type"].startswith("text/event-stream")
                        async for line in response.aiter_lines():
                            field, _, value = line.partition(":")
                            if field == "event":
                                self.events.append(value.strip())
                                self.connected.set()
                            elif field == "id":
                                self.last_id = value.strip()
                            elif field == "retry":
                                retry = int(value)
                except httpx.TransportError:
                    pass  # a connection that broke is not an answer
                self.waits.append(retry)
                await asyncio.sleep(retry / 1000)


@pytest.mark.full
async def test_an_event_source_comes_back_after_the_only_replica_was_restarted(
    replicas: list[ServiceProcess], start_proxy: Callable[..., Proxy]
) -> None:
    only, other = replicas
    other.stop()
    proxy = start_proxy(only.port)
    async with open_client(proxy.url) as client:
        session = await client.open_session()
        chat_id = await client.start(session, f"wait for me {SLOW.format(seconds=12)}")
        source = EventSource(f"{proxy.url}/coze/chats/{chat_id}/events")
        reading = asyncio.create_task(source.read_to("done"))
        await asyncio.wait_for(source.connected.wait(), 30)
        only.kill()
        refused = len(source.answers)
        await wait_until(lambda: len(source.answers) > refused or reading.done(), 30)
        assert not reading.done(), "it got no replica, and goes on"
        assert source.waits[-1] == 3000
        await asyncio.to_thread(only.start)
        await asyncio.wait_for(reading, 60)
        assert set(source.answers) == {200}
        assert (await client.ended(chat_id))["status"] == "completed"


async def test_without_a_replica_an_event_source_is_told_to_wait_and_others_are_told_why(away: Proxy) -> None:
    async with open_client(away.url) as client:
        path = "/coze/chats/coze_chat_x/events"
        waits = await client.get(path, headers={"Accept": "text/event-stream"})
        assert (waits.status_code, waits.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        assert waits.text == ": no replica can answer now\nretry: 3000\n\n"
        told = await client.get(path)
        assert (told.status_code, error_of(told)["code"]) == (502, "BAD_GATEWAY")
        assert error_of(told)["retryable"] is True
        posted = await client.post(path, headers={"Accept": "text/event-stream"})
        assert posted.status_code == 502, "only a GET is an EventSource's"


@pytest.mark.full
async def test_what_the_service_refuses_reaches_readers_of_events_as_it_is(
    replicas: list[ServiceProcess], start_proxy: Callable[..., Proxy], own_redis: RedisServer
) -> None:
    proxy = start_proxy(*(each.port for each in replicas))
    path, browser = "/coze/chats/coze_chat_unknown/events", {"Accept": "text/event-stream"}
    async with open_client(proxy.url) as client:
        unknown = await client.get(path, headers=browser)
        assert (unknown.status_code, error_of(unknown)["code"]) == (404, "COZE_CHAT_NOT_FOUND"), "final"
        chat_id = await client.start(await client.open_session(), "hello")
        await client.ended(chat_id)
        path = f"/coze/chats/{chat_id[:-1]}{'b' if chat_id[-1] == 'a' else 'a'}/events"
        own_redis.kill()
        told = await client.get(path)
        assert told.status_code == 503
        assert error_of(told)["code"] != "BAD_GATEWAY"
        assert (await client.get(path, headers=browser)).text.endswith("retry: 3000\n\n")
        own_redis.start()


# -- replicas that leave -----------------------------------------------------------------------------------


@pytest.mark.full
async def test_nothing_fails_while_a_replica_drains_not_even_a_post(
    replicas: list[ServiceProcess], start_proxy: Callable[..., Proxy]
) -> None:
    leaving, staying = replicas
    proxy = start_proxy(leaving.port, staying.port)
    async with open_client(leaving.base_url) as direct, open_client(proxy.url) as client:
        session = await direct.open_session("holds it")
        await direct.start(session, f"slow {SLOW.format(seconds=60)}")
        leaving.terminate()
        await wait_until(lambda: _drains(direct.http), 20)
        for number in range(12):
            opened = await client.open_session(f"u-{number}")
            answer = await client.send(opened, "hello [[sim:deltas=2]]")
            assert (answer.status_code, data_of(answer)["status"]) == (200, "completed")
        assert await _drains(direct.http), "all that happened while it was leaving"
        refused = await direct.post("/coze/sessions", json={"user_id": "u"})
        assert (refused.status_code, error_of(refused)["code"]) == (503, "SHUTTING_DOWN")
        assert "x-accel-redirect" not in refused.headers

        # Where all of them leave, the caller gets the service's own words.
        other = await client.open_session("holds the other")
        async with open_client(staying.base_url) as second:
            await second.start(other, f"slow {SLOW.format(seconds=60)}")
            staying.terminate()
            await wait_until(lambda: _drains(second.http), 20)
            refused = await client.post("/coze/sessions", json={"user_id": "u"})
            assert (refused.status_code, error_of(refused)["code"]) == (503, "SHUTTING_DOWN")
            assert "x-accel-redirect" not in refused.headers


async def _drains(http: httpx.AsyncClient) -> bool:
    try:
        ready = await http.get("/coze/health/ready")
    except httpx.TransportError:
        return False
    return ready.status_code == 503 and error_of(ready)["code"] == "SHUTTING_DOWN"


# -- Coze's own SDKs ---------------------------------------------------------------------------------------


@pytest.fixture
def coze_door(
    start_app: Callable[..., RunningApp], redis: RedisServer, start_proxy: Callable[..., Proxy]
) -> tuple[RunningApp, Proxy]:
    service = start_app(REDIS_URL=redis.url, COZE_API_KEYS=KEYS, ENABLE_AUTH="true")
    return service, start_proxy(int(service.base_url.rpartition(":")[2]))


@pytest.mark.parametrize(
    "message", ["hello", "[[sim:chunk=1;text=hi;followups=0]] hello", "[[sim:error_at=3]] hello"]
)
async def test_a_stream_of_cozes_door_passes_nginx_byte_for_byte(
    coze_door: tuple[RunningApp, Proxy], simulator: SimControl, message: str
) -> None:
    service, proxy = coze_door
    streams = []
    for base, token in (
        (f"{proxy.url}/coze/api", KEY),
        (f"{service.base_url}/coze/api", KEY),
        (simulator.running.base_url, SIMULATOR_TOKEN),
    ):
        async with calling(base, token) as caller:
            streams.append(comparable(await caller.chat(message)))
    assert streams[0] == streams[1] == streams[2]
    assert streams[0].count(b"event:") > 2


async def test_a_stream_of_cozes_door_is_passed_on_while_it_comes(
    coze_door: tuple[RunningApp, Proxy],
) -> None:
    service, proxy = coze_door
    async with calling(f"{proxy.url}/coze/api", KEY) as caller, open_client(service.base_url) as direct:
        async with caller.streaming(asking(SLOW.format(seconds=3) + " hello")) as response:
            seen, running = b"", -1.0
            async for piece in response.aiter_raw():
                seen += piece
                if running < 0 and b"event:conversation.message.delta" in seen:
                    running = await direct.running_chats()
        assert running == 1, "a delta was here before the answer was whole"
        assert b"[DONE]" in seen


async def test_bodies_of_cozes_sdks_may_be_larger_and_are_refused_in_its_words(
    coze_door: tuple[RunningApp, Proxy],
) -> None:
    _, proxy = coze_door
    async with calling(f"{proxy.url}/coze/api", KEY) as caller:
        large = await caller.call("POST", "/v3/chat", content=b"x" * (15 << 20))
        assert large.json()["code"] == 4000
        assert "too large" not in large.json()["msg"], "the service has read it: it is no JSON"
        too_large = await caller.call("POST", "/v3/chat", content=b"x" * (18 << 20))
        assert (too_large.status_code, too_large.json()["code"]) == (200, 4000)
        assert too_large.json()["msg"] == "The request body is too large."


# -- bodies pass through -----------------------------------------------------------------------------------

ARRIVES = [
    ("/coze/sessions", b"Content-Length: 1500000"),
    ("/coze/openai/v1/responses", b"Content-Length: 17000000"),
    ("/coze/api/v3/chat", b"Content-Length: 16000000"),
    ("/coze/chats/coze_chat_x/events", b"Content-Length: 1500000"),
    ("/coze/sessions", b"Transfer-Encoding: chunked"),
    ("/coze/openai/v1/responses", b"Transfer-Encoding: chunked"),
]


@pytest.mark.parametrize(("path", "length"), ARRIVES)
async def test_a_body_without_credentials_is_refused_while_it_arrives_and_kept_nowhere(
    coze_door: tuple[RunningApp, Proxy], path: str, length: bytes
) -> None:
    """The service looks at credentials first: that only helps if it hears of the request."""
    _, proxy = coze_door
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        head = b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n%b\r\n\r\n"
        piece = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"  # as it stands, or as a chunk
        writer.write(head % (path.encode(), length) + piece * 4)
        status = await asyncio.wait_for(reader.readline(), 10)
        assert status.split()[1] in (b"401", b"405"), status
        assert kept_by(proxy) == []
    finally:
        writer.close()


def kept_by(proxy: Proxy) -> list[str]:
    """Open files of bodies and answers, which have no name any more."""
    children = Path(f"/proc/{proxy.process.pid}/task/{proxy.process.pid}/children").read_text().split()
    opened = (each for child in children for each in Path(f"/proc/{child}/fd").iterdir())
    prefix = f"{proxy.configuration.parent}/nginx-"
    return [name for each in opened if (name := str(each.readlink())).startswith(prefix)]


@pytest.mark.parametrize("size", [1_000, 9_990, 50_000, 500_000])
@pytest.mark.parametrize("chunked", [False, True])
async def test_bodies_of_any_size_arrive_whole(
    coze_door: tuple[RunningApp, Proxy], simulator: SimControl, size: int, chunked: bool
) -> None:
    _, proxy = coze_door
    body = json.dumps(asking("hello", parameters={"a": "x" * size})).encode()

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(body), 4096):
            yield body[at : at + 4096]

    async with calling(f"{proxy.url}/coze/api", KEY) as caller:
        content = pieces() if chunked else body
        answer = await caller.call(
            "POST", "/v3/chat", content=content, headers={"Content-Type": "application/json"}
        )
    assert b"conversation.chat.completed" in answer.content


# -- nginx's own answers -----------------------------------------------------------------------------------


async def test_where_no_replica_answers_each_dialect_is_told_in_its_own_words(away: Proxy) -> None:
    async with open_client(away.url) as client:
        ours = await client.post("/coze/sessions", json={"user_id": "u"})
        assert (ours.status_code, error_of(ours)["code"]) == (502, "BAD_GATEWAY")
        assert ours.headers["retry-after"] == "1"
        assert ours.headers["x-request-id"] == error_of(ours)["request_id"]
        openai = await client.post("/coze/openai/v1/chat/completions", json={})
        assert (openai.status_code, openai.json()["error"]["code"]) == (502, "bad_gateway")
        assert openai.headers["x-should-retry"] == "false"
        coze = await client.post("/coze/api/v3/chat", json={})
        assert (coze.status_code, coze.json()["code"]) == (503, 5000)


async def test_metrics_are_not_for_everybody(away: Proxy) -> None:
    async with open_client(away.url) as client:
        answer = await client.get("/coze/metrics")
        assert (answer.status_code, error_of(answer)["code"]) == (404, "NOT_FOUND")
