"""What is asked of Redis, and the type of its reply: commands, and Lua scripts with named keys and arguments.

Replies are those of the wire (RESP2), the same from one server, a Sentinel's master, a Cluster and the
embedded Redis: ``bytes``, ``int``, ``None`` and lists of these.
"""

import hashlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Final, Generic, NewType, ParamSpec, TypeVar, cast, get_origin

Arg = str | bytes | int
Key = NewType("Key", str)
"""A key's name, or what the names of several keys of one slot begin with. ``Keys`` makes them."""

_P = ParamSpec("_P")
_T = TypeVar("_T")
_T_co = TypeVar("_T_co", covariant=True)

_LUA_DIR: Final = Path(__file__).parents[1] / "stores" / "lua"
_READERS: Final[dict[object, str]] = {
    str: "next_argument()",
    bytes: "next_argument()",
    int: "tonumber(next_argument())",
    bool: "next_argument() == '1'",
    Sequence: "next_list()",
}
"""How Lua reads an argument that Python declares so."""


class Command(Generic[_T_co]):
    """A command whose reply is a ``_T_co``, as in ``Command[int]("DEL", key, another_key)``.

    Args:
        name: what the command is called.
        key: its first key; all that it has share a slot.
        more: what follows.
    """

    __slots__ = ("key", "name", "parts")

    def __init__(self, name: str, key: Key, *more: Arg) -> None:
        self.name = name
        self.key = key
        self.parts: tuple[Arg, ...] = (name, key, *more)

    @property
    def in_full(self) -> tuple[Arg, ...]:
        """The same for a server that knows no script yet."""
        return self.parts


class ScriptCall(Command[_T_co]):
    """A script with its keys and arguments: its digest is what travels."""

    __slots__ = ("_source",)

    def __init__(self, name: str, source: str, sha: str, keys: list[Key], arguments: list[Arg]) -> None:
        self.name = name
        self.key = keys[0]
        self.parts = ("EVALSHA", sha, len(keys), *keys, *arguments)
        self._source = source

    @property
    def in_full(self) -> tuple[Arg, ...]:
        return ("EVAL", self._source, *self.parts[2:])


class Script(Generic[_P, _T]):
    """A Lua script with the signature of a function; calling it makes the command that runs it.

    Used as a decorator. The function has no body, and keyword-only parameters, whose names are those of local
    variables in the Lua file of the same name. A ``Key``, or a NamedTuple of them, is a key; ``int`` arrives
    in Lua as a number, ``bool`` as a boolean, a ``Sequence`` as a table, and all else as a string.
    """

    def __init__(self, signature: Callable[_P, _T]) -> None:
        self.name: Final = signature.__name__
        self._keys: list[str] = []
        self._arguments: list[str] = []
        locals_of_keys: list[str] = []
        header: list[str] = []
        for name, parameter in inspect.signature(signature).parameters.items():
            kind = get_origin(parameter.annotation) or parameter.annotation
            names = (name,) if kind is Key else getattr(kind, "_fields", ())
            if names:
                self._keys.append(name)
                locals_of_keys += names
            else:
                self._arguments.append(name)
                header.append(f"local {name} = {_READERS[kind]}\n")
        self._header = f"local {', '.join(locals_of_keys)} = unpack(KEYS)\n{''.join(header)}"

    @cached_property
    def _source(self) -> str:
        prelude, body = (
            (_LUA_DIR / f"{name}.lua").read_text(encoding="utf-8") for name in ("prelude", self.name)
        )
        return prelude + self._header + body

    @cached_property
    def _sha(self) -> str:
        return hashlib.sha1(self._source.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, *_: _P.args, **given: _P.kwargs) -> Command[_T]:
        keys: list[Key] = []
        for name in self._keys:
            key = cast("Key | tuple[Key, ...]", given[name])
            keys += key if isinstance(key, tuple) else (key,)
        arguments: list[Arg] = []
        for name in self._arguments:
            value = cast("Arg | Sequence[Arg]", given[name])
            if isinstance(value, str | bytes | int):
                arguments.append(int(value) if isinstance(value, bool) else value)
            else:
                arguments += (len(value), *value)
        return ScriptCall(self.name, self._source, self._sha, keys, arguments)


def pairs(flat: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Fields and values, or members and scores, of a reply that has them one behind the other."""
    return zip(flat[::2], flat[1::2], strict=True)
