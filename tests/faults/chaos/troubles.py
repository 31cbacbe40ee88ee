"""What is broken while clients come and go, one thing after the other. The first replica is never ended."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from coze_simulator.auth_server import RunningAuth
from tests.faults.support import Cluster
from tests.support import ServiceProcess

HICCUPS: tuple[dict[str, Any], ...] = (
    {"path": "/v3/chat/retrieve", "http": 502, "times": 8},
    {"path": "/v3/chat/message/list", "fail": 720700801, "times": 4},
    {"path": "/v1/conversation/message/list", "http": 503, "times": 4},
    {"path": "/v3/chat", "http": 503, "times": 2},
    {"path": "/v3/chat", "fail": 4013, "times": 2},
    {"path": "/v3/chat", "first_byte": 1.0, "times": 3},
    {"path": "/v3/chat/*", "drop": True, "times": 5},
)


@dataclass
class Stand:
    """What may be broken."""

    pair: Cluster
    auth: RunningAuth
    dice: random.Random

    def victim(self) -> ServiceProcess:
        """A replica that may be ended: any but the first, by which one sees what grows over hours."""
        return self.dice.choice(self.pair.replicas[1:])


async def kill(stand: Stand) -> None:
    victim = stand.victim()
    victim.kill()
    await asyncio.sleep(stand.dice.uniform(0, 1.5))
    await asyncio.to_thread(victim.start)


async def stop(stand: Stand) -> None:
    """Alive for the system, dead for everyone else."""
    victim = stand.dice.choice(stand.pair.replicas)
    victim.pause()
    await asyncio.sleep(stand.dice.uniform(0.2, 4))
    victim.resume()


async def send_off(stand: Stand) -> None:
    victim = stand.victim()
    await asyncio.to_thread(victim.stop, 20)
    await asyncio.to_thread(victim.start)


async def silence_redis(stand: Stand) -> None:
    stand.pair.redis.pause()
    await asyncio.sleep(stand.dice.uniform(0.2, 3))
    stand.pair.redis.resume()


async def restart_redis(stand: Stand) -> None:
    await asyncio.to_thread(stand.pair.redis.kill)
    await asyncio.sleep(stand.dice.uniform(0, 1))
    await asyncio.to_thread(stand.pair.redis.start)


async def cut_redis(stand: Stand) -> None:
    """All of its connections at once."""
    with stand.pair.redis.client() as client:
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


async def hiccup(stand: Stand) -> None:
    """Coze refuses or stalls some calls."""
    stand.pair.simulator.knob(**stand.dice.choice(HICCUPS))
    await asyncio.sleep(stand.dice.uniform(0.2, 1.5))
    stand.pair.simulator.clear_knobs()


async def cut_coze(stand: Stand) -> None:
    """Coze is away altogether, behind a gateway, or silent."""
    stand.pair.simulator.upstream(stand.dice.choice(("refuse", "hang", "html502")))
    await asyncio.sleep(stand.dice.uniform(0.2, 3))
    stand.pair.simulator.upstream("ok")


async def lose_auth(stand: Stand) -> None:
    stand.auth.app.mode = stand.dice.choice(("off", "500", "hang"))
    await asyncio.sleep(stand.dice.uniform(0.2, 3))
    stand.auth.app.mode = "ok"


TROUBLES: tuple[tuple[int, Callable[[Stand], Awaitable[None]]], ...] = (
    (4, kill),
    (2, stop),
    (2, send_off),
    (2, silence_redis),
    (2, restart_redis),
    (1, cut_redis),
    (4, hiccup),
    (1, cut_coze),
    (1, lose_auth),
)
"""Each with its weight."""
