"""All limits that have layers, from the settings."""

import math
from collections.abc import Mapping
from typing import Final, NamedTuple

from app.config import Settings
from app.coze.retry import BURST
from app.stores.layers import PLACE_BYTES, Layer, Limit, Limits, Shares
from app.stores.rates import RateKind

_MESSAGES_TO_A_REPORT: Final = 6
"""There may be a sixth as many reports and erasures, each of which costs Redis thousands of commands."""
_BODIES: Final = Limit(256 * 1024 * 1024 // PLACE_BYTES, "256 MiB")
"""Of JSON bodies that arrive, and of uploads that have not begun: no setting, since it is memory."""
_UPLOADS_PART: Final = 5
"""Uploads may have a fifth of the connections to Coze. One that trickles keeps its own for minutes, and chats
would wait for one."""
_USERS_AT_ONCE: Final = 20
"""Unless it is set, the whole service takes as many calls a minute as so many users may make."""


class ServiceLimits(NamedTuple):
    """``tokens``: of a day. ``users``: who have sessions. ``chats``, ``streams``, ``uploads``, ``bodies`` and
    ``retries`` (calls to Coze that are made again; nobody is told when there are none left): of a process."""

    rates: Mapping[RateKind, Limits]
    tokens: Limits
    sessions: Limits
    users: Limits
    chats: Limits
    streams: Limits
    uploads: Limits
    bodies: Limits
    retries: Limits

    @classmethod
    def of(cls, settings: Settings) -> "ServiceLimits":
        # Without authentication there is one caller, and nobody to share with.
        shares = Shares(settings.owner_share, settings.root_share) if settings.enable_auth else Shares(1, 1)
        users = Limit(settings.max_active_users, "COZE_MAX_ACTIVE_USERS")
        sessions = Limit(settings.max_total_sessions, "COZE_MAX_TOTAL_SESSIONS")
        of_user = Limit(settings.max_sessions_per_user, "COZE_MAX_SESSIONS_PER_USER")
        chats = Limit(settings.max_concurrent_chats, "MAX_CONCURRENT_CHATS")
        streams = Limit(settings.max_open_streams, "MAX_OPEN_STREAMS")
        of_caller = Limit(settings.max_open_streams_per_caller, "MAX_OPEN_STREAMS_PER_CALLER")
        uploads = Limit(
            max(1, settings.max_upstream_connections // _UPLOADS_PART), "COZE_MAX_CONNECTIONS / 5"
        )
        return cls(
            rates=_rates(settings, shares),
            tokens=_tokens(settings, shares),
            sessions=Limits.of("sessions", sessions, shares, user=of_user, name="sessions"),
            users=Limits.of("active users", users, shares, name="active_users"),
            chats=Limits.of("chats that run in one process", chats, shares, name="running_chats"),
            streams=Limits.of(
                "open streams, waits and uploads in one process",
                streams,
                shares,
                owner=of_caller,
                name="open_streams",
            ),
            uploads=Limits.of("uploads in one process", uploads, shares, name="uploads"),
            bodies=Limits.of("blocks of 64 KiB of bodies", _BODIES, shares, name="bodies"),
            retries=Limits.of("retries", Limit(BURST), shares),
        )

    def refusals(self) -> list[tuple[str, Layer]]:
        """What may be refused, by the limit's name and the layer that it holds for."""
        of_processes = (self.chats, self.streams, self.uploads, self.bodies)
        every = (*self.rates.values(), self.tokens, self.sessions, self.users, *of_processes)
        return [(limits.name, layer) for limits in every for layer in limits.layers]


def _rates(settings: Settings, shares: Shares) -> dict[RateKind, Limits]:
    messages, sessions = settings.rate_messages_per_minute, settings.rate_sessions_per_minute
    total, total_sessions = settings.rate_total_messages_per_minute, settings.rate_total_sessions_per_minute
    reports = _for_reports(messages), None if total is None else _for_reports(total)
    return {
        "messages": _rate("messages a minute", "MESSAGES", messages, total, shares, "message_rate"),
        "sessions": _rate(
            "new sessions a minute", "SESSIONS", sessions, total_sessions, shares, "session_rate"
        ),
        "files": _rate("files a minute", "MESSAGES", messages, total, shares, "file_rate"),
        "calls": _rate("further calls to Coze a minute", "MESSAGES", messages, total, shares, "call_rate"),
        "reports": _rate("reports and erasures a minute", "MESSAGES", *reports, shares, "report_rate"),
    }


def _for_reports(messages: int) -> int:
    """0 stays 0, which is no limit."""
    return math.ceil(messages / _MESSAGES_TO_A_REPORT)


def _rate(what: str, setting: str, of_user: int, total: int | None, shares: Shares, name: str) -> Limits:
    """Switched off for users it is off in all layers."""
    if not of_user:
        return Limits(what)
    user = Limit(of_user, f"RATE_LIMIT_{setting}_PER_MINUTE")
    if total is None:
        total = _USERS_AT_ONCE * of_user
    whole = Limit(total, f"RATE_LIMIT_TOTAL_{setting}_PER_MINUTE")
    return Limits.of(what, whole, shares, user=user, name=name)


def _tokens(settings: Settings, shares: Shares) -> Limits:
    """A quota for users alone bounds them all, too: as many as may be active could use theirs up."""
    user = Limit(settings.daily_token_quota, "COZE_DAILY_TOKEN_QUOTA")
    total = settings.total_daily_token_quota
    if total is None:
        total = user.most * settings.max_active_users
    whole = Limit(total, "COZE_TOTAL_DAILY_TOKEN_QUOTA")
    return Limits.of("tokens a day", whole, shares, user=user, name="daily_tokens")
