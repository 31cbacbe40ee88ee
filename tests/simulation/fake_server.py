"""fakeredis as a server behind a wire: replies as bytes, keys that are watched, and quicker scripts.

``QuickSocket`` leaves out what fakeredis does at each script and need not do: compiling it, collecting
garbage, looking for global variables at each call. It changes the speed alone; some scenarios run with
``PlainSocket``, so that it cannot hide anything."""

from __future__ import annotations

import copy
import heapq
from collections.abc import Callable
from typing import Any

import hiredis
from fakeredis import FakeServer
from fakeredis._clients._tcp_server import encode_reply
from fakeredis._core._database import Database
from fakeredis._helpers import SimpleError, SimpleString
from fakeredis._socket import AsyncFakeSocket
from fakeredis.commands_mixins import scripting_mixin as scripting
from redis.asyncio import Redis

_COLLECT = "collectgarbage()"


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
        self.runtime: _Runtime | None = None
        self.idle_replies: dict[tuple[bytes, ...], Any] = {}
        self.idle_packets: dict[bytes, tuple[list[bytes], bytes]] = {}

    def restart(self, contents: dict[bytes, Any]) -> None:
        """As another process with these contents: scripts are gone, too."""
        self.script_cache.clear()
        self.database.restore(contents)


class PlainSocket(AsyncFakeSocket):
    """The server's end of a connection. ``reply`` gets the bytes of each reply."""

    def __init__(self, server: Server, reply: Callable[[bytes], None]) -> None:
        super().__init__(server, 0, client_class=Redis)
        self._reply = reply

    def execute(self, data: bytes) -> None:
        """All the commands of a packet."""
        self.sendall(data)

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


class _Runtime:
    """Keeps compiled chunks, and leaves the collecting to Lua's own pace."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self._chunks: dict[bytes, Any] = {}
        self.table_from, self.globals, self.eval = real.table_from, real.globals, real.eval

    def execute(self, source: Any) -> Any:
        if source == _COLLECT:
            return None
        chunk = self._chunks.get(source)
        if chunk is None:
            chunk = self._chunks[source] = self._real.compile(source)
        return chunk()


class QuickSocket(PlainSocket):
    """``idle``: the keys that scripts of the present packet looked for in vain; None: it does more than
    that."""

    _server: Server
    idle: list[bytes] | None = None
    replies: list[bytes]

    def __init__(self, server: Server, reply: Callable[[bytes], None]) -> None:
        super().__init__(server, reply)
        self._requests = hiredis.Reader()  # fakeredis' own copies the rest of a packet at each line

    def sendall(self, data: Any) -> None:
        self._requests.feed(data)
        while not self._paused and (fields := self._requests.gets()) is not False:
            self._process_command(fields)

    def resume(self) -> None:
        self._paused = False
        self.sendall(b"")

    def put_response(self, msg: Any) -> None:
        reply = encode_reply(msg, 2)
        if self.idle:
            self.replies.append(reply)
        self._reply(reply)

    def _get_server_runtime(self, server: Any) -> Any:
        if server.runtime is None:
            server.runtime = _Runtime(super()._get_server_runtime(server))
        return server.runtime

    def _lua_redis_call(self, lua_runtime: Any, expected_globals: set[Any], op: bytes, *args: Any) -> Any:
        func, signature = self._name_to_func(op.decode().lower())
        if func is None:
            return super()._lua_redis_call(lua_runtime, expected_globals, op, *args)
        given = [scripting._convert_redis_arg(arg) for arg in args]
        return self._convert_redis_result(lua_runtime, self._run_command(func, signature, given, True))

    def evalsha(self, sha1: bytes, numkeys: int, *rest: bytes) -> Any:
        """A script that finds its only key missing, and writes nothing, says the same each time: hundreds of
        thousands of such looks are what hours of waiting consist of. The first look is a real one."""
        if numkeys != 1 or rest[0] in self._db:
            self.idle = None
            return super().evalsha(sha1, numkeys, *rest)
        idle, asked = self._server.idle_replies, (sha1, *rest[1:])
        if asked not in idle or sha1 not in self._server.script_cache:
            self.idle, keys = None, len(self._db._dict)
            reply = super().evalsha(sha1, numkeys, *rest)
            if reply == [] and len(self._db._dict) == keys:
                idle[asked] = reply
            return reply
        if self.idle is not None:
            self.idle.append(rest[0])
        return idle[asked]

    def execute(self, data: bytes) -> None:
        known = self._server.idle_packets.get(data)
        if known is not None and self._server.script_cache and self._db._dict.keys().isdisjoint(known[0]):
            self._reply(known[1])
            return
        self.idle, self.replies = [], []
        self.sendall(data)
        if self.idle and len(self.idle) == len(self.replies) and self.replies == [b"*0\r\n"] * len(self.idle):
            self._server.idle_packets[data] = (self.idle, b"".join(self.replies))
