"""Redis: reachable, new enough, with all rights, writable, written to disk, and without eviction."""

import time
from contextlib import suppress
from typing import Any, Final

from redis import exceptions as redis_errors

from app.check.lines import Line
from app.config import Settings
from app.config.redis_url import parse_redis_url
from app.exceptions import Overloaded, RedisUnavailable
from app.redis_client import RedisGate, open_redis

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
        servers = await _infos(gate)
        version = _version(servers, address.shown, address.kind)
        if version.severity == "fail":
            return [version]
        if not await gate.works(thorough=True):
            return [_unusable(address.shown, gate.why)]
        before = time.time()
        with suppress(RedisUnavailable, Overloaded, redis_errors.RedisError):
            offsets["Redis"] = max((_seconds(c) - before for c in await gate.on_each("TIME")), key=abs)
        if not servers:
            text, fix = "INFO is refused: version, persistence and memory are not looked at", "allow +info"
            return [version, Line("warn", "memory", text, fix, "没有 INFO 权限，无法检查内存策略")]
        return [version, await _persistence(gate, servers), _memory(servers)]


async def _infos(gate: RedisGate) -> list[Any]:
    """INFO of each server; nothing where that is refused, which the service can do without."""
    try:
        return await gate.info()
    except (RedisUnavailable, Overloaded, redis_errors.RedisError):
        return []


def _seconds(clock: Any) -> float:
    seconds, micros = clock
    return int(seconds) + int(micros) / 1e6


_RIGHTS: Final = "give the user the rights that docs/en/configuration.md names"
_LOGIN: Final = "correct the user and password in REDIS_URL"
_REMEDIES: Final = (
    (("DENIED",), "set a password for Redis: protected mode is on", "Redis 处于保护模式"),
    (("NoPermission", "NOPERM", "permissions", "can't run this command"), _RIGHTS, "Redis 账号缺少权限"),
    (("Authentication", "NOAUTH", "WRONGPASS", "password"), _LOGIN, "Redis 账号或密码错误"),
    (
        ("READONLY", "ReadOnly"),
        "REDIS_URL leads to a replica: give the master's, or redis+sentinel://",
        "连接到了只读副本",
    ),
    (("there is no Redis",), "correct host and port: something else listens there", "该端口不是 Redis"),
    (("max number of clients",), "raise its maxclients, or close what holds connections", "Redis 连接数已满"),
    (("is no Redis Cluster",), "write redis:// in place of redis+cluster://", "该 Redis 不是集群"),
    (
        ("Moved", "ClusterDown"),
        "write redis+cluster://, or look why its Cluster is down",
        "请检查 Redis 集群",
    ),
    (("SENTINEL",), "give the port of the Sentinels, mostly 26379", "该端口不是哨兵"),
    (("no Sentinel knows",), "correct the service's name in REDIS_URL", "哨兵不认识该主节点名称"),
    (
        ("TLS failed",),
        "give rediss:// only where Redis speaks TLS, and look at the certificates",
        "TLS 连接失败",
    ),
    (("certificate",), "name its authority: rediss://...?ssl_ca_certs=/path/ca.pem", "Redis 的证书不受信任"),
    (("OOM", "OutOfMemory"), "raise maxmemory: Redis is full", "Redis 内存已满"),
    (("NOREPLICAS",), "start its replicas, or lower min-replicas-to-write", "Redis 副本数不足"),
    (("MISCONF",), "look into its log: it cannot write to its disk", "Redis 无法写盘"),
    (
        ("undeclared", "non local key", "not declared"),
        "use a Redis that lets scripts make the names of keys (not a proxy)",
        "该 Redis 不允许脚本拼接键名",
    ),
    (
        ("ResponseError",),
        "use a Redis of 6.2 or newer that runs Lua scripts",
        "需要支持 Lua 的 Redis 6.2+",
    ),
)
"""What is in the reason, what helps, and the same in Chinese; the first that fits."""


def _unusable(shown: str, why: str) -> Line:
    """``why``: the server's own words, or the kind of the fault; nothing of the address."""
    fitting = ((fix, hint) for words, fix, hint in _REMEDIES if any(word in why for word in words))
    fix, hint = next(fitting, ("start it, or correct REDIS_URL", "无法连接 Redis"))
    return Line("fail", _NAME, f"{shown} cannot be used ({why.rstrip('.')})", fix, hint)


def _version(servers: list[Any], shown: str, kind: str) -> Line:
    versions = {str(info.get("redis_version", "")) for info in servers}
    oldest = min(versions, key=_version_numbers, default="")
    what = f"Redis{oldest and ' '}{oldest} at {shown}" + (
        f" ({len(servers)} masters)" if kind == "cluster" else ""
    )
    if oldest and _version_numbers(oldest) < _OLDEST_VERSION:
        fix = "update it: 6.2 is the oldest that works"
        return Line("fail", _NAME, f"{what} is too old", fix, "Redis 版本过低，至少需要 6.2")
    return Line("ok", _NAME, f"{what} takes writes and scripts", "", "连接正常")


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
