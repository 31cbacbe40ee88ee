"""docs/openapi.json in the hands of those who use it: linters, and generators of clients.

What each generator makes is type-checked and then holds a conversation with a running service, by a script
in ``generated``: a session, a message, its result and events, a file, an administrator's route, health, and
three refusals.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coze_simulator.auth_server import running_auth
from tests.openai_clients.support import NotToBeHad, node_environment, python_environment
from tests.support import make_settings, running_app

from .pages import ROOT

pytestmark = [pytest.mark.full, pytest.mark.timeout(1800)]

HERE = Path(__file__).parent / "generated"
DOCUMENT = str(ROOT / "docs/openapi.json")
KEY = "key-of-the-made-clients-0123456789abcdef"
QUIET = {"REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true", "NO_PROXY": "127.0.0.1"}
TSC = (
    *("--strict", "--module", "node16", "--target", "es2022", "--lib", "es2022,dom,dom.iterable"),
    *("--types", "node", "--outDir", "dist"),
)


class Workshop:
    """A folder with tools in it, in which clients are made and used."""

    def __init__(self, folder: Path, tools: Path) -> None:
        self.folder = folder
        self._tools = tools

    def run(self, tool: str, *arguments: str, **environment: str) -> str:
        """What the tool prints; fails with it where the tool fails."""
        path = f"{self._tools}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            [str(self._tools / tool) if (self._tools / tool).exists() else tool, *arguments],
            cwd=self.folder,
            env=os.environ | QUIET | {"PATH": path} | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{tool} {arguments}: {done.stdout[-4000:]}{done.stderr[-4000:]}"
        return done.stdout


@pytest.fixture(scope="module")
def python() -> Iterator[Workshop]:
    try:
        with python_environment(HERE / "python") as [interpreter]:
            bin_folder = Path(interpreter).parent
            folder = bin_folder.parent / "made"
            shutil.copytree(HERE / "python", folder)
            yield Workshop(folder, bin_folder)
    except NotToBeHad as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def node() -> Iterator[Workshop]:
    try:
        with node_environment(HERE / "node") as [_, folder]:
            yield Workshop(Path(folder), Path(folder) / "node_modules/.bin")
    except NotToBeHad as missing:
        pytest.skip(str(missing))


@pytest.fixture
def generator(python: Workshop) -> Workshop:
    """openapi-generator: a program in Java that comes with a package of Python's."""
    if shutil.which("java") is None:
        pytest.skip("java is not installed: openapi-generator was not tried")
    return python


@pytest.fixture
def service(simulated_coze: str) -> Iterator[dict[str, str]]:
    """A service that asks who calls, in the words of the scripts' environment."""
    with running_auth() as auth:
        settings = make_settings(
            COZE_API_URL=simulated_coze,
            REDIS_URL="memory://",
            ENABLE_AUTH="true",
            HTY_VERIFY_URL=auth.verify_url,
            COZE_API_KEYS=f"made:{KEY}",
        )
        with running_app(settings) as service:
            token = auth.app.issue("ada", ("ADMIN",))
            yield {
                "SERVICE": service.base_url,
                "API_KEY": KEY,
                "TOKEN": token,
                "HTY_HOST": "music.moicen.com",
            }


def check(told: str) -> None:
    """What a script tells of its conversation: the last line that it prints, as JSON."""
    found: dict[str, Any] = json.loads(told.strip().splitlines()[-1])
    assert found.pop("tokens") > 0
    assert found == {
        "app": "made",
        "status": "completed",
        "sent": "You ask “3 + 4”. The result is: 3 + 4 = 7.",
        "read": "You ask “3 + 4”. The result is: 3 + 4 = 7.",
        "error": None,
        "last_event": 'data: "[DONE]"',
        "page": [True],
        "file": "file",
        "completion": "You ask “5 + 6”. The result is: 5 + 6 = 11.",
        "draining": False,
        "health": "healthy",
        "refused": [
            [404, "COZE_SESSION_NOT_FOUND", False],
            [400, "COZE_VALIDATION_ERROR", False],
            [401, "AUTH_MISSING", False],
        ],
    }


def make(generator: Workshop, language: str, folder: Path) -> None:
    """A client that openapi-generator makes."""
    generator.run("openapi-generator-cli", "generate", "-i", DOCUMENT, "-g", language, "-o", str(folder))


def talk(node: Workshop, script: str, service: dict[str, str]) -> None:
    node.run("tsc", *TSC, f"{script}.ts")
    check(node.run("node", f"dist/{script}.js", **service))


def test_spectral_and_redocly_report_no_error(node: Workshop) -> None:
    found = json.loads(node.run("spectral", "lint", DOCUMENT, "-f", "json", "-q"))
    assert {each["code"] for each in found} <= {"info-contact"}
    node.run("redocly", "lint", DOCUMENT)


def test_openapi_generator_makes_a_python_client(generator: Workshop, service: dict[str, str]) -> None:
    make(generator, "python", generator.folder / "generator")
    shutil.move(generator.folder / "generator/openapi_client", generator.folder / "openapi_client")
    script = "with_openapi_generator.py"
    generator.run("python", "-m", "mypy", script, "openapi_client")
    check(generator.run("python", script, **service))


def test_openapi_python_client_makes_a_client(python: Workshop, service: dict[str, str]) -> None:
    (python.folder / "made.yaml").write_text("package_name_override: made_client\n")
    python.run(
        *("openapi-python-client", "generate", "--path", DOCUMENT, "--meta", "none"),
        *("--config", "made.yaml", "--output-path", "made_client", "--fail-on-warning"),
    )
    script = "with_openapi_python_client.py"
    # Its own client.py, which is the same for every document, has faults of its own, and it casts too often.
    (python.folder / "mypy.ini").write_text("[mypy-made_client.client]\nignore_errors = True\n")
    options = ("--strict", "--no-warn-redundant-casts")
    python.run("python", "-m", "mypy", *options, script, "made_client")
    check(python.run("python", script, **service))


def test_openapi_typescript_makes_types_for_openapi_fetch(node: Workshop, service: dict[str, str]) -> None:
    node.run("openapi-typescript", DOCUMENT, "-o", "schema.d.ts")
    talk(node, "with_openapi_fetch", service)


@pytest.mark.parametrize("kind", ["axios", "fetch"])
def test_openapi_generator_makes_typescript_clients(
    kind: str, generator: Workshop, node: Workshop, service: dict[str, str]
) -> None:
    make(generator, f"typescript-{kind}", node.folder / f"{kind}_client")
    talk(node, f"with_typescript_{kind}", service)
