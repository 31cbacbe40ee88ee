"""A step that is repeated for as long as it is wanted, whatever happens to one of its rounds."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from loguru import logger

from app.exceptions import Overloaded, RedisUnavailable
from app.redis_client import RedisGate, RedisRefused
from app.utils.stopping import NoCancelLost

_AFTER_FAULT_SECONDS: Final = 1.0


async def forever(
    step: Callable[[], Awaitable[None]], redis: RedisGate, *, wanted: Callable[[], bool] = lambda: True
) -> None:
    """Until it is cancelled, or not ``wanted`` any more. While Redis is away it waits. A fault of ours is
    logged and the next round tried: one bad chat must not end the writing, renewing or claiming of all
    others. Broad on purpose, the second of three places: so a cancel must not be lost in a step, or the loop
    would take what came of it for a fault and go on."""
    while wanted():
        try:
            with NoCancelLost():
                await step()
        except RedisRefused:  # which has been logged
            await asyncio.sleep(_AFTER_FAULT_SECONDS)
            await redis.wait_open()
        except (RedisUnavailable, Overloaded):
            await asyncio.sleep(0.05)
            await redis.wait_open()
        except Exception:  # noqa: BLE001  # see above
            logger.opt(exception=True).error("a periodic step broke")
            await asyncio.sleep(_AFTER_FAULT_SECONDS)
