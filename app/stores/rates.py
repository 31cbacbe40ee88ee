"""Token buckets in Redis: for each kind of call one in each layer of the limits, shared by all replicas.

All buckets share a slot, so that a call takes a token of each layer or of none, in one step: who is refused
uses up nobody else's tokens, there is nothing to be given back, and it costs one command, as one bucket did.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Final, Literal, NamedTuple

from attrs import define, field

from app.exceptions import RateLimited, SessionNotFound
from app.observing.metrics import Metrics
from app.redis_client import Fields, Keys, RedisGate
from app.stores.index import whose
from app.stores.layers import LAYERS, Limits
from app.stores.scripts import rate_take
from app.utils import is_session_id

RateKind = Literal["messages", "sessions", "files", "calls", "reports"]
"""``calls``: what goes on to Coze and is none of the others. ``reports``: what costs Redis thousands of
commands, erasures of users among them."""
_REMEMBERED: Final = 10_000


class Payer(NamedTuple):
    """Whose tokens a call takes. ``user``: as the indexes name him."""

    owner: str
    user: str


@define(eq=False, repr=False)
class RateStore:
    """``per_minute``: tokens for each kind and layer."""

    _redis: RedisGate
    _keys: Keys
    _per_minute: Mapping[RateKind, Limits]
    _metrics: Metrics = field(kw_only=True, factory=Metrics)
    _payers: OrderedDict[str, Payer] = field(init=False, factory=OrderedDict)

    async def take(self, kind: RateKind, owner: str, user: str | None) -> None:
        """One token of the user's, his owner's, its root's and the service's bucket; none where one of them
        has none. ``user``: as the indexes name him; None: the call is nobody's in particular.

        Raises ``RateLimited`` with the layer, ``Retry-After`` and ``RateLimit-*``.
        """
        await self._ask(kind, owner, user, takes=True)

    async def look(self, kind: RateKind, owner: str, user: str | None) -> None:
        """Raises what ``take`` would raise, and takes nothing: for work before it is known whether the call
        is one that is taken."""
        await self._ask(kind, owner, user, takes=False)

    async def _ask(self, kind: RateKind, owner: str, user: str | None, *, takes: bool) -> None:
        limits = self._per_minute[kind]
        rates = limits.numbers(owner)
        if user is None:
            rates = [0, *rates[1:]]
        if not any(rates):
            return
        names = whose(owner, user or "")
        buckets = self._keys.rate(kind, names.user, names.owner, names.root)
        wait_ms, layer = await self._redis.run(rate_take(buckets=buckets, takes=takes, per_minute=[*rates]))
        if wait_ms:
            seconds = max(1, math.ceil(wait_ms / 1000))
            message, details = limits.refusal(owner, layer)
            self._metrics.refused(limits.name, LAYERS[layer])
            raise RateLimited(
                message,
                details=details,
                retry_after=seconds,
                headers={
                    "RateLimit-Limit": str(rates[layer]),
                    "RateLimit-Remaining": "0",
                    "RateLimit-Reset": str(seconds),
                },
            )

    async def payer_of(self, session_id: str, owner_matches: Callable[[str], bool]) -> Payer:
        """The session's owner and user.

        Who a session belongs to never changes, so it is asked once and remembered. A caller who may not
        see the session takes nothing and is told at once, after the same one question as for a session that
        does not exist: neither the memory here nor what a sender waits for next tells the two apart.

        Raises ``SessionNotFound``.
        """
        if not is_session_id(session_id):
            raise SessionNotFound
        known = self._payers.get(session_id)
        if known is None or not owner_matches(known.owner):
            owner, user = await self._redis.run(
                Fields("HMGET", self._keys.session(session_id), "owner", "user")
            )
            if owner is None or user is None or not owner_matches(owner.decode()):
                raise SessionNotFound
            known = self._payers[session_id] = Payer(owner.decode(), user.decode())
            if len(self._payers) > _REMEMBERED:
                self._payers.popitem(last=False)
        return known
