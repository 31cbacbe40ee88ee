"""The package: what it exports, its version, its two halves, and that it installs."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import coze_fastapi_client
import pytest
from coze_fastapi_client import AsyncCozeClient, CozeClient, _errors

from app import __version__
from scripts.sync_client import SOURCE, TARGET, blocking

ROOT = Path(__file__).resolve().parents[2]


def test_the_blocking_client_is_made_from_the_asynchronous_one() -> None:
    made = blocking(SOURCE.read_text(encoding="utf-8"))
    assert TARGET.read_text(encoding="utf-8") == made, "run: .venv/bin/python scripts/sync_client.py"


def test_both_clients_have_the_same_calls() -> None:
    ours, theirs = CozeClient("http://coze.test"), AsyncCozeClient("http://coze.test")
    for name in ("sessions", "chats", "users", "files"):
        one, other = type(getattr(ours, name)), type(getattr(theirs, name))
        assert _parameters(one) == _parameters(other)
    assert _parameters(CozeClient).keys() - {"__enter__", "__exit__"} == (
        _parameters(AsyncCozeClient).keys() - {"__aenter__", "__aexit__"}
    )
    ours.close()


def _parameters(cls: type) -> dict[str, list[str]]:
    return {
        name: [str(each) for each in inspect.signature(method).parameters.values()]
        for name, method in vars(cls).items()
        if callable(method) and name != "__init__"
    }


def test_every_error_is_exported_and_stands_in_the_tree() -> None:
    errors = [
        name
        for name, cls in vars(_errors).items()
        if inspect.isclass(cls) and issubclass(cls, Exception) and cls.__module__ == _errors.__name__
    ]
    assert set(errors) <= set(coze_fastapi_client.__all__)
    assert _errors.__doc__
    assert [name for name in errors if name not in _errors.__doc__] == []


def test_the_client_has_the_version_of_the_service() -> None:
    assert coze_fastapi_client.__version__ == __version__


def test_the_client_needs_nothing_but_httpx() -> None:
    project = tomllib.loads((ROOT / "client/pyproject.toml").read_text())["project"]
    assert [requirement.split(">")[0] for requirement in project["dependencies"]] == ["httpx"]
    code = "import sys, json, coze_fastapi_client; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(ROOT / "client/src")},
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    assert {"app", "pydantic", "redis", "fastapi"} & set(json.loads(done.stdout)) == set()


@pytest.mark.full
@pytest.mark.timeout(300)
def test_the_wheel_installs_and_brings_its_types(tmp_path: Path) -> None:
    def pip(*arguments: str, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [python, "-m", "pip", "--disable-pip-version-check", *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=250,
        )

    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True, timeout=100)
    python = str(venv / "bin/python")
    source = tmp_path / "client"
    (source / "src").mkdir(parents=True)
    for name in ("pyproject.toml", "README.md"):
        (source / name).write_bytes((ROOT / "client" / name).read_bytes())
    package = source / "src/coze_fastapi_client"
    package.mkdir()
    for file in (ROOT / "client/src/coze_fastapi_client").iterdir():
        if file.is_file():
            (package / file.name).write_bytes(file.read_bytes())
    done = pip("install", str(source), python=python)
    if done.returncode and ("No matching distribution" in done.stderr or "Connection" in done.stderr):
        pytest.skip("no package index is reachable")
    assert done.returncode == 0, done.stderr
    code = (
        "import coze_fastapi_client as c, importlib.metadata as m, importlib.resources as r;"
        "assert r.files(c).joinpath('py.typed').is_file();"
        "assert m.version('coze-fastapi-client') == c.__version__; print(c.__file__)"
    )
    shown = subprocess.run([python, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert str(venv) in shown.stdout
