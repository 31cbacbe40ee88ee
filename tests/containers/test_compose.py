"""podman-compose.yml for real: nginx, two replicas, Redis on disk. Replicas die under load, all restarts."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import statistics
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import yaml

from coze_simulator import SIMULATOR_BOT_ID, SIMULATOR_TOKEN
from tests.docs.pages import blocks
from tests.support import Client, block_until, data_of, error_of, free_port, open_client, wait_until

from .podman import ROOT, Leftovers, compose_command, env_file, inspect, ok, podman, run, unique

pytestmark = [pytest.mark.containers, pytest.mark.full, pytest.mark.timeout(1500)]

SLOW = "[[sim:stall=2:{seconds};deltas=6;reasoning=0]]"


@dataclass
class Stack:
    """One set-up of podman-compose.yml with a Coze beside it."""

    name: str
    files: list[Path]
    environment: dict[str, str]
    port: int
    program: str
    settings: Path
    removed: set[str] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def compose(self, *arguments: str) -> str:
        files = [part for file in self.files for part in ("-f", str(file))]
        return ok(self.program, "-p", self.name, *files, *arguments, timeout=180, **self.environment)

    def up(self) -> None:
        self.compose("up", "-d")
        block_until(lambda: len(names := self.replicas()) == 2 and all(map(self.health, names)), 240, 1)

    def replicas(self) -> list[str]:
        out = podman("ps", "--filter", f"name={self.name}_service_", "--format", "{{.Names}}")
        return sorted(out.split())

    def health(self, container: str) -> dict[str, object] | None:
        done = run(
            *["podman", "exec", container, "curl", "-fsS", "--max-time", "3"],
            "http://127.0.0.1:6000/coze/health",
        )
        data: dict[str, object] = json.loads(done.stdout)["data"] if done.returncode == 0 else {}
        return data or None

    def busiest(self) -> str:
        """The replica with the most running chats."""
        running = {one: (self.health(one) or {}).get("running_chats", 0) for one in self.replicas()}
        return max(running, key=lambda one: int(str(running[one])))


@pytest.fixture
def stack(image: str, made: Leftovers, simulator_network: str, tmp_path: Path) -> Stack:
    program = compose_command()
    if program is None:
        pytest.skip("podman-compose is not installed (or PODMAN_COMPOSE does not name it)")
    name, port = unique("stack"), free_port()
    values = {
        "COZE_API_TOKEN": SIMULATOR_TOKEN,
        "COZE_BOT_ID": SIMULATOR_BOT_ID,
        "COZE_API_URL": "http://coze-sim:5000/coze/v3/chat",
        "ENABLE_AUTH": "false",
        "LEASE_SECONDS": "3",
        "RATE_LIMIT_MESSAGES_PER_MINUTE": "0",
        "RATE_LIMIT_SESSIONS_PER_MINUTE": "0",
        "COZE_LOG_LEVEL": "WARNING",
    }
    override = tmp_path / "coze.yml"  # only: where the Coze of this test is
    networks = {"coze": {"external": True, "name": simulator_network}}
    services = {"service": {"networks": ["inside", "outside", "coze"]}}
    override.write_text(yaml.safe_dump({"services": services, "networks": networks}))
    environment = {
        "COZE_IMAGE": image,
        "HOST_PORT": f"127.0.0.1:{port}",
    }
    # Under a name of this test's own: the file has that of the machine's real settings.
    secret = f"{name}-settings"
    settings = env_file(tmp_path / "service.env", values)
    podman("secret", "create", secret, str(settings))
    made.secrets.append(secret)
    compose = tmp_path / "podman-compose.yml"
    text = (ROOT / "podman-compose.yml").read_text()
    compose.write_text(text.replace("coze-fastapi-settings", secret))
    stack = Stack(name, [compose, override], environment, port, program, settings)
    parts = ["redis_1", "proxy_1", *[f"service_{number}" for number in (1, 2, 3)]]
    made.containers += [f"{name}_{part}" for part in parts]
    made.volumes.append(f"{name}_redis-data")
    made.networks += [f"{name}_inside", f"{name}_outside"]
    stack.up()
    return stack


# -- a client that does what the pages tell clients to do --------------------------------------------------


@dataclass
class Caller:
    """Sends a message and does not give up: the same key, the last id. Notes what it went through."""

    client: Client
    session: str

    async def ask(self, message: str, key: str) -> dict[str, object]:
        chat_id, last, deadline = "", None, time.monotonic() + 90
        path = f"/coze/sessions/{self.session}/messages"
        while True:
            assert time.monotonic() < deadline, f"no answer to {key}"
            try:
                if not chat_id:
                    opened = self.client.http.stream(
                        "POST",
                        path,
                        json={"message": message, "stream": True},
                        headers={"Idempotency-Key": key},
                    )
                else:
                    headers = {} if last is None else {"Last-Event-ID": last}
                    opened = self.client.http.stream("GET", f"/coze/chats/{chat_id}/events", headers=headers)
                async with opened as response:
                    if response.status_code != 200:
                        await response.aread()
                        assert response.status_code in (502, 503, 504), response.text
                        assert error_of(response)["retryable"] is True
                        await asyncio.sleep(0.3)
                        continue
                    chat_id = response.headers["x-coze-chat-id"]
                    async for line in response.aiter_lines():
                        if line.startswith("id:"):
                            last = line[3:].strip()
                        elif line == "event: done":
                            return data_of(await self.client.result(chat_id, wait=5))
            except httpx.TransportError:
                await asyncio.sleep(0.2)


async def load(stack: Stack, client: Client, users: int, rounds: int, tag: str) -> list[dict[str, object]]:
    callers = [Caller(client, await client.open_session(f"{tag}-{number}")) for number in range(users)]

    async def work(number: int, caller: Caller) -> list[dict[str, object]]:
        return [
            await caller.ask(f"{tag} {number} {turn} {SLOW.format(seconds=2)}", f"{tag}-{number}-{turn}")
            for turn in range(rounds)
        ]

    answers = await asyncio.gather(*(work(number, caller) for number, caller in enumerate(callers)))
    for caller in callers:
        session = await client.session(caller.session)
        assert session["chat_count"] == rounds, "a message ran twice, or was lost"
    return [answer for some in answers for answer in some]


async def test_streams_arrive_frame_by_frame_through_nginx(stack: Stack) -> None:
    async with open_client(stack.url) as client:
        session = await client.open_session()
        async with client.stream(session, "tell me more") as reader:
            assert "content-length" not in reader.response.headers
            arrived = [
                time.monotonic() async for event in reader if event.event == "conversation.message.delta"
            ]
        gaps = [b - a for a, b in itertools.pairwise(arrived)]
        median, longest = statistics.median(gaps), max(gaps)
        # The simulator writes one every 50 ms; what is buffered would come at once.
        assert len(gaps) > 10
        assert median > 0.02
        assert longest < 0.5 * sum(gaps)
        assert "server" not in reader.response.headers or "/" not in reader.response.headers["server"]
        too_big = await client.post("/coze/sessions", content=b"x" * (3 << 20))
        assert (too_big.status_code, error_of(too_big)["code"]) == (413, "BODY_TOO_LARGE")
        strange = await client.get("/", headers={"X-Request-Id": 'a"}b'})
        assert strange.headers["x-request-id"].isalnum()


async def test_no_answer_is_lost_when_replicas_are_killed_and_stopped(stack: Stack) -> None:
    async with open_client(stack.url, timeout=60) as client:
        work = asyncio.create_task(load(stack, client, users=12, rounds=4, tag="killed"))
        await wait_until(
            lambda: sum(int(str((stack.health(r) or {})["running_chats"])) for r in stack.replicas()) > 5,
            30,
            0.2,
        )
        victim = await asyncio.to_thread(stack.busiest)
        await asyncio.to_thread(podman, "kill", victim)
        await asyncio.to_thread(podman, "rm", "--force", victim)
        answers = await work
        assert len(answers) == 48
        lost = [answer for answer in answers if answer["status"] != "completed" or not answer["content"]]
        assert lost == []

        # The removed one comes back, and takes its share without a reload of nginx.
        await asyncio.to_thread(stack.up)
        session = await client.open_session("leaving")
        running = [
            await client.start(await client.open_session(f"l-{n}"), f"left {n} {SLOW.format(seconds=8)}")
            for n in range(6)
        ]
        async with client.stream(session, f"leaving {SLOW.format(seconds=8)}") as reader:
            await reader.until("conversation.message.delta")
            leaving = await asyncio.to_thread(stack.busiest)
            await asyncio.to_thread(podman, "stop", "-t", "35", leaving)
            # 137: killed, after podman had waited for it
            assert inspect("container", leaving)["State"]["ExitCode"] != 137
            running.append(reader.chat_id)
        for chat_id in running:
            chat = await client.ended(chat_id, timeout=60)
            assert (chat["status"], bool(chat["content"])) == ("completed", True)


async def test_the_whole_is_restarted_and_sessions_and_running_chats_are_still_there(stack: Stack) -> None:
    async with open_client(stack.url, timeout=60) as client:
        sessions = [await client.open_session(f"r-{number}") for number in range(5)]
        for session in sessions:
            assert (await client.send(session, "before [[sim:deltas=3]]")).status_code == 200
        running = await client.start(sessions[0], f"over the restart {SLOW.format(seconds=6)}")
        await asyncio.to_thread(stack.compose, "down")
        await asyncio.to_thread(stack.up)
        chat = await client.ended(running, timeout=60)
        assert chat["status"] == "completed"
        assert "over the restart" in chat["content"]
        for session in sessions:
            found = await client.session(session)
            assert found["chat_history"][-1]["content"]
            assert (await client.send(session, "after [[sim:deltas=3]]")).status_code == 200


async def test_down_waits_for_an_answer_that_coze_does_not_keep(stack: Stack) -> None:
    """podman-compose stops all containers at once, and Coze would not tell this answer a second time."""
    async with open_client(stack.url, timeout=60) as client:
        session = await client.open_session("paid", auto_save_history=False)
        chat_id = await client.start(session, f"paid for {SLOW.format(seconds=7)}")
        await asyncio.to_thread(stack.compose, "down")
        await asyncio.to_thread(stack.up)
        chat = await client.ended(chat_id, timeout=60)
        assert (chat["status"], chat["recovered"]) == ("completed", False)
        assert "paid for" in chat["content"]


async def test_replicas_are_replaced_without_a_failed_request_or_a_lost_answer(
    stack: Stack, project: Path
) -> None:
    def replace(**environment: str) -> subprocess.CompletedProcess[str]:
        files = [part for file in stack.files for part in ("-f", file)]
        more = stack.environment | {"PODMAN_COMPOSE": stack.program} | environment
        script = project / "podman-replace.sh"
        return run(script, "-p", stack.name, *files, cwd=project, timeout=900, **more)

    def identities() -> set[str]:
        return {inspect("container", name)["Id"] for name in stack.replicas()}

    values = dict(line.split("=", 1) for line in stack.settings.read_text().splitlines())
    before = identities()
    statuses: Counter[int | str] = Counter()
    over = asyncio.Event()

    async def probe(client: Client, number: int) -> None:
        """A GET, two POSTs and a streamed answer, again and again."""
        while not over.is_set():
            try:
                session = await client.open_session(f"probe-{number}")
                got = await client.get(f"/coze/sessions/{session}")
                sent = await client.send(session, "hello [[sim:deltas=2]]")
                statuses.update([got.status_code, sent.status_code])
            except (AssertionError, httpx.TransportError) as error:
                statuses.update([repr(error)[:300]])
            await asyncio.sleep(0.1)

    async with open_client(stack.url, timeout=60) as client:
        probes = [asyncio.create_task(probe(client, number)) for number in range(3)]
        # Settings with which no service starts: nothing is replaced.
        env_file(project / ".env", values | {"MAX_OPEN_STREAMS": "none of it"})
        refused = await asyncio.to_thread(replace)
        assert refused.returncode == 1
        assert "MAX_OPEN_STREAMS" in refused.stderr
        assert "Nothing was replaced" in refused.stderr
        assert identities() == before

        sessions = [await client.open_session(f"s-{n}", auto_save_history=False) for n in range(4)]
        running = [await client.start(each, f"mine {SLOW.format(seconds=12)}") for each in sessions]
        env_file(project / ".env", values | {"COZE_MAX_MESSAGE_LENGTH": "100"})
        done = await asyncio.to_thread(replace)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Replaced: 2 replicas. 2 run." in done.stdout
        over.set()
        await asyncio.gather(*probes)
        assert set(statuses) == {200}, statuses
        assert statuses[200] > 40
        assert len(identities()) == 2
        assert not identities() & before
        for chat_id in running:
            chat = await client.ended(chat_id, timeout=60)
            assert (chat["status"], chat["recovered"]) == ("completed", False)
        too_long = await client.send(sessions[0], "x" * 101)
        assert too_long.status_code == 400, "the edited .env holds"
        # What a plain `up` would do from here on: nothing.
        now = identities()
        await asyncio.to_thread(stack.up)
        assert identities() == now


async def test_a_snapshot_of_the_page_is_taken_while_it_runs_and_restored(
    stack: Stack, tmp_path: Path
) -> None:
    backup, restore = (
        block.text
        for block in blocks(ROOT / "docs/en/backup.md", "bash")
        if "coze-fastapi_redis_1" in block.text
    )
    redis, file = f"{stack.name}_redis_1", tmp_path / "backup.rdb"

    def follow(commands: str) -> str:
        """The page's commands, but for podman-compose's, which are about this stack."""
        said = ""
        for line in commands.replace("coze-fastapi_redis_1", redis).splitlines():
            command = re.sub(r'"coze-[^"]*\.rdb"|\bcoze-\d+-\d+\.rdb', str(file), line)
            if line.startswith("podman-compose"):
                stack.compose(*line.split()[3:])
            else:
                said += ok("bash", "-euc", command)
        return said

    async with open_client(stack.url, timeout=60) as client:
        session = await client.open_session("of yesterday")
        answer = data_of(await client.send(session, "remember me [[sim:deltas=3]]"))
        await asyncio.to_thread(follow, backup)
        later = await client.open_session("of today")
        assert "Restored." in await asyncio.to_thread(follow, restore)
        await asyncio.to_thread(stack.up)
        found = await client.session(session)
        assert found["chat_history"][-1]["content"] == answer["content"]
        assert (await client.get(f"/coze/sessions/{later}")).status_code == 404
        assert (await client.send(session, "and go on [[sim:deltas=3]]")).status_code == 200


def test_each_replica_can_be_scraped_by_its_own_address(stack: Stack) -> None:
    """As Prometheus on the same network finds them: dns_sd_configs, names: [service], type: A, port: 6000."""
    code = "import socket as s; print(*{each[4][0] for each in s.getaddrinfo('service', 6000, s.AF_INET)})"
    looking = ["podman", "run", "--rm", "--no-healthcheck", "--network", f"{stack.name}_outside"]
    image = f"{stack.environment['COZE_IMAGE']}:latest"
    addresses = ok(*looking, image, "python", "-c", code).split()
    assert len(addresses) == 2
    for address in addresses:
        text = ok(*looking, image, "curl", "-fsS", f"http://{address}:6000/coze/metrics")
        assert "coze_running_chats" in text


def test_health_checks_of_all_parts_pass(stack: Stack) -> None:
    for part in ("redis_1", "service_1", "service_2", "proxy_1"):
        assert run("podman", "healthcheck", "run", f"{stack.name}_{part}").returncode == 0, part
    published = podman("ps", "--filter", f"name={stack.name}_", "--format", "{{.Names}} {{.Ports}}")
    assert [line for line in published.splitlines() if "->" in line] == [
        f"{stack.name}_proxy_1 127.0.0.1:{stack.port}->8080/tcp"
    ]


def test_the_development_file_starts_what_the_script_starts(
    image: str, made: Leftovers, project: Path
) -> None:
    program = compose_command()
    if program is None:
        pytest.skip("podman-compose is not installed (or PODMAN_COMPOSE does not name it)")
    name, port = unique("dev"), free_port()
    made.containers.append(name)
    made.volumes.append(f"{name}_dev-data")
    made.networks.append(f"{name}_default")
    environment = {"COZE_IMAGE": f"{image}:latest", "COZE_CONTAINER": name, "HOST_PORT": f"127.0.0.1:{port}"}
    command = [program, "-p", name, "-f", "podman-compose_dev.yml"]
    ok(*command, "up", "-d", cwd=project, **environment)
    assert "is up (test mode)" in podman("exec", name, "./run-service.sh", "test")
    assert httpx.get(f"http://127.0.0.1:{port}/coze/health").json()["data"]["status"] == "healthy"
    ok(*command, "down", cwd=project, **environment)
    assert run("podman", "container", "exists", name).returncode == 1
