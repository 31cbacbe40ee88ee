"""What is asked of Redis, and the type of its reply: commands, and Lua scripts with named keys and arguments.

Replies are those of the wire (RESP2), the same from one server, a Sentinel's master, a Cluster and the
embedded Redis: ``bytes``, ``int``, ``None`` and lists of these.
"""

import hashlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Final, Generic, NewType, ParamSpec, TypeVar, cast, get_origin, get_type_hints

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
    list: "next_list()",
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


Number = Command[int]
Text = Command[bytes | None]
Texts = Command[list[bytes]]
Fields = Command[list[bytes | None]]


class ScriptCall(Command[_T_co]):
    """A script with its keys and arguments: its digest is what travels."""

    __slots__ = ("_source",)

    def __init__(self, name: str, source: str, sha: str, parts: list[Arg], *, keys: int) -> None:
        self.name = name
        self.key = cast(Key, parts[0])
        self.parts = ("EVALSHA", sha, keys, *parts)
        self._source = source

    @property
    def in_full(self) -> tuple[Arg, ...]:
        return ("EVAL", self._source, *self.parts[2:])


class Script(Generic[_P, _T]):
    """A Lua script with the signature of a function; calling it makes the command that runs it.

    Used as a decorator of a function without a body. Its parameters, all of them keyword-only, are local
    variables in the Lua file of the same name: a ``Key`` a key, an ``int`` a number, a ``bool`` a boolean, a
    ``list`` a table, and all else a string. A NamedTuple stands for its fields.
    """

    def __init__(self, signature: Callable[_P, _T]) -> None:
        self.name: Final = signature.__name__
        self._parameters: Final = [*inspect.signature(signature).parameters]
        keys: list[str] = []
        readers: list[str] = []
        for name, kind in get_type_hints(signature).items():
            fields = get_type_hints(kind) if hasattr(kind, "_fields") else {name: kind}
            for field, hint in fields.items() if name != "return" else ():
                if hint is Key:
                    keys.append(field)
                else:
                    readers.append(f"local {field} = {_READERS[get_origin(hint) or hint]}\n")
        self._header: Final = f"local {', '.join(keys)} = unpack(KEYS)\n{''.join(readers)}"
        self._keys: Final = len(keys)

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
        parts: list[Arg] = []
        for name in self._parameters:
            value: Arg | tuple[Arg, ...] | list[Arg] = given[name]  # type: ignore[assignment]  # as declared
            if isinstance(value, str | bytes | int):
                parts.append(value)
            elif isinstance(value, tuple):
                parts += value
            else:
                parts += (len(value), *value)
        parts = [int(part) if isinstance(part, bool) else part for part in parts]
        return ScriptCall(self.name, self._source, self._sha, parts, keys=self._keys)


def pairs(flat: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Fields and values, or members and scores, of a reply that has them one behind the other."""
    return zip(flat[::2], flat[1::2], strict=True)
