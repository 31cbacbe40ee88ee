"""Redis: reachable, new enough, writable, written to disk, and without eviction."""

import time
from typing import Any, Final

from redis import exceptions as redis_errors

from app.check.lines import Line
from app.config import Settings
from app.exceptions import Overloaded, RedisUnavailable
from app.redis_client import Keys, Number, RedisGate, open_redis
from app.redis_url import parse_redis_url

_OLDEST_VERSION: Final = (6, 2)
_NEARLY_FULL: Final = 0.8
_NAME: Final = "redis"


async def check_redis(settings: Settings, offsets: dict[str, float]) -> list[Line]:
    """Adds Redis' clock to ``offsets``."""
    url = settings.redis_url.get_secret_value()
    address = parse_redis_url(url)
    if address.kind == "memory":
        text = "memory://: sessions and chats live inside the process and die with it"
        return [Line("warn", _NAME, text, "set REDIS_URL to a Redis of 6.2 or newer", "内存存储仅供试用")]
    async with open_redis(
        url, pool_size=4, reply_timeout=settings.redis_timeout, prefix=settings.redis_prefix
    ) as gate:
        try:
            servers = await gate.info()
            before = time.time()
            clocks = await gate.on_each("TIME")
            await gate.run(Number("DEL", Keys(settings.redis_prefix).probes[0]))
        except (RedisUnavailable, Overloaded, redis_errors.RedisError) as error:
            return [_unusable(address.shown, error.__cause__ or error)]
        offsets["Redis"] = max((_seconds(c) - before for c in clocks), key=abs)
        return [
            _version(servers, address.shown, address.kind),
            await _persistence(gate, servers),
            _memory(servers),
        ]


def _seconds(clock: Any) -> float:
    seconds, micros = clock
    return int(seconds) + int(micros) / 1e6


def _unusable(shown: str, cause: BaseException) -> Line:
    fix, hint = "start it, or correct REDIS_URL", "无法连接 Redis"
    if isinstance(cause, redis_errors.AuthenticationError | redis_errors.NoPermissionError):
        fix, hint = "correct the user and password in REDIS_URL, or the user's rights", "Redis 账号或密码错误"
    elif isinstance(cause, redis_errors.ReadOnlyError):
        fix, hint = (
            "REDIS_URL leads to a replica: give the master's, or redis+sentinel://",
            "连接到了只读副本",
        )
    # Only its kind: a text could quote the address with its password.
    return Line("fail", _NAME, f"{shown} cannot be used ({type(cause).__name__})", fix, hint)


def _version(servers: list[Any], shown: str, kind: str) -> Line:
    versions = {str(info.get("redis_version", "")) for info in servers}
    oldest = min(versions, key=_version_numbers)
    what = f"Redis {oldest} at {shown}" + (f" ({len(servers)} masters)" if kind == "cluster" else "")
    if oldest and _version_numbers(oldest) < _OLDEST_VERSION:
        fix = "update it: 6.2 is the oldest that works"
        return Line("fail", _NAME, f"{what} is too old", fix, "Redis 版本过低，至少需要 6.2")
    return Line("ok", _NAME, f"{what} takes writes", "", "连接正常")


def _version_numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())


async def _persistence(gate: RedisGate, servers: list[Any]) -> Line:
    name = "persistence"
    if any(info.get("aof_last_write_status", "ok") != "ok" for info in servers):
        fix = "look into its log: the disk may be full"
        return Line("fail", name, "Redis cannot write its append-only file", fix, "AOF 写入失败")
    if all(info.get("aof_enabled") for info in servers):
        return Line("ok", name, "the append-only file is on", "", "AOF 已开启")
    try:
        replies = await gate.on_each("CONFIG", "GET", "save")
        saves = [reply[1] if isinstance(reply, list) else "" for reply in replies]
    except (redis_errors.RedisError, RedisUnavailable, Overloaded):
        saves = ["?"]
    fix = "redis-cli CONFIG SET appendonly yes, and the same in redis.conf"
    if not all(saves):
        text = "nothing is kept on disk: a restart of Redis loses every session"
        return Line("warn", name, text, fix, "未持久化，Redis 重启会丢失会话")
    text = "the append-only file is off: a crash of Redis loses what came after the last snapshot"
    return Line("warn", name, text, fix, "建议开启 AOF")


def _memory(servers: list[Any]) -> Line:
    name = "memory"
    for info in servers:
        policy, most = str(info.get("maxmemory_policy", "")), int(info.get("maxmemory", 0) or 0)
        if not most:
            continue
        if policy not in ("", "noeviction"):
            text = f"maxmemory-policy is {policy}: a full Redis throws running chats away"
            fix = "redis-cli CONFIG SET maxmemory-policy noeviction"
            return Line("warn", name, text, fix, "内存淘汰策略应为 noeviction")
        used = int(info.get("used_memory", 0) or 0) / most
        if used > _NEARLY_FULL:
            text, fix = f"{used:.0%} of maxmemory is in use", "raise maxmemory"
            return Line("warn", name, text, fix, "Redis 内存即将用尽")
    return Line("ok", name, "nothing is evicted", "", "内存策略正确")
