"""Questions about this machine that the scripts ask: ``python scripts/probe.py QUESTION ARGS...``

    bindable HOST PORT        0: a server may listen there; 1: no, and why
    page HOST PORT            0: the first port from PORT on which browsers open and a server may listen on
    owner PORT                who listens on a port of this machine, as far as may be seen
    redis NAME                0: answers; 1: nothing listens there; 2: not usable, and why. NAME: of the
                              variable with the address, which may hold a password: everybody on a machine
                              may read command lines
    coze PORT                 0: a Coze answers; 1: nothing listens there; 2: something else does
    health URL                0: our service, healthy; 1: nothing; 2: ours, not healthy; 3: not ours
    wait QUESTION ARG SECONDS PIDFILE   asks until it is 0; ends early when that process is gone

The exit status is the answer; what is printed is for people. Standard library only, except ``redis``,
which asks with the service's own client.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from process import all_pids, living, process_group, read_pid

Answer = tuple[int, str]
OUR_NAME = "coze-api"
OLDEST_REDIS = (6, 2)
PATIENCE = 3.0
"""Seconds that a single question waits for an answer."""
REFUSED_BY_BROWSERS = {
    *(1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, *range(6665, 6670), 6679, 6697, 10080)
}
"""Above 1024, by the Fetch standard (https://fetch.spec.whatwg.org/#port-blocking)."""


def bindable(host: str, port: str) -> Answer:
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, proto) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
            trial.listen(1)
    except OSError as error:
        return 1, error.strerror or str(error)
    return 0, ""


def page(host: str, port: str) -> Answer:
    for number in range(int(port), 65_536):
        if number not in REFUSED_BY_BROWSERS and bindable(host, str(number))[0] == 0:
            return 0, str(number)
    return 1, ""


def listening_inodes(port: int) -> set[str]:
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                found.add(fields[9])
    return found


