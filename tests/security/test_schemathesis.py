"""schemathesis, all phases, against the service as it listens, with authentication on."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from coze_simulator.auth_server import RunningAuth
from tests.support import RedisServer, ServiceProcess

from .conftest import secured_values
from .helpers import ALICE, Who

# Without ignored_auth: it breaks one of two alternative schemes while our headers satisfy the other.
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,use_after_free"
)
ROOT = Who("an admin", "moicen.com", "ada", ("ADMIN",))
EVENT = {
    "type": "object",
    "properties": {name: {"type": "string"} for name in ("id", "event", "data")},
    "required": ["data"],
}
API_KEY = "sk-app-0123456789abcdefgh"
COZES_DOOR = ("--include-path-regex", "^/coze/api/")
Start = Callable[..., ServiceProcess]


def document_of(service: ServiceProcess, directory: Path) -> Path:
    """What the service publishes, with a stream's schema as schemathesis reads it: that of one event. To
    generators of clients a stream is a text, and so it is published."""
    document = httpx.get(f"{service.base_url}/openapi.json", trust_env=False).json()
    for methods in document["paths"].values():
        for operation in methods.values():
            for response in operation["responses"].values():
                if stream := response.get("content", {}).get("text/event-stream"):
                    stream["schema"] = EVENT
                    del stream["example"]
    file = directory / "openapi.json"
    file.write_text(json.dumps(document))
    return file


def run_schemathesis(
    service: ServiceProcess, headers: dict[str, str], directory: Path, *arguments: str
) -> str:
    """What it says; fails with it where it finds anything. ``headers``: the caller's."""
    given = [part for name, value in headers.items() for part in ("-H", f"{name}: {value}")]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", str(document_of(service, directory))),
            *("--url", service.base_url),
            *("--phases", "examples,coverage,fuzzing,stateful", "--checks", CHECKS, "--mode", "all"),
            *("--no-color", "--warnings", "off", "--request-timeout", "20", *given, *arguments),
        ],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )
    told = done.stdout + done.stderr
    assert done.returncode == 0, told[-6000:]
    assert "Traceback" not in service.log
    for secret in headers.values():
        if len(secret) > 20:  # no host
            assert secret.removeprefix("Bearer ") not in service.log
    return told


def start(start_process: Start, redis: RedisServer, auth: RunningAuth) -> ServiceProcess:
    values = secured_values(
        auth, REDIS_URL=redis.url, APP_MODE="local", COZE_LOG_LEVEL="WARNING", COZE_TIMEOUT="2"
    )
    return start_process(
        **values,
        COZE_API_KEYS=f"app:{API_KEY}",
        COZE_MAX_TOTAL_SESSIONS="1000000",
        COZE_MAX_ACTIVE_USERS="1000000",
    )


async def test_schemathesis_finds_no_undocumented_answer_no_5xx_and_no_schema_violation(
    start_process: Start, redis: RedisServer, auth: RunningAuth, tmp_path: Path
) -> None:
    service = start(start_process, redis, auth)
    told = run_schemathesis(service, ALICE.headers(auth), tmp_path, "--max-examples", "6", "--seed", "1")
    # The phase's heading stands there also where it was skipped: scenarios ran, and links were followed.
    assert re.search(
        r"Stateful \(in [^)]*\)\s+Scenarios:\s+[1-9]\d*\s+API Links:\s+[1-9]\d* covered", told
    ), told


@pytest.mark.full
@pytest.mark.fuzz
@pytest.mark.timeout(1200)
async def test_schemathesis_finds_nothing_behind_cozes_door_with_a_key(
    start_process: Start, redis: RedisServer, auth: RunningAuth, tmp_path: Path
) -> None:
    service = start(start_process, redis, auth)
    headers = {"Authorization": f"Bearer {API_KEY}"}
    many = ("--max-examples", "100", "--max-time", "240")
    run_schemathesis(service, headers, tmp_path, *COZES_DOOR, *many)


@pytest.mark.full
@pytest.mark.fuzz
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("who", [ALICE, ROOT], ids=lambda who: who.name)
async def test_schemathesis_finds_nothing_in_minutes_either(
    start_process: Start, redis: RedisServer, auth: RunningAuth, tmp_path: Path, who: Who
) -> None:
    service = start(start_process, redis, auth)
    run_schemathesis(service, who.headers(auth), tmp_path, "--max-examples", "100", "--max-time", "240")
