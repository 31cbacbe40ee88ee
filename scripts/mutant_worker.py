"""Runs the store tests again and again, each time with other scripts: imports and collection are paid once.

Started by ``scripts/mutants.py`` in a copy of the sources, with the Python files that are changed. It reads
a line of JSON for each run: the script or the Python function that was changed, and answers with a line. A
run is a fork of this process, so that it begins with nothing that another run has left, and can be ended
whatever it does.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
import time
import types
from pathlib import Path
from typing import Any

import pytest

TESTS = "tests/stores"
WITHOUT = ("test_survivors.py",)
"""About the mutants themselves: they look at the sources, not at what those do."""


class Runs:
    """A pytest plugin: instead of running the tests once it runs them as often as it is asked to."""

    def __init__(self, answers: int, files: set[str]) -> None:
        self._answers = answers
        self._files = files
        self._kills: dict[str, dict[str, int]] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [
            item for item in items if "redis-server" not in item.name and item.path.name not in WITHOUT
        ]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        used = self._used_by(session.items)
        self._say({"tests": len(session.items)})
        for line in sys.stdin:
            asked = json.loads(line)
            items = self._items(session.items, asked["uses"], used)
            by = self._in_a_fork(items, asked.get("function"), asked["seconds"])
            if by:
                kills = self._kills.setdefault(asked["uses"], {})
                kills[by] = kills.get(by, 0) + 1
            self._say({"by": by})
        return True

    def _say(self, answer: dict[str, Any]) -> None:
        os.write(self._answers, (json.dumps(answer) + "\n").encode())

    def _items(self, items: list[pytest.Item], what: str, used: dict[str, list[str]]) -> list[pytest.Item]:
        """Those that use the script or function. First come those that have noticed something in it, then
        those that use it last of all: what comes before is mostly how a test gets where it wants to be."""
        kills, everything = self._kills.get(what, {}), what == "prelude"
        chosen = [item for item in items if everything or what in used[item.nodeid]]

        def place(item: pytest.Item) -> tuple[int, int]:
            names = used[item.nodeid]
            return -kills.get(item.nodeid, 0), 0 if everything else len(names) - names.index(what)

        return sorted(chosen, key=place)

    def _used_by(self, items: list[pytest.Item]) -> dict[str, list[str]]:
        """Which scripts and functions each test uses, in the order in which it first does: found out by
        running all of them without any change."""
        reading, writing = os.pipe()
        if os.fork() == 0:
            names = _note_uses(self._files)
            for item, following in _in_order(items):
                names.clear()
                failed = _fails(item, following)
                line = json.dumps([item.nodeid, [*names], failed])
                os.write(writing, (line + "\n").encode())
            os._exit(0)
        os.close(writing)
        used: dict[str, list[str]] = {}
        with os.fdopen(reading) as lines:
            for nodeid, found, failed in map(json.loads, lines):
                if failed:
                    self._say({"error": f"{nodeid} fails without any change"})
                used[nodeid] = found
        os.wait()
        return used

    def _in_a_fork(self, items: list[pytest.Item], function: Any, seconds: float) -> str:
        """The first test that fails, "time" where it takes too long, or ""."""
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            if function is not None:
                _change(*function)
            for item, following in _in_order(items):
                if _fails(item, following):
                    os.write(writing, item.nodeid.encode())
                    os._exit(1)
            os._exit(0)
        os.close(writing)
        ends = time.monotonic() + seconds
        while (done := os.waitpid(pid, os.WNOHANG))[0] == 0:
            if time.monotonic() > ends:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                os.close(reading)
                return "time"
            time.sleep(0.005)
        with os.fdopen(reading) as text:
            by = text.read()
        return by or ("" if done[1] == 0 else "it ended")


def _note_uses(files: set[str]) -> dict[str, None]:
    """From now on the names of scripts that run, and of functions of these files, are put in here."""
    from app.redis_client import Script

    names: dict[str, None] = {}
    call = Script.__call__

    def recorded(script: Script[..., Any], **given: Any) -> Any:
        names[script.name] = None
        return call(script, **given)

    def called(frame: types.FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_filename in files:
            names[frame.f_code.co_qualname] = None

    Script.__call__ = recorded  # type: ignore[method-assign]
    sys.setprofile(called)
    return names


def _in_order(items: list[pytest.Item]) -> list[tuple[pytest.Item, pytest.Item | None]]:
    return list(zip(items, [*items[1:], None], strict=True))


def _fails(item: pytest.Item, following: pytest.Item | None) -> bool:
    from _pytest.runner import runtestprotocol

    return any(report.failed for report in runtestprotocol(item, log=False, nextitem=following))


def _change(module_name: str, qualified: str) -> None:
    """Gives a function the code that its file has now, wherever it has been imported."""
    module = importlib.import_module(module_name)
    assert module.__file__ is not None
    source = Path(module.__file__).read_text(encoding="utf-8")
    fresh = types.ModuleType(module_name)
    sys.modules[module_name] = fresh  # where dataclasses look for their module
    exec(compile(source, module.__file__, "exec"), fresh.__dict__)  # nosec B102 - a file of this checkout
    sys.modules[module_name] = module
    old, new = _function(module, qualified), _function(fresh, qualified)
    old.__code__ = new.__code__


def _function(module: types.ModuleType, qualified: str) -> Any:
    found: Any = module
    for name in qualified.split("."):
        found = vars(found)[name]
    if isinstance(found, property):
        return found.fget
    return getattr(found, "__func__", found)


def main() -> int:
    answers = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.path.insert(0, str(Path.cwd()))
    with contextlib.suppress(BrokenPipeError):
        arguments = [TESTS, "-q", "-s", "-p", "no:cacheprovider"]
        files = {str(Path.cwd() / name) for name in sys.argv[1:]}
        return int(pytest.main(arguments, plugins=[Runs(answers, files)]))
    return 1


if __name__ == "__main__":
    sys.exit(main())
