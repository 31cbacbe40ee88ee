"""fakeredis as a server behind a wire: replies as bytes, and keys that are watched."""

from __future__ import annotations

import copy
import heapq
from collections.abc import Callable
from typing import Any, Final, Literal

from fakeredis import FakeServer
from fakeredis._clients._tcp_server import encode_reply
from fakeredis._core._database import Database
from fakeredis._helpers import SimpleError, SimpleString
from fakeredis._socket import AsyncFakeSocket
from redis.asyncio import Redis

Refuses = Literal["", "readonly", "oom", "noperm"]
"""readonly: it is a replica now. oom: it is full. noperm: an ACL does not let us have our keys."""

_GROWS: Final = frozenset(
    {"HINCRBY", "HSET", "HSETNX", "INCRBY", "LPUSH", "RPUSH", "SADD", "SET", "XADD", "ZADD"}
)
"""What a server that is full refuses, unless a script has written before."""
_WRITES: Final = _GROWS | {
    *("DEL", "EXPIRE", "HDEL", "LPOP", "LREM", "LTRIM", "PEXPIRE", "SPOP", "SREM", "XTRIM", "ZREM"),
    "ZREMRANGEBYSCORE",
}
_KEYLESS: Final = frozenset({"CLIENT SETNAME", "EVAL", "EVALSHA", "HELLO", "INFO", "PING", "SELECT", "TIME"})
_TEXTS: Final = {
    "noperm": "-NOPERM this user has no permissions to access one of the keys used as arguments",
    "readonly": "-READONLY You can't write against a read only replica.",
    "oom": "-OOM command not allowed when used memory > 'maxmemory'.",
}


class _InOrder(dict[Callable[[], None], None]):
    """A set that is walked in the order in which it was filled: blocked readers wake in it."""

    def add(self, call: Callable[[], None]) -> None:
        self[call] = None

    def remove(self, call: Callable[[], None]) -> None:
        del self[call]


class WatchedDatabase(Database):
    """Remembers which keys were written without a time to live."""

    def __init__(self, lock: Any) -> None:
        super().__init__(lock)
        self._change_callbacks: Any = _InOrder()
        self._suspects: dict[bytes, None] = {}
        self._changed = False

    def notify_watch(self, key: bytes) -> None:
        """Nobody uses WATCH. Blocked readers are woken once for a packet, see ``wake_blocked``."""
        self._changed = True

    def wake_blocked(self) -> None:
        if self._changed:
            self._changed = False
            for wake in list(self._change_callbacks):
                wake()

    def get(self, key: bytes, default: Any = None) -> Any:
        item = self._dict.get(key)
        if item is None or self.expired(item):
            self._dict.pop(key, None)
            return default
        return item

    def __contains__(self, key: object) -> bool:
        return self.get(key) is not None  # type: ignore[arg-type]

    def schedule_expiry(self, key: bytes, expireat: float | None) -> None:
        if expireat is None:
            self._suspects[key] = None
        super().schedule_expiry(key, expireat)

    def keys_for_ever(self) -> list[str]:
        """Those that are there now and never expire. To be asked between two commands, not within a
        script."""
        found = []
        for key in self._suspects:
            item = self._dict.get(key)
            if item is not None and item.expireat is None:
                found.append(key.decode())
        self._suspects.clear()
        return found

    def contents(self) -> dict[bytes, Any]:
        """A copy, as a replica of this server has it."""
        return copy.deepcopy(self._dict)

    def restore(self, contents: dict[bytes, Any]) -> None:
        self._dict.clear()
        self._dict.update(contents)
        self._expiry_heap[:] = [
            (item.expireat, k) for k, item in contents.items() if item.expireat is not None
        ]
        heapq.heapify(self._expiry_heap)

    def live_keys(self, now: float) -> list[str]:
        """Sorted. ``now``: unix seconds."""
        self.time = now
        self._remove_expired()
        return sorted(key.decode() for key in self._dict)


class Server(FakeServer):
    def __init__(self) -> None:
        super().__init__(version=(7,))
        self.database = WatchedDatabase(self.lock)
        self.dbs[0] = self.database
        self.refuses: Refuses = ""
        self.idle_replies: dict[tuple[bytes, ...], Any] = {}
        self.idle_packets: dict[bytes, tuple[list[bytes], bytes]] = {}
        self.count_globals: Callable[[], int] | None = None
        self.chunks: dict[bytes, tuple[bytes, Any]] = {}

    def restart(self, contents: dict[bytes, Any]) -> None:
        """As another process with these contents: scripts are gone, too."""
        self.script_cache.clear()
        self.database.restore(contents)


class PlainSocket(AsyncFakeSocket):
    """The server's end of a connection. ``reply`` gets the bytes of each reply."""

    _server: Server
    _wrote = False

    def __init__(self, server: Server, reply: Callable[[bytes], None]) -> None:
        super().__init__(server, 0, client_class=Redis)
        self._reply = reply

    def execute(self, data: bytes) -> None:
        """All the commands of a packet."""
        self.sendall(data)
        self._server.database.wake_blocked()

    # -- refusals ----------------------------------------------------------------------------------------

    def refusal_of(self, command: str, *, wrote: bool) -> str:
        """What it says to a command, empty where it does as it is told. ``wrote``: the script has, before."""
        how = self._server.refuses
        refused = {
            "readonly": command in _WRITES,
            "oom": command in _GROWS and not wrote,
            "noperm": command not in _KEYLESS,
        }
        return _TEXTS[how] if refused.get(how) else ""

    def _lua_redis_call(self, lua_runtime: Any, expected_globals: set[Any], op: bytes, *args: Any) -> Any:
        self.check_in_script(op.decode().upper())
        return super()._lua_redis_call(lua_runtime, expected_globals, op, *args)

    def check_in_script(self, command: str) -> None:
        if self._server.refuses:
            if text := self.refusal_of(command, wrote=self._wrote):
                raise SimpleError(f"ERR Error running script (call to f_{'0' * 40}): @user_script:12: {text}")
            self._wrote = self._wrote or command in _WRITES

    def _run_command(self, func: Any, sig: Any, args: list[Any], from_script: bool) -> Any:
        if self._server.refuses and not from_script:
            self._wrote = False
            if text := self.refusal_of(sig.name.upper(), wrote=False):
                return SimpleError(text.removeprefix("-"))
        return super()._run_command(func, sig, args, from_script)

    # -- replies -----------------------------------------------------------------------------------------

    def put_response(self, msg: Any) -> None:
        self._reply(encode_reply(msg, 2))

    def _decode_result(self, result: Any) -> Any:
        """As they are: it is the client that makes exceptions of errors."""
        if isinstance(result, SimpleString):
            return result.value
        if isinstance(result, SimpleError):
            return SimpleError(result.value)
        if isinstance(result, list):
            return [self._decode_result(item) for item in result]
        return result
