"""The surroundings of all parts: upstream, Redis, contestants, and runs of the driver."""

import dataclasses
import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import jwt
import redis

from benchmarks import environments
from benchmarks.driver import Job
from benchmarks.processes import ROOT, Process, answers, cores, free_port, pin, redis_program
from benchmarks.results import Results

_KEY: Final = "benchmark-key-that-is-no-secret-at-all"
_SPARE_SECONDS: Final = 30.0

OURS: Final[dict[str, str]] = {
    "COZE_API_TOKEN": "bench",
    "COZE_BOT_ID": "7380000000000000009",
    "HOST": "127.0.0.1",
    "ENABLE_AUTH": "true",
    "AUTH_CACHE_TTL": "3600",
    "RATE_LIMIT_MESSAGES_PER_MINUTE": "1000000",
    "RATE_LIMIT_SESSIONS_PER_MINUTE": "1000000",
    "COZE_MAX_ACTIVE_USERS": "1000000",
    "COZE_MAX_TOTAL_SESSIONS": "1000000",
    "COZE_MAX_SESSIONS_PER_USER": "1000",
    "COZE_OWNER_SHARE": "1",
    "COZE_ROOT_SHARE": "1",
    "COZE_MAX_CONNECTIONS": "10000",
    "MAX_CONCURRENT_CHATS": "10000",
    "MAX_OPEN_STREAMS_PER_CALLER": "10000",
}
"""The service as it is deployed, with limits that are on but not reached."""


def _token(roles: list[dict[str, str]] | None = None, who: str = "h-1") -> str:
    subject = {"token_id": f"t-{who}", "hty_id": who, "app_id": "a-1", "roles": roles, "tags": None}
    now = int(time.time())
    return jwt.encode({"sub": json.dumps(subject), "iat": now, "exp": now + 86_400}, _KEY, algorithm="HS256")


def caller_headers(who: str = "h-1") -> dict[str, str]:
    """Of a caller whose token the service asks about once, and then has in its cache."""
    return {"HtySudoerToken": _token(who=who), "HtyHost": "music.moicen.com"}


def admin_headers() -> dict[str, str]:
    """The same person as an administrator."""
    return {"HtySudoerToken": _token([{"role_key": "ADMIN"}]), "HtyHost": "music.moicen.com"}


def user_body(name: str) -> str:
    """Of a POST for a session; each request is for a user of its own."""
    return f'{{"user_id":"{name}-{{i}}"}}'


@dataclass
class Contestant:
    """A server that runs. ``targets`` by kind of request."""

    name: str
    process: Process | None
    port: int
    stream_target: str = "/chat"
    body: str = '{"message":"hello","bot_id":"b","user_id":"u","stream":true}'
    whole_body: str = '{"message":"hello"}'
    dialect: str = "coze"
    headers: dict[str, str] = field(default_factory=dict)
    sessions: list[str] = field(default_factory=list)
    conversations: list[str] = field(default_factory=list)
    redis_pid: int = 0
    redis_port: int = 0

    @property
    def ours(self) -> bool:
        return self.name.startswith("ours")

    @property
    def by_session(self) -> bool:
        """Its messages go to sessions of its own."""
        return self.ours and self.stream_target == "/chat"

    def targets(self, connections: int) -> list[str]:
        if self.conversations:
            return [f"{self.stream_target}?conversation_id={each}" for each in self.conversations]
        if not self.by_session:
            return [self.stream_target]
        return [f"/coze/sessions/{session}/messages" for session in self.sessions[:connections]]


