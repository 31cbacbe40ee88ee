"""podman-run.sh with real containers: the development way, and the service as the container's command."""

from __future__ import annotations

import asyncio
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from coze_simulator import SIMULATOR_BOT_ID, SIMULATOR_TOKEN
from tests.support import data_of, free_port, open_client

from .podman import Leftovers, env_file, ok, podman, run, unique

pytestmark = [pytest.mark.containers, pytest.mark.full, pytest.mark.timeout(1500)]

LONG = "hold on [[sim:stall=2:30;deltas=6;reasoning=0]]"


@dataclass
class Box:
    """The container of one test, and the script that runs it."""

    project: Path
    environment: dict[str, str]
    port: int = field(default_factory=free_port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def name(self) -> str:
        return self.environment["COZE_CONTAINER"]

    def script(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        stdin = more.pop("stdin", "")
        return run(
            *[self.project / "podman-run.sh", *arguments],
            cwd=self.project,
            stdin=stdin,
            **{**self.environment, **more},
        )

    def ok(self, *arguments: str, **more: str) -> str:
        done = self.script(*arguments, **more)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self, *options: str, **more: str) -> str:
        return self.ok("start", f"127.0.0.1:{self.port}", *options, **more)

    def enter(self, command: str) -> str:
        return self.ok("enter", stdin=command)

    def stop(self) -> None:
        self.ok("stop")


@pytest.fixture
def box(image: str, project: Path, made: Leftovers) -> Box:
    name = unique("box")
    made.containers.append(name)
    made.volumes.append(f"{name}-data")
    made.secrets += [f"{name}-{each}" for each in ("env", "environment", "file-1")]
    return Box(project, {"COZE_CONTAINER": name, "COZE_IMAGE": f"{image}:latest"})


async def converse(url: str) -> None:
    """The three lines of the quick start."""
    async with open_client(url) as client:
        session = await client.open_session("demo")
        first = await client.send(session, "你好，介绍一下你自己 [[sim:deltas=4]]")
        assert data_of(first)["content"]
        async with client.stream(session, "what did I say before?") as reader:
            events = await reader.all()
        assert events[-1].event == "done"
        assert "你好" in reader.result()["content"]
        assert (await client.session(session))["chat_count"] == 2


async def test_the_development_way(box: Box) -> None:
    nothing = box.script("status")
    assert (nothing.returncode, nothing.stderr) == (3, "")
    assert "./podman-run.sh enter" in box.start()
    assert box.script("status").returncode == 1, "it waits; the service has not been started"
    assert "coze-fastapi is up (test mode)" in box.enter("./run-service.sh test --no-tmux")
    assert "healthy" in box.ok("status")
    await converse(box.url)
    assert "/coze/sessions" in box.ok("logs")
    assert "already runs" in box.ok("start")
    assert box.enter("id -u").strip() != "0"

    # edits and .env show at once
    env_file(box.project / ".env", {"COZE_MAX_MESSAGE_LENGTH": "5"})
    models = box.project / "app/routes/health.py"
    models.write_text(models.read_text().replace('"status": "running"', '"status": "edited"'))
    box.enter("./run-service.sh restart")
    assert httpx.get(box.url + "/").json()["status"] == "edited"
    async with open_client(box.url) as client:
        session = await client.open_session()
        assert (await client.send(session, "too long")).status_code == 400

    # nothing of it is left in the project
    for name in (".run", ".venv"):
        assert not (box.project / name).exists()
    assert list(box.project.glob("app/**/__pycache__")) == []
    assert box.ok("stop").startswith("Stopped and removed")
    assert run("podman", "container", "exists", box.name).returncode == 1


async def test_a_read_only_project_with_an_environment_of_its_own_will_do(box: Box) -> None:
    (box.project / ".venv/bin").mkdir(parents=True)
    (box.project / ".venv/bin/python").write_text("not for this machine")
    box.start("--read-only")
    out = box.enter("touch x 2>&1; ./run-service.sh test")
    assert "Read-only file system" in out
    assert "tmux attach" in out
    await converse(box.url)
    assert (box.project / ".venv/bin/python").read_text() == "not for this machine"
    async with open_client(box.url) as client:
        session = await client.open_session()
        async with client.stream(session, LONG) as reader:
            await reader.until("conversation.message.delta")
            rest = asyncio.create_task(reader.all())
            await asyncio.to_thread(box.stop)
            assert (await rest)[-1].event == "reconnect", "it was asked to end, and did so in order"


async def test_redis_data_of_the_development_container_outlives_it(box: Box) -> None:
    values = {"COZE_API_TOKEN": SIMULATOR_TOKEN, "COZE_BOT_ID": SIMULATOR_BOT_ID, "ENABLE_AUTH": "false"}
    env_file(box.project / ".env", values | {"APP_MODE": "local"})
    box.start()
    box.enter("./run-service.sh deployment --no-tmux")
    async with open_client(box.url) as client:
        session = await client.open_session("stays")
    box.ok("restart")
    box.enter("./run-service.sh deployment --no-tmux")
    async with open_client(box.url) as client:
        assert (await client.session(session))["user_id"] == "stays"


async def test_the_service_as_the_command_is_stopped_in_time_and_its_chat_is_finished(
    box: Box, image: str, made: Leftovers, simulator_network: str
) -> None:
    redis = unique("redis")
    made.containers.append(redis)
    command = ["redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--dir", "/tmp"]
    podman(
        *["run", "--detach", "--init", "--name", redis, "--network", simulator_network],
        *["--network-alias", "the-redis", "--no-healthcheck", image, *command],
    )
    values = {
        "COZE_API_TOKEN": f'"{SIMULATOR_TOKEN}"',  # python-dotenv's rules hold
        "COZE_BOT_ID": f"{SIMULATOR_BOT_ID} # a comment",
        "COZE_API_URL": "http://coze-sim:5000/coze/v3/chat",
        "ENABLE_AUTH": "false",
        "LEASE_SECONDS": "2",
        "DRAIN_SECONDS": "2",  # less than the chat takes
        "COZE_LOG_LEVEL": "DEBUG",
    }
    env_file(box.project / ".env", values).chmod(0o600)  # closed to the container's user; a secret is not
    box.environment |= {"PODMAN_NETWORK": simulator_network, "REDIS_URL": "redis://the-redis:6379/0"}
    box.start("--production")
    assert run("podman", "healthcheck", "run", box.name).returncode == 0
    assert SIMULATOR_TOKEN not in podman("container", "inspect", box.name)
    assert box.script("status").returncode == 0
    await converse(box.url)
    async with open_client(box.url) as client:
        session = await client.open_session()
        async with client.stream(session, "slow [[sim:stall=2:6;deltas=6;reasoning=0]]") as reader:
            await reader.until("conversation.message.delta")
            rest = asyncio.create_task(reader.all())
            await asyncio.to_thread(box.stop)
            assert (await rest)[-1].event == "reconnect", "it was asked to end, and did so in order"
            chat_id = reader.chat_id
    box.start("--production")
    async with open_client(box.url) as client:
        chat = await client.ended(chat_id, timeout=40)
        assert chat["status"] == "completed"
        assert "slow" in chat["content"]


async def test_a_restart_in_production_keeps_what_it_was_started_with_or_leaves_it_running(
    box: Box, image: str, made: Leftovers, simulator_network: str, tmp_path: Path
) -> None:
    redis = unique("redis")
    made.containers.append(redis)
    command = ["redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--dir", "/tmp"]
    podman(
        *["run", "--detach", "--init", "--name", redis, "--network", simulator_network],
        *["--network-alias", "the-redis", "--no-healthcheck", image, *command],
    )
    token = tmp_path / "the token"
    token.write_text("pat_wrong")
    token.chmod(0o600)  # closed to the container's user
    values = {
        "COZE_BOT_ID": SIMULATOR_BOT_ID,
        "COZE_API_URL": "http://coze-sim:5000/coze/v3/chat",
        "ENABLE_AUTH": "false",
        "COZE_LOG_LEVEL": "WARNING",
    }
    settings = env_file(box.project / ".env", values)
    given = {
        "PODMAN_NETWORK": simulator_network,
        "REDIS_URL": "redis://the-redis:6379/0",
        "UPLOAD_TIMEOUT": "77",
        "OTEL_SERVICE_NAME": "named",
        "COZE_API_TOKEN_FILE": str(token),
        "DRAIN_SECONDS": "17",
    }

    def identity() -> str:
        return podman("container", "inspect", "--format", "{{.Id}} {{.State.Status}}", box.name).strip()

    def environment() -> dict[str, str]:
        """Of the service's process."""
        look = "tr '\\0' '\\n' </proc/$(pgrep -f '^python -m app')/environ"
        lines = podman("exec", box.name, "bash", "-c", look).splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    box.start("--production", **given)
    shown = podman("container", "inspect", box.name)
    assert "redis://the-redis" not in shown
    assert '"always"' in shown
    assert environment().items() >= {"UPLOAD_TIMEOUT": "77", "OTEL_SERVICE_NAME": "named"}.items()
    async with open_client(box.url) as client:
        session = await client.open_session("stays")
        assert (await client.send(session, "with a wrong token")).status_code == 502

    # What would not start: the one that runs goes on.
    before = identity()
    env_file(settings, values | {"MAX_OPEN_STREAMS": "none of it"})
    refused = box.script("restart")
    assert refused.returncode == 1
    assert "MAX_OPEN_STREAMS" in refused.stderr
    assert identity() == before
    assert httpx.get(box.url + "/coze/health").status_code == 200

    # A new token and an edited .env, from a shell that has nothing of the first one's environment.
    token.write_text(SIMULATOR_TOKEN)
    env_file(settings, values | {"COZE_MAX_MESSAGE_LENGTH": "30"})
    box.ok("restart")
    assert identity() != before
    same = {name: given[name] for name in ("REDIS_URL", "UPLOAD_TIMEOUT", "OTEL_SERVICE_NAME")}
    assert environment().items() >= same.items()
    async with open_client(box.url) as client:
        assert (await client.session(session))["user_id"] == "stays"
        assert (await client.send(session, "the right one")).status_code == 200
        assert (await client.send(session, "x" * 31)).status_code == 400

    # One that has ended cannot be asked for its environment.
    podman("stop", box.name)
    refused = box.script("restart")
    assert refused.returncode == 1
    assert "cannot be read: " in refused.stderr
    assert "REDIS_URL" in refused.stderr
    assert run("podman", "container", "exists", box.name).returncode == 0, "it was left as it was"
    box.stop()
    left = podman("secret", "ls", "--format", "{{.Name}}").split()
    assert [name for name in left if name.startswith(box.name)] == []


def test_a_project_that_the_container_cannot_read_is_named_with_what_helps(box: Box) -> None:
    def refusal() -> str:
        done = box.script("start", f"127.0.0.1:{box.port}")
        assert done.returncode == 1, done.stdout
        assert run("podman", "container", "exists", box.name).returncode == 1, "nothing is left of a refusal"
        return done.stderr

    if box.project.stat().st_uid != 0:
        pytest.skip("only what root owns is closed to the container's user")
    closed = env_file(box.project / ".env", {"COZE_BOT_ID": "1"})
    closed.chmod(0o600)
    said = refusal()
    assert f"cannot read {box.project}/.env" in said
    subprocess.run("chgrp 10001 .env && chmod g+r .env", shell=True, check=True, cwd=box.project)
    box.project.chmod(0o700)
    (box.project / "app").chmod(0o700)
    said = refusal()
    assert "the directory itself" in said
    assert ".env" not in said
    [remedy] = [line.partition(": ")[2] for line in said.splitlines() if "chgrp" in line]
    subprocess.run(remedy, shell=True, check=True)
    box.start()
    assert box.enter("cat .env") == "COZE_BOT_ID=1\n"
    assert box.project.stat().st_mode & 0o007 == 0, "still closed to everybody else"


def test_what_cannot_be_is_refused_with_a_sentence(box: Box, made: Leftovers) -> None:
    def refusal(*arguments: str, **environment: str) -> str:
        done = box.script(*arguments, **environment)
        assert done.returncode == 1, done.stdout
        return done.stderr

    assert "there is no image" in refusal("start", COZE_IMAGE="localhost/nowhere:latest")
    assert "not a port" in refusal("start", HOST_PORT="70000")
    assert "not a port" in refusal("start", HOST_PORT="$(id)")
    assert "does not exist" in refusal("restart")
    assert "does not run" in refusal("enter")
    assert "needs a REDIS_URL" in refusal("start", "--production")
    assert "in a container is the container" in refusal(
        "start", "--production", REDIS_URL="redis://localhost:6379/0"
    )
    assert "needs COZE_API_TOKEN and COZE_BOT_ID" in refusal("start", "--production", REDIS_URL="memory://")
    missing = {"COZE_API_TOKEN_FILE": "/nowhere/token", "COZE_BOT_ID": "1", "REDIS_URL": "memory://"}
    assert "names the file /nowhere/token, which is not there" in refusal("start", "--production", **missing)
    assert run("podman", "container", "exists", box.name).returncode == 1, "nothing is left of a refusal"

    ok(
        "podman",
        "run",
        "--detach",
        "--name",
        box.name,
        "--no-healthcheck",
        box.environment["COZE_IMAGE"],
        "sleep",
        "60",
    )
    for command in ("stop", "start", "restart", "enter"):
        assert "was not started from here" in refusal(command)
    assert podman("container", "inspect", "--format", "{{.State.Status}}", box.name).strip() == "running"
