"""What may be long, in portions: others have their turn in between, at Redis and in this process."""

from collections.abc import AsyncIterator
from typing import Final, Literal

from app.redis_client import Command, Key, RedisGate

AT_ONCE: Final = 500
Portion = Command[tuple[bytes, list[bytes]]]
FROM_THE_FIRST: Final = b"0"


def portion(name: Literal["SSCAN", "ZSCAN"], key: Key, place: bytes) -> Portion:
    """-> where the next portion begins (``FROM_THE_FIRST`` after the last), and what is in this one: members,
    of a sorted set with their scores. What is there all the time comes, some of it perhaps twice."""
    return Portion(name, key, place, "COUNT", AT_ONCE)


async def portions(redis: RedisGate, name: Literal["SSCAN", "ZSCAN"], key: Key) -> AsyncIterator[list[bytes]]:
    """All of them, see ``portion``."""
    place = FROM_THE_FIRST
    while True:
        place, some = await redis.run(portion(name, key, place))
        yield some
        if place == FROM_THE_FIRST:
            return