def holds(pid: int, inodes: set[str]) -> bool:
    try:
        links = [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:
        return False
    return any(link[8:-1] in inodes for link in links if link.startswith("socket:["))


def owner(port: str) -> Answer:
    inodes = listening_inodes(int(port))
    for pid in all_pids() if inodes else ():
        if holds(pid, inodes):
            with contextlib.suppress(OSError):
                command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")[:90]
                return 0, f"pid {pid}: {command.decode(errors='replace').strip()}"
    return 0, "a process that cannot be seen from here"


def nothing_listens(url: str) -> bool:
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return not Path(parts.path).exists()
    try:
        socket.create_connection((parts.hostname or "localhost", parts.port or 6379), PATIENCE).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False


def redis_group(url: str) -> Answer:
    """A Cluster, or a master that Sentinels name: only the service itself knows how to ask those."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from loguru import logger

    from app.exceptions import RedisUnavailable
    from app.redis_client import open_redis

    logger.remove()  # the answer says it

    async def ask() -> Answer:
        async with open_redis(url, pool_size=4, reply_timeout=PATIENCE) as gate:
            infos = await gate.info("server")
        oldest = min(str(info.get("redis_version", "")) for info in infos)
        if oldest and tuple(int(part) for part in oldest.split(".")[:2]) < OLDEST_REDIS:
            return 2, f"it is Redis {oldest}; 6.2 or newer is needed"
        return 0, ""

    try:
        return asyncio.run(ask())
    except RedisUnavailable as error:
        return 2, f"{type(error.__cause__ or error).__name__}"
    except ValueError as error:
        return 2, f"REDIS_URL {error}"


def redis(variable: str) -> Answer:
    url = os.environ[variable]
    if "+" in url.partition("://")[0]:
        return redis_group(url)
    import redis as client
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    if nothing_listens(url):
        return 1, "nothing listens there"
    once = {"socket_timeout": PATIENCE, "socket_connect_timeout": PATIENCE, "retry": Retry(NoBackoff(), 0)}
    try:
        with client.Redis.from_url(url, **once) as link:
            link.ping()
            version = str(link.info("server").get("redis_version", ""))
    except client.exceptions.NoPermissionError:
        return 0, ""  # a user that may not ask for the version; the service will see
    except client.AuthenticationError as error:
        return 2, f"it refuses the user or the password of REDIS_URL ({error})"
    except ValueError as error:  # its text may quote the address, with the password
        return 2, type(error).__name__
    except (client.RedisError, OSError) as error:
        return 2, f"{type(error).__name__}: {error}"
    if version and tuple(int(part) for part in version.split(".")[:2]) < OLDEST_REDIS:
        return 2, f"it is Redis {version}; 6.2 or newer is needed"
    return 0, ""


def fetch(url: str, token: str = "") -> tuple[int, http.client.HTTPMessage | None, Any]:
    """GET without proxies: 0, headers, JSON; or 1 when nothing listens, 2 when no JSON comes back."""
    parts = urlsplit(url)
    link = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=PATIENCE)
    try:
        link.request("GET", url[url.index(parts.path) :], headers={"Authorization": f"Bearer {token}"})
        answer = link.getresponse()
        return 0, answer.headers, json.loads(answer.read(1 << 20))
    except ConnectionRefusedError:
        return 1, None, None
    except (OSError, http.client.HTTPException, ValueError):
        return 2, None, None
    finally:
        link.close()


def coze(port: str) -> Answer:
    """A Coze (real, self-hosted, simulated) answers this with a code and leaves a log id."""
    question = "/coze/v3/chat/retrieve?conversation_id=1&chat_id=1"
    code, headers, body = fetch(f"http://127.0.0.1:{port}{question}", "pat_simulator")
    if headers is None:
        return code, "nothing listens there" if code == 1 else "it does not answer like a Coze"
    detail = body.get("detail") if isinstance(body, dict) else None
    in_body = isinstance(detail, dict) and detail.get("logid")
    traced = headers.get("x-tt-logid") or headers.get("x-log-id") or in_body
    if traced and isinstance(body, dict) and isinstance(body.get("code"), int):
        return 0, ""
    return 2, "it does not answer like a Coze"


def health(url: str) -> Answer:
    code, headers, body = fetch(f"{url}/coze/health")
    if headers is None:
        return (1, "nothing listens there") if code == 1 else (3, "no JSON answer to /coze/health")
    data = body.get("data") if isinstance(body, dict) else None
    error = body.get("error") if isinstance(body, dict) else None
    if isinstance(data, dict) and data.get("service") == OUR_NAME:
        return (0 if data.get("status") == "healthy" else 2), str(data.get("status"))
    if isinstance(error, dict) and str(error.get("code", "")).startswith("COZE_"):
        return 2, f"{error.get('code')}: {error.get('message')}"
    return 3, f"/coze/health answered {json.dumps(body, ensure_ascii=False)[:200]}"


def is_its_own(argument: str, pid_file: str) -> bool:
    """Whether what listens there is the process of the pid file, or of its group. Somebody else's may have
    taken the port meanwhile, and would answer for it. What cannot be seen from here is taken for its own."""
    port = int(argument) if argument.isdigit() else urlsplit(argument).port
    inodes, process = listening_inodes(port) if port else set(), read_pid(pid_file)
    if process is None or not inodes:
        return True
    holders = [pid for pid in all_pids() if holds(pid, inodes)]
    return not holders or any(process_group(pid) == process[0] for pid in holders)


def wait(question: str, argument: str, seconds: str, pid_file: str) -> Answer:
    """Asks until the answer is 0, the time is over, or the process of the pid file is gone."""
    until = time.monotonic() + float(seconds)
    while living(pid_file):
        code, text = QUESTIONS[question](argument)
        if code == 0 and is_its_own(argument, pid_file):
            return code, text
        if time.monotonic() > until:
            return 1, f"it runs, but did not answer as it should within {seconds} seconds: {text}"
        time.sleep(0.1)
    return 1, "its process has ended"


QUESTIONS: dict[str, Callable[..., Answer]] = {
    "bindable": bindable,
    "page": page,
    "owner": owner,
    "redis": redis,
    "coze": coze,
    "health": health,
    "wait": wait,
}


def main() -> int:
    code, text = QUESTIONS[sys.argv[1]](*sys.argv[2:])
    if text:
        print(text)
    return code


if __name__ == "__main__":
    sys.exit(main())