class Bench:
    """Use it with ``with``; all that it has started is gone afterwards."""

    def __init__(self, directory: Path, *, tree: Path = ROOT, save: bool = False, log: Any = print) -> None:
        """``directory``: for logs and data. ``tree``: the checkout whose service is measured. ``save``:
        parts may write into ``results/``."""
        self.directory = directory
        self.tree, self.own_path = tree, ROOT
        self.save = save
        self.say = log
        self.server_core, self.other_core = cores()
        self._stack = ExitStack()
        self._n, self._gap, self._chars = -1, -1.0, 0

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._stack = stack
            self.upstream, self.upstream_port = self._start_upstream()
            self.redis, self.redis_port = self.start_redis("redis")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @contextmanager
    def scope(self) -> Iterator[None]:
        """What is started inside ends with the block."""
        outer, self._stack = self._stack, ExitStack()
        try:
            yield
        finally:
            inner, self._stack = self._stack, outer
            inner.close()

    # -- what runs ---------------------------------------------------------------------------------------

    def start(
        self,
        name: str,
        argv: list[str],
        env: Mapping[str, str] | None = None,
        core: set[int] | None = None,
    ) -> Process:
        process = Process(name, argv, self.directory, env=env, core=core or self.other_core)
        self._stack.callback(process.stop)
        return process

    def _start_upstream(self) -> tuple[Process, int]:
        port = free_port()
        process = self.start("upstream", [sys.executable, "-m", "benchmarks.upstream", "--port", str(port)])
        process.wait_until(lambda: answers(f"http://127.0.0.1:{port}/_bench"))
        return process, port

    def start_redis(self, name: str) -> tuple[Process, int]:
        """As docs/en/operation.md recommends it: everything in the append-only file, synced every second."""
        port = free_port()
        directory = self.directory / name
        directory.mkdir()
        options = ["--save", "", "--appendonly", "yes", "--appendfsync", "everysec", "--dir", str(directory)]
        argv = [redis_program(), "--port", str(port), "--bind", "127.0.0.1", *options]
        process = self.start(name, argv)
        process.wait_until(lambda: _pings(port))
        return process, port

    def redis_client(self, port: int | None = None) -> redis.Redis:
        return redis.Redis(port=port or self.redis_port, socket_timeout=30)

    def set_upstream(self, n: int, gap: float = 0.0, chars: int = 0) -> None:
        """``n`` deltas, ``gap`` seconds apart, each with ``chars`` characters of text besides its mark."""
        if (n, gap, chars) != (self._n, self._gap, self._chars):
            self._control(json.dumps({"n": n, "gap": gap, "chars": chars}).encode())
            self._n, self._gap, self._chars = n, gap, chars

    def upstream_counts(self) -> dict[str, int]:
        return self._control(None)

    def _control(self, body: bytes | None) -> dict[str, int]:
        url = f"http://127.0.0.1:{self.upstream_port}/_bench"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(urllib.request.Request(url, body), timeout=10) as answer:
            counts: dict[str, int] = json.load(answer)
            return counts

    # -- contestants -------------------------------------------------------------------------------------

    def direct(self) -> Contestant:
        """The upstream itself, asked by the driver."""
        body = '{"bot_id":"b","user_id":"u","stream":true}'
        return Contestant("upstream", None, self.upstream_port, "/v3/chat", body=body)

    def relay(self) -> Contestant:
        port = free_port()
        argv = [sys.executable, "-m", "benchmarks.contestants.relay", str(port)]
        process = self.start("relay", argv, self._upstream_url(), self.server_core)
        process.wait_until(lambda: answers(f"http://127.0.0.1:{port}/health"))
        upstream = self.direct()
        return Contestant("relay", process, port, upstream.stream_target, body=upstream.body)

    def _upstream_url(self) -> dict[str, str]:
        return {"BENCH_UPSTREAM": f"http://127.0.0.1:{self.upstream_port}"}

    def _uvicorn(self, name: str, module: str, env: Mapping[str, str]) -> Contestant:
        """Under the same server with the same options as the service."""
        port = free_port()
        argv = [sys.executable, "-m", "uvicorn", f"benchmarks.contestants.{module}:app", "--port", str(port)]
        argv += [
            "--no-access-log",
            "--no-server-header",
            "--timeout-keep-alive",
            "75",
            "--log-level",
            "warning",
        ]
        process = self.start(name, argv, {**self._upstream_url(), **env}, self.server_core)
        process.wait_until(lambda: answers(f"http://127.0.0.1:{port}/health"))
        return Contestant(name, process, port)

    def frame(self) -> Contestant:
        return self._uvicorn("frame", "frame", {})

    def passthrough(self, name: str = "passthrough", **env: str) -> Contestant:
        return self._uvicorn(name, "passthrough", env)

    def sdk(self) -> Contestant:
        return self._uvicorn("cozepy app", "sdk", {"PYTHONWARNINGS": "ignore"})

    def litellm(self, results: Results) -> Contestant | None:
        """The proxy, one worker, no callbacks; None, with a note, where it could not be installed."""
        try:
            program = environments.program("litellm", "litellm[proxy]", say=self.say)
        except RuntimeError as error:
            results.note(f"LiteLLM was left out: {error}")
            return None
        port = free_port()
        config = self.directory / "litellm.json"
        params = {
            "model": "openai/bench",
            "api_base": f"http://127.0.0.1:{self.upstream_port}/v1",
            "api_key": "b",
        }
        config.write_text(json.dumps({"model_list": [{"model_name": "bench", "litellm_params": params}]}))
        argv = [str(program), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
        env = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "PYTHONPATH": ""}
        env["LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY"] = "true"  # no key to check: less work
        process = self.start(
            "litellm", [*argv, "--num_workers", "1", "--telemetry", "False"], env, self.server_core
        )
        try:
            process.wait_until(lambda: answers(f"http://127.0.0.1:{port}/health/liveliness"), 90)
        except RuntimeError as error:
            results.note(f"LiteLLM was left out: {str(error)[-300:]}")
            return None
        results.note(f"LiteLLM {environments.version(program, 'litellm')}, one worker, no callbacks, no key")
        body = '{"model":"bench","stream":true,"messages":[{"role":"user","content":"hello"}]}'
        return Contestant("litellm", process, port, "/v1/chat/completions", body=body, dialect="openai")

    def constant(self, sizes: list[int]) -> Contestant:
        env = {"BENCH_SIZES": ",".join(map(str, sizes)), "BENCH_REDIS": self.redis_url()}
        return self._uvicorn("constant", "constant", env)

    def redis_url(self, port: int | None = None) -> str:
        return f"redis://127.0.0.1:{port or self.redis_port}/0"

    def ours(
        self,
        name: str = "ours",
        *,
        sessions: int = 0,
        argv: list[str] | None = None,
        redis: tuple[Process, int] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Contestant:
        """``python -m app``; several at once need a name each, which is their prefix in Redis."""
        store, store_port = redis or (self.redis, self.redis_port)
        port = free_port()
        settings = OURS | {
            "PORT": str(port),
            "REDIS_URL": self.redis_url(store_port),
            "COZE_REDIS_PREFIX": "bench-" + re.sub(r"[^a-z0-9]+", "-", name) + ":",
            "COZE_API_URL": f"http://127.0.0.1:{self.upstream_port}/v3/chat",
            "PYTHONPATH": str(self.tree),
            "HTY_VERIFY_URL": f"http://127.0.0.1:{self.upstream_port}/hty/verify",
        }
        process = self.start(
            name, argv or [sys.executable, "-m", "app"], settings | dict(env or {}), self.server_core
        )
        process.wait_until(lambda: answers(f"http://127.0.0.1:{port}/coze/health"))
        ours = Contestant(
            name,
            process,
            port,
            body='{"message":"hello","stream":true}',
            whole_body='{"message":"hello"}',
            headers=caller_headers(),
            redis_pid=store.pid,
            redis_port=store_port,
        )
        if sessions:
            self.open_sessions(ours, sessions)
        return ours

    def openai_door(self) -> Contestant:
        """The same service, asked as OpenAI's clients do: no session, the history in the request."""
        door = self.ours("ours, OpenAI's door")
        door.stream_target, door.dialect = "/coze/openai/v1/chat/completions", "text"
        door.body = '{"model":"coze","stream":true,"messages":[{"role":"user","content":"hello"}]}'
        return door

    def coze_door(self, conversations: int) -> Contestant:
        """The same service, asked as Coze's clients do, in conversations that they have made before."""
        door = self.ours("ours, Coze's door")
        token = door.headers.pop("HtySudoerToken")
        door.headers["Authorization"] = f"Bearer {token}"
        door.stream_target = "/coze/api/v3/chat"
        message = '{"role":"user","content":"hello","content_type":"text"}'
        bot = OURS["COZE_BOT_ID"]
        door.body = f'{{"bot_id":"{bot}","user_id":"u","stream":true,"additional_messages":[{message}]}}'
        job = Job(
            port=door.port,
            targets=["/coze/api/v1/conversation/create"],
            kind="plain",
            connections=1,
            total=conversations,
            body=f'{{"bot_id":"{bot}"}}',
            headers=door.headers,
            capture='"id":"([0-9]+)"',
        )
        result = self.drive(job)
        door.conversations = result["captured"]
        if result["errors"] or len(door.conversations) != conversations:
            raise RuntimeError(f"{door.name}: no conversations: {result['errors']}")
        return door

    def open_sessions(self, ours: Contestant, count: int, body: str = "") -> None:
        """Adds sessions, each of a user of its own (or as ``body`` has it), and waits until Coze has their
        conversations."""
        before = self.upstream_counts()["conversations"]
        job = Job(
            port=ours.port,
            targets=["/coze/sessions"],
            kind="plain",
            connections=min(20, count),
            total=count,
            body=body or user_body(f"u-{len(ours.sessions)}"),
            headers=ours.headers,
            capture='"session_id":"([^"]+)"',
        )
        result = self.drive(job)
        if result["errors"] or len(result["captured"]) != count:
            raise RuntimeError(f"{ours.name}: no sessions: {result['errors']}")
        ours.sessions += result["captured"]
        self.wait_conversations(before + count)

    def wait_conversations(self, count: int) -> None:
        """Until the upstream has made that many: the service makes them behind the answer."""
        deadline = time.monotonic() + 60
        while self.upstream_counts()["conversations"] < count and time.monotonic() < deadline:
            time.sleep(0.05)

    # -- measuring ---------------------------------------------------------------------------------------

    def drive(self, job: Job) -> dict[str, Any]:
        """Runs the driver once. Raises RuntimeError when it fails."""
        with subprocess.Popen(
            [sys.executable, "-m", "benchmarks.driver"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as driver:
            pin(driver.pid, self.other_core)
            try:
                seconds = job.timeout * 2 + job.ramp + _SPARE_SECONDS
                out, errors = driver.communicate(json.dumps(dataclasses.asdict(job)), seconds)
            except BaseException:
                driver.kill()
                raise
        if driver.returncode:
            raise RuntimeError(f"the driver failed: {errors[-3000:]}")
        result: dict[str, Any] = json.loads(out)
        return result

    def processes_of(self, contestant: Contestant) -> dict[str, list[int]]:
        server = contestant.process.family() if contestant.process else [self.upstream.pid]
        found = {"server": server, "upstream": [self.upstream.pid]}
        if contestant.ours:
            found["redis"] = [contestant.redis_pid]
        return found

    def stream_job(self, contestant: Contestant, connections: int, total: int, **more: Any) -> Job:
        """Streamed chats, as the upstream is set."""
        if contestant.by_session and len(contestant.sessions) < connections:
            self.open_sessions(contestant, connections - len(contestant.sessions))
        values: dict[str, Any] = {
            "port": contestant.port,
            "targets": contestant.targets(connections),
            "kind": "stream",
            "connections": connections,
            "total": total,
            "body": contestant.body,
            "n": self._n,
            "paced": self._gap > 0,
            "dialect": contestant.dialect,
            "headers": contestant.headers,
            "processes": self.processes_of(contestant),
        }
        return Job(**(values | more))


def _pings(port: int) -> bool:
    try:
        with redis.Redis(port=port, socket_timeout=1) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False
