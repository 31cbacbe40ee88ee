"""client-js: the package, its types, and its calls in Node with the running service."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app import __version__
from tests.openai_clients.support import NotToBeHad, node_environment
from tests.support import RunningApp

from .support import proxy

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "client-js"
MODULES = ("coze-client", "coze-stream")
NODE = Path(__file__).parent / "node"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The modules, as somebody has them who has copied them."""
    for name in MODULES:
        shutil.copy(ROOT / f"app/routes/pages/{name}.js", tmp_path)
    (tmp_path / "package.json").write_text('{"type": "module"}', encoding="utf-8")
    return tmp_path


def command(*arguments: str | Path, cwd: Path, **environment: str) -> str:
    """What it prints; fails with it where it fails."""
    done = subprocess.run(
        [str(each) for each in arguments],
        cwd=cwd,
        env=os.environ | {"NO_PROXY": "127.0.0.1"} | environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, f"{arguments}: {done.stdout[-4000:]}{done.stderr[-4000:]}"
    return done.stdout


def node(folder: Path, name: str, **environment: str) -> Any:
    """What a program of ``tests/client/node`` tells: its last line, as JSON."""
    found = shutil.which("node")
    if found is None:
        pytest.skip("no node on PATH (Debian: apt-get install nodejs)")
    shutil.copy(NODE / name, folder)
    return json.loads(command(found, name, cwd=folder, **environment).strip().splitlines()[-1])


async def test_all_calls_of_the_javascript_client(service: RunningApp, folder: Path) -> None:
    async with proxy(service.base_url) as between:
        between.cut_after = [900, 700]
        addresses = {"SERVICE": service.base_url, "SHAKY": between.base_url}
        told = await asyncio.to_thread(node, folder, "conversation.mjs", **addresses)
    assert told == {
        "whole": ["completed", True, True],
        "stream": {"same": True, "wrong": [], "lost": 2, "chats": 1, "end": ["completed", "closed", True]},
        "followed": True,
        "busy": ["processing", "CozeError", "COZE_SESSION_BUSY", 409, True],
        "cancelled": "cancelled",
        "tools": [1, "completed", True],
        "toolsWhole": "completed",
        "file": ["notes.txt", 5, True],
        "fileAgain": True,
        "feedback": ["unlike", None],
        "regenerated": ["completed", "completed", 3],
        "titled": "a talk",
        "listed": [True],
        "pages": [1, True, True],
        "history": ["user", "assistant"],
        "cleared": True,
        "conversations": ["named"],
        "bot": told["bot"],
        "deleted": True,
        "ended": "terminated",
        "once": True,
        "failed": ["COZE_API_ERROR", 4101],
        "unknown": ["COZE_SESSION_NOT_FOUND", 404],
        "placeholder": ["TypeError", "TypeError"],
        "left": "left",
        "usage": ["u-2", "u/1 你好"],
        "health": "healthy",
        "erased": 1,
    }
    assert isinstance(told["bot"], str)


def test_patience_ends_and_says_where_to_go_on(folder: Path) -> None:
    told = node(folder, "patience.mjs")
    for name in ("silent", "silentCall"):
        assert (told[name]["code"], told[name]["status"]) == ("NETWORK", 0)
        assert told[name]["asked"] >= 2
    assert "CORS_ALLOW_ORIGINS" in told["silent"]["message"]
    for name in ("refusing", "refusingCall"):
        assert (told[name]["code"], told[name]["status"]) == ("COZE_REDIS_ERROR", 503)
        assert told[name]["asked"] >= 2
    assert (told["tooLong"]["code"], told["tooLong"]["asked"]) == ("RATE_LIMITED", 1)
    assert told["broken"]["details"] == {"chat_id": "c-1", "last_event_id": "1-2"}
    assert "CORS" not in told["broken"]["message"]
    assert told["thinking"] == "completed"
    assert told["another"]["code"] == "UNEXPECTED_ANSWER"
    assert "no answer within 0.1 s" in told["late"]["message"]
    assert told["late"]["asked"] == 2


def test_nothing_goes_to_where_a_service_redirects(folder: Path) -> None:
    told = node(folder, "redirects.mjs")
    assert told.pop("elsewhere") == []
    refused = [["UNEXPECTED_ANSWER", 1]] * 5  # said at once: asked again it would be the same
    assert told == dict.fromkeys(("json", "read", "stream", "follow", "tools", "upload"), refused)


def test_events_do_not_depend_on_how_a_stream_is_cut_and_long_lines_cost_no_more(folder: Path) -> None:
    told = node(folder, "pieces.mjs")
    assert told["wrong"] == []
    assert told["events"] > 1000
    assert told["long"] > 8_000_000
    short, long = told["seconds"]  # of the processor; a quadratic parser takes hundreds of times it
    assert long < 20 * short + 0.5


# -- types -----------------------------------------------------------------------------------------------


def declarations(name: str) -> str:
    return (PACKAGE / f"{name}.d.ts").read_text(encoding="utf-8")


def members(text: str, kind: str) -> Iterator[tuple[str, dict[str, bool]]]:
    """Each ``interface`` or ``class`` with the names of its members, and whether they may be left out."""
    for name, body in re.findall(
        rf"^export {kind} (\w+)[^{{]*\{{\n(.*?)^\}}", text, re.MULTILINE | re.DOTALL
    ):
        found = re.findall(r"^  (?:readonly |static )?(\w+)(\?)?[:(]", body, re.MULTILINE)
        yield name, {member: optional == "?" for member, optional in found}


RENAMED = {"ChatError": "ErrorInfo"}
STRICTER = {"EnterMessage": {"content"}}
"""What the types ask for though the service does not."""


def test_the_types_of_bodies_and_results_are_those_of_the_published_document() -> None:
    schemas = json.loads((ROOT / "docs/openapi.json").read_text(encoding="utf-8"))["components"]["schemas"]
    interfaces = [each for name in MODULES for each in members(declarations(name), "interface")]
    compared = 0
    for name, fields in interfaces:
        schema = schemas.get(RENAMED.get(name, name))
        if schema is None or name in ("StreamOptions", "UsageRow"):
            continue
        compared += 1
        wanted = set(schema["properties"]) - {"stream"}
        if {"metadata", "meta_data"} <= wanted:  # the service takes both, the types have one
            wanted -= {"meta_data" if "metadata" in fields else "metadata"}
        assert set(fields) == wanted, name
        required = set(schema.get("required", ())) | STRICTER.get(name, set())
        assert {field for field, optional in fields.items() if not optional} == required, name
    assert compared >= 24


SURFACE = """
import * as client from "./coze-client.js";
import * as stream from "./coze-stream.js";
const methods = (part) => Object.getOwnPropertyNames(Object.getPrototypeOf(part)).slice(1);  // constructor
const made = new client.CozeClient();
const parts = Object.fromEntries(Object.entries(made).filter(([, part]) => typeof part === "object")
  .map(([name, part]) => [name, methods(part)]));
const exported = { client: Object.keys(client), stream: Object.keys(stream) };
console.log(JSON.stringify({ ...exported, made: Object.keys(made), parts }));
"""


def test_the_types_name_what_the_modules_have_and_nothing_else(folder: Path) -> None:
    found = shutil.which("node")
    if found is None:
        pytest.skip("no node on PATH (Debian: apt-get install nodejs)")
    (folder / "surface.mjs").write_text(SURFACE, encoding="utf-8")
    has = json.loads(command(found, "surface.mjs", cwd=folder))

    def exported(name: str) -> set[str]:
        return set(re.findall(r"^export (?:function|class|const) (\w+)", declarations(name), re.MULTILINE))

    assert exported("coze-stream") == set(has["stream"])
    assert exported("coze-client") | exported("coze-stream") == set(has["client"])
    [(_, client)] = members(declarations("coze-client"), "class")
    assert client.keys() - {"constructor"} == set(has["made"])
    interfaces = dict(members(declarations("coze-client"), "interface"))
    for part, methods in has["parts"].items():
        assert set(interfaces[part.capitalize()]) == set(methods), part


# -- the package -----------------------------------------------------------------------------------------


def test_the_package_has_the_version_of_the_service_and_needs_nothing() -> None:
    package = json.loads((PACKAGE / "package.json").read_text(encoding="utf-8"))
    assert package["version"] == __version__
    assert not {"dependencies", "peerDependencies", "devDependencies"} & package.keys()
    for file in ("README.md", "CHANGELOG.md"):
        assert (PACKAGE / file).is_file()


def test_the_modules_are_nowhere_a_second_time() -> None:
    """What is packed is taken from the page's folder; a copy would drift."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("no git checkout")
    for name in MODULES:
        assert [line for line in listed.stdout.splitlines() if line.endswith(f"{name}.js")] == [
            f"app/routes/pages/{name}.js"
        ]


@pytest.mark.full
@pytest.mark.timeout(1200)
def test_the_packed_package_is_typed_strictly_and_works(service: RunningApp, tmp_path: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed")
    source = tmp_path / "checkout"
    shutil.copytree(PACKAGE, source / "client-js")
    pages = source / "app/routes/pages"
    pages.mkdir(parents=True)
    for name in MODULES:
        shutil.copy(ROOT / f"app/routes/pages/{name}.js", pages)
    [packed] = json.loads(
        command(npm, "pack", "--json", "--pack-destination", tmp_path, cwd=source / "client-js")
    )
    assert {each["path"] for each in packed["files"]} == {
        *(f"{name}.{ending}" for name in MODULES for ending in ("js", "d.ts")),
        *("README.md", "CHANGELOG.md", "package.json"),
    }
    assert not (source / "client-js/coze-client.js").exists()
    try:
        with node_environment(NODE) as [found, folder]:
            place = Path(folder)
            command(npm, "install", "--no-audit", "--no-fund", tmp_path / packed["filename"], cwd=place)
            for kind in (("node16", "node16"), ("esnext", "bundler")):
                options = ("--module", kind[0], "--moduleResolution", kind[1], "--target", "es2022")
                strict = ("--strict", "--noUncheckedIndexedAccess", "--exactOptionalPropertyTypes")
                lib = ("--lib", "es2022,dom,dom.iterable", "--outDir", f"made-{kind[0]}")
                command(place / "node_modules/.bin/tsc", *strict, *options, *lib, "program.ts", cwd=place)
            wrong = subprocess.run(
                [place / "node_modules/.bin/tsc", *strict, *options, *lib, "--noEmit", "wrong.ts"],
                cwd=place,
                capture_output=True,
                text=True,
                timeout=200,
            )
            lines = sorted(
                {int(line) for line in re.findall(r"^wrong\.ts\((\d+),", wrong.stdout, re.MULTILINE)}
            )
            text = (NODE / "wrong.ts").read_text(encoding="utf-8").splitlines()
            assert lines == [at for at, line in enumerate(text, 1) if "// wrong" in line], wrong.stdout
            shutil.copy(place / "made-node16/program.js", place / "program.js")
            told = command(found, "program.js", cwd=place, SERVICE=service.base_url)
            assert json.loads(told.strip().splitlines()[-1]) == ["completed", True, "COZE_SESSION_NOT_FOUND"]
    except NotToBeHad as missing:
        pytest.skip(str(missing))
