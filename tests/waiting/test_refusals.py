"""Redis says no, in every way that it has: what the gate makes of it, and what ``check`` says."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import re
import socket
import ssl
from pathlib import Path

import pytest
from redis import exceptions as redis_errors

from app.check.store import check_redis
from app.exceptions import RedisUnavailable
from app.redis_client import Command, Number, RedisRefused, open_redis, reason
from app.redis_client.refusals import is_away, is_read_only
from tests.support import RedisServer, make_settings, redis_server, wait_until

ROOT = Path(__file__).resolve().parents[2]
WRAPPED = "Error running script (call to f_" + "a1" * 20 + "): @user_script:12: @user_script: 12: -"
PASSWORD = "never-shown"


@pytest.mark.parametrize("before", ["", WRAPPED, "ERR " + WRAPPED], ids=["plain", "wrapped", "wrapped ERR"])
@pytest.mark.parametrize(
    ("text", "away"),
    [
        ("READONLY You can't write against a read only replica.", True),
        ("OOM command not allowed when used memory > 'maxmemory'.", True),
        ("NOREPLICAS Not enough good replicas to write.", True),
        ("MISCONF Redis is configured to save RDB snapshots", True),
        ("MASTERDOWN Link with MASTER is down", True),
        ("CLUSTERDOWN The cluster is down", True),
        ("LOADING Redis is loading the dataset in memory", True),
        ("BUSY Redis is busy running a script.", True),
        ("UNBLOCKED force unblock from blocking operation", True),
        ("DENIED Redis is running in protected mode", True),
        ("NOAUTH Authentication required.", True),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", False),
        ("BUSYGROUP Consumer Group name already exists", False),
        ("Script attempted to access a non local key", False),
        ("unknown command 'EVALSHA'", False),
        ("unknown command `SENTINEL`, with args beginning with: `MASTERS`,", True),
    ],
)
def test_an_error_means_the_same_whether_it_came_out_of_a_script_or_not(
    before: str, text: str, *, away: bool
) -> None:
    error = redis_errors.ResponseError(before + text)
    assert is_away(error) is away
    assert is_read_only(error) is text.startswith("READONLY")
    assert reason(error) == f"ResponseError: {text}"


@pytest.mark.parametrize("kind", [redis_errors.ConnectionError, redis_errors.TimeoutError, OSError])
def test_what_no_server_said_is_told_by_its_kind_alone(kind: type[Exception]) -> None:
    assert reason(kind(f"redis://u:{PASSWORD}@host")) == kind.__name__


def caused(error: BaseException, text: str = f"redis://u:{PASSWORD}@host") -> BaseException:
    """As redis-py does it: an error of its own, whose text quotes the address."""
    found = redis_errors.ConnectionError(text)
    found.__context__ = error
    return found


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (caused(ConnectionRefusedError(errno.ECONNREFUSED, PASSWORD)), "Connection refused"),
        (caused(ConnectionResetError(errno.ECONNRESET, PASSWORD)), "Connection reset by peer"),
        (caused(OSError(errno.EHOSTUNREACH, PASSWORD)), "No route to host"),
        (caused(FileNotFoundError(errno.ENOENT, PASSWORD)), "No such file or directory"),
        (caused(PermissionError(errno.EACCES, PASSWORD)), "Permission denied"),
        (caused(socket.gaierror(-2, PASSWORD)), "its host name is not known"),
        (caused(ssl.SSLError(1, PASSWORD)), "TLS failed (no reason)"),
        (redis_errors.ConnectionError("Connection closed by server."), "the connection was closed"),
        (
            redis_errors.ConnectionError(f"Error while reading from socket: {PASSWORD}"),
            "connection was closed",
        ),
        (redis_errors.ConnectionError("max number of clients reached"), "max number of clients reached"),
        (redis_errors.InvalidResponse(f"Protocol Error: {PASSWORD}"), "what answers there is no Redis"),
        (redis_errors.RedisClusterException("Cluster mode is not enabled on this node"), "no Redis Cluster"),
        (redis_errors.ConnectionError(f"No master found for {PASSWORD}"), "no Sentinel knows a master"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_why_a_connection_cannot_be_had_is_told_without_the_address(error: Exception, told: str) -> None:
    assert is_away(error)
    assert told in reason(error)
    assert PASSWORD not in reason(error)


@pytest.mark.parametrize(
    ("greeting", "told", "remedy"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "no Redis", "something else listens there"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "no Redis", "something else listens there"),
        (b"J\x00\x00\x00\n8.0.36\x00", "no Redis", "something else listens there"),
        (b"220 mail.example ESMTP\r\n", "no Redis", "something else listens there"),
        (b"-ERR max number of clients reached\r\n", "max number of clients", "raise its maxclients"),
        (b"-LOADING Redis is loading the dataset in memory\r\n", "Loading", "start it"),
    ],
)
async def test_what_answers_and_is_no_redis_is_away_and_named(
    greeting: bytes, told: str, remedy: str
) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while await reader.read(65536):
                writer.write(greeting)
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        settings = make_settings(REDIS_URL=f"redis://127.0.0.1:{port}/0", REDIS_TIMEOUT="5")
        async with open_redis(settings.redis_url.get_secret_value(), pool_size=4, reply_timeout=5) as gate:
            assert not await gate.works(thorough=True)
            assert gate.away
            assert told in gate.why
        lines = await check_redis(settings, {})
        assert lines[0].severity == "fail"
        assert remedy in lines[0].fix


@pytest.mark.parametrize(
    ("form", "told", "remedy"),
    [
        ("redis+sentinel://127.0.0.1:{}/main/0", "SENTINEL", "the port of the Sentinels"),
        ("redis+cluster://127.0.0.1:{}", "no Redis Cluster", "write redis://"),
        ("redis://127.0.0.1:{}/4000", "DB index is out of range", "correct REDIS_URL"),
    ],
)
async def test_an_address_of_another_kind_of_redis_is_away_and_named(
    form: str, told: str, remedy: str, redis: RedisServer
) -> None:
    settings = make_settings(REDIS_URL=form.format(redis.port))
    async with open_redis(settings.redis_url.get_secret_value(), pool_size=4, reply_timeout=5) as gate:
        with pytest.raises(RedisUnavailable):
            await gate.run(Command("GET", "coze:a"))
        assert gate.away
        assert told in gate.why
    [line] = await check_redis(settings, {})
    assert line.severity == "fail"
    assert remedy in line.fix


RIGHTS = [
    *("-eval", "-evalsha", "-time", "-xadd", "-@stream", "-@sortedset", "-@hash", "-@list", "-@set"),
    *("-@write", "-pexpire", "-del", "-incrby", "-xread", "resetkeys ~coze:{0*", "resetkeys ~other:*"),
]


@pytest.mark.parametrize("rights", RIGHTS)
async def test_a_right_that_is_missing_is_found_at_the_start_and_named(
    rights: str, redis: RedisServer
) -> None:
    with redis.client() as client:
        user = ("ACL", "SETUSER", "app", "reset", "on", f">{PASSWORD}", "~*", "&*", "+@all")
        client.execute_command(*user, *rights.split())
    url = f"redis://app:{PASSWORD}@127.0.0.1:{redis.port}/0"
    async with open_redis(url, pool_size=8, reply_timeout=5) as gate:
        assert not await gate.works(thorough=True)
        assert gate.away
        with pytest.raises(RedisUnavailable):
            await gate.run(Command("GET", "coze:a"))
        with redis.client() as client:
            client.execute_command("ACL", "SETUSER", "app", "allkeys", "+@all")
        await gate.wait_open()
    with redis.client() as client:
        client.execute_command(*user, *rights.split())
    [line] = await check_redis(make_settings(REDIS_URL=url), {})
    assert line.severity == "fail"
    assert any(words in line.text for words in ("permission", "can't run", "key")), line
    assert PASSWORD not in str(line)


@pytest.mark.parametrize("language", ["en", "zh"])
async def test_the_rights_that_the_documentation_names_are_enough(language: str, redis: RedisServer) -> None:
    text = (ROOT / "docs" / language / "configuration.md").read_text(encoding="utf-8")
    [line] = re.findall(r"^ACL SETUSER .*$", text, re.MULTILINE)
    with redis.client() as client:
        client.execute_command(*line.replace("PASSWORD", PASSWORD).split())
    url = f"redis://coze:{PASSWORD}@127.0.0.1:{redis.port}/0"
    lines = await check_redis(make_settings(REDIS_URL=url), {})
    assert lines[0].severity == "ok", lines[0]


async def test_a_command_that_is_refused_alone_is_told_and_closes_nothing(redis: RedisServer) -> None:
    async with open_redis(redis.url, pool_size=8, reply_timeout=5) as gate:
        await gate.run(Command("SET", "coze:odd", "text", "PX", 60_000))
        with pytest.raises(RedisRefused):
            await gate.run(Number("ZCARD", "coze:odd"))
        assert not await gate.found_away()
        assert await gate.run(Command("GET", "coze:odd")) == b"text"


@pytest.mark.parametrize(
    ("name", "bad", "good"), [("min-replicas-to-write", "1", "0"), ("maxmemory", "500kb", "0")]
)
async def test_a_server_that_takes_no_writes_is_away_until_it_does(
    name: str, bad: str, good: str, own_redis: RedisServer
) -> None:
    async with open_redis(own_redis.url, pool_size=8, reply_timeout=5) as gate:
        assert await gate.works(thorough=True)
        for thorough in (False, True):  # the one finds it away, the other must not take it for back
            with own_redis.client() as client:
                client.config_set(name, bad)
                assert not await gate.works(thorough=thorough)
                assert gate.away
                client.config_set(name, good)
            await gate.wait_open()
            assert await gate.works()


async def test_a_socket_on_this_machine_works(tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    with redis_server(options=["--unixsocket", str(path)]):
        await wait_until(path.exists, 30)
        async with open_redis(f"unix://{path}", pool_size=4, reply_timeout=5) as gate:
            assert await gate.works(thorough=True), gate.why


async def test_a_light_probe_changes_nothing(redis: RedisServer) -> None:
    async with open_redis(redis.url, pool_size=4, reply_timeout=5) as gate:
        assert await gate.works(thorough=True)
        with redis.client() as client:
            before = client.info("persistence")["rdb_changes_since_last_save"]
            assert await gate.works()
            assert client.info("persistence")["rdb_changes_since_last_save"] == before
    assert redis.key_names() == []
