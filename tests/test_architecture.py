"""The rules of the layout, held by reading the source: who may import whom, and how big things may get."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .support import settings_names

ROOT = Path(__file__).resolve().parents[1]

LEVELS = {
    "utils": 0,
    "exceptions": 0,
    "config": 1,
    "models": 2,
    "observing": 2,
    "logging_config": 2,
    "coze": 3,
    "redis_client": 3,
    "stores": 4,
    "auth": 5,
    "tasks": 5,
    "error_handlers": 5,
    "factory": 7,
    "http": 8,
    "routes": 9,
    "doors": 9,
    "main": 10,
    "check": 10,
    "__main__": 11,
}
"""A part imports from lower levels and from itself, never sideways or upward."""

FORBIDDEN = {
    "routes": {"redis", "httpx", "fakeredis", "aiohttp", "app.coze", "app.redis_client", "app.stores"},
    "doors": {"redis", "httpx", "fakeredis", "aiohttp", "app.coze", "app.redis_client", "app.stores"},
    "http": {"redis", "httpx", "fakeredis", "aiohttp", "app.coze", "app.redis_client", "app.stores"},
    "tasks": {"fastapi", "starlette", "http", "redis", "httpx", "aiohttp"},
    "coze": {"redis", "fakeredis", "fastapi", "starlette", "app.models"},
    "stores": {"fastapi", "starlette", "httpx", "aiohttp", "app.coze"},
    "redis_client": {"fastapi", "starlette", "httpx", "aiohttp", "app.coze"},
    "auth": {"redis", "app.stores", "app.redis_client", "app.tasks", "app.coze"},
    "models": {"fastapi", "starlette", "redis", "httpx", "app.config"},
    "exceptions": {"fastapi", "starlette", "redis", "httpx"},
}

BROAD_EXCEPTS = {
    "app/http/middleware.py:serve",  # the last resort of a request: an answer, and one line in the log
    "app/http/sse.py:_take",  # a reader's fault is raised in its own task, not in that of the chat
    "app/stores/loops.py:forever",  # a periodic loop outlives its faults
    "app/tasks/runner.py:run",  # a fault of ours must end the chat as failed
}
"""The only places that may catch everything; at most four."""

MAX_FUNCTION_LINES = 60
MAX_FILE_LINES = 450


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def part_of(module: str) -> str:
    """``app.coze.client`` -> ``coze``; the package ``app`` itself has only its version."""
    return module.split(".")[1] if "." in module else ""


def imports_of(path: Path) -> Iterator[str]:
    """Every module that is imported anywhere in the file, in functions and for types too."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])
            # `from app import config` names a module, `from app import __version__` does not.
            names = [alias.name for alias in node.names if f"{base}" == "app" and alias.name in LEVELS]
            yield from ([f"app.{name}" for name in names] or [base])


def is_within(module: str, prefix: str) -> bool:
    return module == prefix or module.startswith(prefix + ".")


@pytest.mark.parametrize("path", sources("app"), ids=name_of)
def test_imports_run_downward_only(path: Path) -> None:
    part = part_of(name_of(path).removesuffix(".py").replace("/", "."))
    if part == "__init__":
        assert not [module for module in imports_of(path) if is_within(module, "app")]
        return
    assert part in LEVELS, f"say in LEVELS where {part} stands"
    wrong = []
    for module in imports_of(path):
        assert not is_within(module, "coze_simulator"), "the service knows nothing of the simulator"
        assert not is_within(module, "tests")
        target = part_of(module) if is_within(module, "app") else ""
        if target and target != part and LEVELS[target] >= LEVELS[part]:
            wrong.append(module)
        if any(is_within(module, prefix) for prefix in FORBIDDEN.get(part, ())):
            wrong.append(module)
    assert wrong == []


def test_the_simulator_imports_nothing_of_the_service() -> None:
    wrong = {name_of(p): m for p in sources("coze_simulator") for m in imports_of(p) if is_within(m, "app")}
    assert wrong == {}


def test_tasks_know_no_status_codes() -> None:
    words = {"status_code", "HTTPStatus", "HTTPException"}
    found = [
        f"{name_of(path)}:{node.lineno}"
        for path in sources("app/tasks")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Attribute) and node.attr in words)
        or (isinstance(node, ast.Name) and node.id in words)
    ]
    assert found == []


@pytest.mark.parametrize("package", ["app", "coze_simulator"])
def test_nothing_is_global(package: str) -> None:
    found = [
        f"{name_of(path)}:{node.lineno}"
        for path in sources(package)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Global)
    ]
    assert found == []


def broad_excepts(path: Path) -> Iterator[str]:
    """``file:function`` of each handler that catches everything."""

    def walk(node: ast.AST, function: str) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            inner = child.name if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) else function
            caught: list[ast.expr | None] = []
            if isinstance(child, ast.ExceptHandler):
                caught = [child.type]
            elif isinstance(child, ast.Call) and ast.unparse(child.func).endswith("suppress"):
                caught = [*child.args]
            if any(map(_catches_all, caught)):
                yield f"{name_of(path)}:{function}"
            yield from walk(child, inner)

    yield from walk(ast.parse(path.read_text(encoding="utf-8")), "<module>")


def _catches_all(caught: ast.expr | None) -> bool:
    if caught is None:
        return True
    kinds = caught.elts if isinstance(caught, ast.Tuple) else [caught]
    return any(isinstance(kind, ast.Name) and kind.id in ("Exception", "BaseException") for kind in kinds)


def test_everything_is_caught_in_four_named_places_at_most() -> None:
    found = sorted(place for path in sources("app") for place in broad_excepts(path))
    assert set(found) <= BROAD_EXCEPTS, "name the place in BROAD_EXCEPTS, or catch what you expect"
    assert len(found) <= 4


def test_the_simulator_catches_only_what_it_expects() -> None:
    assert [place for path in sources("coze_simulator") for place in broad_excepts(path)] == []


@pytest.mark.parametrize("package", ["app", "coze_simulator"])
def test_functions_and_files_stay_short(package: str) -> None:
    long = []
    for path in sources(package):
        text = path.read_text(encoding="utf-8")
        if (lines := text.count("\n")) > MAX_FILE_LINES:
            long.append(f"{name_of(path)}: {lines} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    long.append(f"{name_of(path)}:{node.name}: {lines} lines")
    assert long == []


def test_a_message_passes_ten_files_on_its_way_to_coze_at_most() -> None:
    """As ARCHITECTURE.md lists them: each is there, and once."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    way = text.partition("**A message on its way to Coze** passes")[2].partition("**")[0]
    files = re.findall(r"`([a-z_]+/[a-z_]+)`", way)
    assert 5 < len(files) <= 10
    assert len(set(files)) == len(files)
    assert [name for name in files if not (ROOT / "app" / f"{name}.py").is_file()] == []


SPY = """
import json, os, sys
asked = set()
read = os._Environ.__getitem__
os._Environ.__getitem__ = lambda self, name: (asked.add(name), read(self, name))[1]
import app.main
asked_by_import = sorted(asked)
assert app.main.app.title
print(json.dumps(asked_by_import))
"""


def test_importing_the_application_reads_no_environment(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("COZE_BOT_ID=not a bot\nPORT=none\n")
    wrong = dict.fromkeys(settings_names(), "wrong on purpose")
    done = subprocess.run(
        [sys.executable, "-c", SPY],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **wrong},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert settings_names() & set(json.loads(done.stdout)) == set()
