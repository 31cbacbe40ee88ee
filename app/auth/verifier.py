"""From two headers to an identity: form, allow-list, cache, one shared call, claims."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

import httpx
from loguru import logger

from app.auth.bounds import CannotAsk
from app.auth.cache import Accepted, Refused, Unanswered, Verdict, VerdictCache, cache_key
from app.auth.hosts import root_of
from app.auth.lanes import Lane, LaneFull, Lanes
from app.auth.local import LocalCheck
from app.auth.options import AuthOptions
from app.auth.service import AuthService
from app.auth.tokens import is_acceptable, read_claims
from app.exceptions import AuthInvalid, AuthMissing, AuthUnavailable, ServiceError
from app.models import Identity
from app.observing.metrics import Metrics
from app.utils.signals import Portions
from app.utils.stopping import end_tasks

_NOT_ACCEPTED: Final = "The token is not accepted"
_EXPIRED: Final = "The token has expired"


class HtyVerifier:
    """Checks callers against the organisation's auth service. Close it before ``http``.

    ``clock`` is the wall clock that ``exp`` is held against, ``ticks`` the clock of the cache, which a step
    of the wall clock must not prolong; both are in seconds.

    Raises:
        ValueError: HTY_JWT_KEY cannot be used.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        options: AuthOptions,
        clock: Callable[[], float] = time.time,
        *,
        ticks: Callable[[], float] = time.monotonic,
        metrics: Metrics | None = None,
    ) -> None:
        self._metrics = metrics or Metrics()
        self._options = options
        self._clock = clock
        self._service = AuthService(http, options)
        self._local = LocalCheck(options.jwt_key) if options.jwt_key is not None else None
        self._cache = VerdictCache(
            max_entries=options.max_entries,
            accepted_ttl=options.cache_ttl,
            refused_ttl=options.negative_ttl,
            ticks=ticks,
        )
        self._flights: dict[bytes, asyncio.Task[Verdict]] = {}
        self._portions = Portions()
        self._lanes = Lanes(options.roots, options.timeout, ticks)

    async def identify(self, tokens: Sequence[str], hosts: Sequence[str]) -> Identity:
        """Who sent these values of HtySudoerToken and HtyHost (all lines of each header).

        Raises:
            AuthMissing: one of the headers is absent or empty.
            AuthInvalid: the host is not ours, or the token was refused, has expired or names no owner.
            AuthUnavailable: the auth service could not be asked, which says nothing of the token.
        """
        try:
            identity = await self._identify(tokens, hosts)
        except ServiceError as error:
            self._metrics.auth.labels(error.code).inc()
            raise
        self._metrics.auth.labels("OK").inc()
        return identity

    def knew(self, tokens: Sequence[str], hosts: Sequence[str]) -> Identity | None:
        """Whom these values stood for when they were last accepted, however long ago; lets nobody in."""
        try:
            return self._cache.knew(cache_key(*self._read(tokens, hosts)))
        except ServiceError:
            return None

    async def aclose(self) -> None:
        """Ends the calls under way; their waiters get AuthUnavailable."""
        await end_tasks(self._flights.values())

    async def _identify(self, tokens: Sequence[str], hosts: Sequence[str]) -> Identity:
        token, root = self._read(tokens, hosts)
        verdict = await self._look_up(token, root)
        # Each caller raises an exception of its own: a shared one would collect all their tracebacks.
        match verdict:
            case Unanswered():
                raise AuthUnavailable
            case Refused(message):
                raise AuthInvalid(message)
            case Accepted(identity, exp):
                if exp <= self._clock():
                    raise AuthInvalid(_EXPIRED)
                return identity

    def _read(self, tokens: Sequence[str], hosts: Sequence[str]) -> tuple[str, str]:
        """The token and the root. Which of two lines counts is a matter of taste between proxies, so two are
        refused. Raises AuthMissing, AuthInvalid."""
        # White space around a value is no part of it (RFC 9110, 5.5); not every parser takes it away.
        tokens = [value.strip(" \t") for value in tokens]
        hosts = [value.strip(" \t") for value in hosts]
        if not any(tokens) or not any(hosts):
            absent = [
                name for name, values in (("HtySudoerToken", tokens), ("HtyHost", hosts)) if not any(values)
            ]
            raise AuthMissing(f"Required and not sent: {' and '.join(absent)}")
        if len(tokens) > 1 or len(hosts) > 1:
            raise AuthInvalid("HtySudoerToken and HtyHost must be sent once each")
        root = root_of(hosts[0], self._options.roots)
        if root is None:
            raise AuthInvalid("HtyHost is not a host of this organisation")
        return tokens[0], root

    async def _look_up(self, token: str, root: str) -> Verdict:
        """The cache's verdict, or that of the key, or of the one call for this token and root."""
        key = cache_key(token, root)
        known = self._cache.get(key)
        if known is not None:
            self._metrics.auth_cache.labels("hit").inc()
            return known
        if not is_acceptable(token):
            return Refused(_NOT_ACCEPTED)
        if isinstance(hopeless := self._judge(token, root, accepted=True), Refused):
            return hopeless
        if self._local is not None:
            verdict = self._judge(token, root, accepted=self._local.is_genuine(token))
            self._cache.put(key, verdict)
            return verdict
        flight = self._flights.get(key)
        self._metrics.auth_cache.labels("miss" if flight is None else "joined").inc()
        if flight is None:
            lane = self._lanes.enter(root, known=self._cache.knew(key) is not None)
            if lane is None:
                return Unanswered()
            flight = asyncio.create_task(self._ask(token, root, key, lane), name="auth-check")
            flight.add_done_callback(lambda _: lane.leave())
            self._flights[key] = flight
            flight.add_done_callback(lambda _: self._flights.pop(key, None))
        await self._portions.after(flight)
        return Unanswered() if flight.cancelled() else flight.result()

    async def _ask(self, token: str, root: str, key: bytes, lane: Lane) -> Verdict:
        try:
            async with lane.turn():
                accepted = await self._service.accepts(token, root)
        except LaneFull:
            return Unanswered()
        except CannotAsk as error:
            logger.warning("the auth service for {} could not be asked: {}", root, error)
            return Unanswered()
        verdict = self._judge(token, root, accepted=accepted)
        self._cache.put(key, verdict)
        return verdict

    def _judge(self, token: str, root: str, *, accepted: bool) -> Accepted | Refused:
        """What follows from the payload, if it is genuine. Before the service is asked only a no counts: that
        spares the question about what it could not make good."""
        if not accepted:
            return Refused(_NOT_ACCEPTED)
        claims = read_claims(token)
        if claims is None:
            return Refused("The token does not say whose it is and until when")
        if claims.exp <= self._clock():
            return Refused(_EXPIRED)
        admin = not claims.roles.isdisjoint(self._options.admin_roles)
        return Accepted(Identity(root=root, hty_id=claims.hty_id, admin=admin), claims.exp)


LOCAL_ADMIN = Identity(root="local", hty_id=None, admin=True)
"""Everyone, where authentication is switched off."""


class NoVerifier:
    """ENABLE_AUTH=false: everyone is the same local admin."""

    async def identify(self, tokens: Sequence[str], hosts: Sequence[str]) -> Identity:
        return LOCAL_ADMIN

    def knew(self, tokens: Sequence[str], hosts: Sequence[str]) -> Identity | None:
        return None


Verifier = HtyVerifier | NoVerifier
