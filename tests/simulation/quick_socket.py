"""A socket of fakeredis that costs a third: with it most scenarios run.

It leaves out what fakeredis does at each command and need not do here: parsing requests in Python, compiling
a script, collecting garbage after it, looking for global variables at each call, notifications, and what only
other protocols and other servers need. It changes the speed alone; some scenarios run with ``PlainSocket``,
so that it cannot hide anything."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from functools import cache
from typing import Any, Final

import hiredis
from fakeredis import _msgs as msgs
from fakeredis._clients._tcp_server import encode_reply
from fakeredis._commands import COMMANDS_WITH_SUB, SUPPORTED_COMMANDS, Key, Signature
from fakeredis._core._database import CommandItem
from fakeredis._helpers import NoResponse, SimpleError
from fakeredis._socket._resp import convert_to_resp2
from fakeredis.commands_mixins import scripting_mixin as scripting

from tests.simulation.fake_server import PlainSocket, Server

_COMMANDS: Final = {
    name.upper().encode(): signature
    for name, signature in SUPPORTED_COMMANDS.items()
    if " " not in name and name not in COMMANDS_WITH_SUB and "redis" in signature.server_types
}
_VERSION: Final = (7,)
_COUNT: Final = b"function() local n = 0; for _ in pairs(_G) do n = n + 1 end; return n end"


class _Plan:
    """How a command with so many arguments takes them. ``first`` are places, with either the key's marker or
    what decodes the argument there; ``keys`` those of keys, with the type of their values."""

    def __init__(self, signature: Signature, count: int) -> None:
        types: list[Any] = list(signature.fixed)
        while len(types) < count:
            types += signature.repeat
        placed = list(enumerate(types[:count]))
        first: list[tuple[int, Any, Any]] = []
        for place, kind in placed:
            if isinstance(kind, Key):
                if kind.missing_return is not Key.UNSPECIFIED:
                    first.append((place, kind.missing_return, None))
            elif kind is not bytes:
                first.append((place, None, kind.decode))
        self.first = tuple(first)
        creates = msgs.FLAG_DO_NOT_CREATE not in signature.flags
        self.keys = tuple(
            (place, kind.type_, kind.type_ if creates and kind.type_ not in (None, bytes) else None)
            for place, kind in placed
            if isinstance(kind, Key)
        )
        self.converts = msgs.FLAG_SKIP_CONVERT_TO_RESP2 not in signature.flags
        self.removes_empty = msgs.FLAG_LEAVE_EMPTY_VAL not in signature.flags
        self.in_scripts = msgs.FLAG_NO_SCRIPT not in signature.flags


@cache
def _plan(signature: Signature, count: int) -> _Plan:
    """Raises SimpleError where so many arguments are not what it takes."""
    signature.check_arity(range(count), _VERSION)
    return _Plan(signature, count)


class QuickSocket(PlainSocket):
    """``idle``: the keys that scripts of the present packet looked for in vain; None: it does more than
    that."""

    idle: list[bytes] | None = None
    replies: list[bytes]

    def __init__(self, server: Server, reply: Callable[[bytes], None]) -> None:
        super().__init__(server, reply)
        self._requests = hiredis.Reader()

    # -- commands ----------------------------------------------------------------------------------------

    def sendall(self, data: Any) -> None:
        self._requests.feed(data)
        while not self._paused and (fields := self._requests.gets()) is not False:
            self._process_command(fields)

    def resume(self) -> None:
        self._paused = False
        self.execute(b"")

    def put_response(self, msg: Any) -> None:
        reply = _encoded(msg)
        if self.idle:
            self.replies.append(reply)
        self._reply(reply)

    def _process_command(self, fields: list[bytes]) -> None:
        signature = _COMMANDS.get(fields[0])
        if signature is None or self._transaction is not None:
            super()._process_command(fields)
            return
        self._db.time = time.time()
        function = getattr(self, signature.func_name)
        result = self._run_command(function, signature, fields[1:], False)
        if type(result) is not NoResponse:
            self.put_response(self._decode_result(result))

    def _run_command(self, func: Any, sig: Signature, args: list[Any], from_script: bool) -> Any:
        if self._server.refuses:
            return super()._run_command(func, sig, args, from_script)
        database, items = self._db, []
        self._subkey_events = []
        try:
            plan, args = _plan(sig, len(args)), list(args)
            if from_script and not plan.in_scripts:
                return SimpleError(msgs.COMMAND_IN_SCRIPT_MSG)
            for place, missing, decode in plan.first:
                if decode is not None:
                    args[place] = decode(args[place])
                elif args[place] not in database:
                    return missing
            for place, kind, made in plan.keys:
                key = args[place]
                item = database.get(key)
                if item is not None and kind is not None and type(item.value) is not kind:
                    return SimpleError(msgs.WRONGTYPE_MSG)
                fresh = made() if item is None and made is not None else None
                args[place] = CommandItem(key, database, item, default=fresh)
                items.append(args[place])
            result = func(*args)
            if plan.converts and type(result) not in (bytes, int):
                result = convert_to_resp2(result)
        except SimpleError as error:
            result = error
        for item in items:
            if item.is_modified:
                item.writeback(remove_empty_val=plan.removes_empty)
        return result

    # -- scripts -----------------------------------------------------------------------------------------

    def _lua_redis_call(self, lua_runtime: Any, expected_globals: set[Any], op: bytes, *args: Any) -> Any:
        signature = _COMMANDS.get(op)
        if signature is None or self._server.refuses:
            return super()._lua_redis_call(lua_runtime, expected_globals, op, *args)
        given = [arg if type(arg) is bytes else scripting._convert_redis_arg(arg) for arg in args]
        result = self._run_command(getattr(self, signature.func_name), signature, given, True)
        if type(result) is bytes or type(result) is int:
            return result
        return self._convert_redis_result(lua_runtime, result)

    def eval(self, script: bytes, numkeys: int, *rest: bytes) -> Any:
        """As fakeredis' own, but for what it does again and again."""
        server: Any = self._server
        runtime = self._get_server_runtime(server)
        if server.count_globals is None:
            server.count_globals = runtime.eval(_COUNT)
        known = server.chunks.get(script)
        if known is None:
            sha1 = hashlib.sha1(script, usedforsecurity=False).hexdigest().encode()
            known = server.chunks[script] = (sha1, runtime.compile(script))
        sha1, chunk = known
        server.script_cache[sha1] = script
        server._lua_current_socket[0] = self
        self._script_resp = 2
        server._lua_set_keys_argv(runtime.table_from(rest[:numkeys]), runtime.table_from(rest[numkeys:]))
        try:
            result = chunk()
        except scripting.LUA_MODULE.LuaError as error:
            raise SimpleError(msgs.SCRIPT_ERROR_MSG.format(sha1.decode(), error)) from None
        finally:
            self._script_resp = None
        if server.count_globals() != len(server._lua_expected_globals):
            scripting._check_for_lua_globals(runtime, server._lua_expected_globals)
        if type(result) is bytes or type(result) is int:
            return result
        return self._convert_lua_result(result, nested=False)

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
        super().execute(data)
        if self.idle and len(self.idle) == len(self.replies) and self.replies == [b"*0\r\n"] * len(self.idle):
            self._server.idle_packets[data] = (self.idle, b"".join(self.replies))


def _encoded(value: Any, *, nested: bool = False) -> bytes:
    kind = type(value)
    if kind is int:
        return b":%d\r\n" % value
    if kind is list:
        return b"*%d\r\n" % len(value) + b"".join([_encoded(each, nested=True) for each in value])
    if kind is bytes and nested:
        return b"$%d\r\n%b\r\n" % (len(value), value)
    return encode_reply(value, 2, nested)
