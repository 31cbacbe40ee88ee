"""The stores, from the settings: what all services of a process share."""

import math
from dataclasses import dataclass

from app.config import Settings
from app.observing.metrics import Metrics
from app.redis_client import Keys, RedisGate
from app.stores.chats import ChatStore
from app.stores.conversations import ConversationStore
from app.stores.failures import FailureStore
from app.stores.files import FileStore
from app.stores.large_reads import LargeReads
from app.stores.leases import LeaseStore
from app.stores.owned import OwnedStore
from app.stores.policy import LogPolicy, SessionLimits
from app.stores.rates import RateStore
from app.stores.replicas import ReplicaStore
from app.stores.sessions import SessionStore
from app.stores.usage import UsageStore
from app.stores.users import UserStore
from app.tasks.limits import ServiceLimits
from app.utils import SHARDS


def _log_policy(settings: Settings, limits: ServiceLimits) -> LogPolicy:
    return LogPolicy(
        lease=int(settings.lease_seconds * 1000),
        session_ttl=settings.session_expire * 1000,
        log_ttl=settings.result_expire * 1000,
        hold=int(settings.chat_timeout * 1000) + 60_000,
        usage_ttl=settings.usage_retention_days * 86_400_000,
        quota=bool(limits.tokens.layers),
        usage_rows=math.ceil(settings.usage_rows_per_day / SHARDS),
    )


@dataclass(frozen=True, slots=True)
class Stores:
    sessions: SessionStore
    chats: ChatStore
    leases: LeaseStore
    rates: RateStore
    usage: UsageStore
    conversations: ConversationStore
    files: FileStore
    users: UserStore
    owned: OwnedStore
    failures: FailureStore
    replicas: ReplicaStore
    large: LargeReads
    """What the stores share, and whoever reads logs."""


def open_stores(settings: Settings, redis: RedisGate, limits: ServiceLimits, metrics: Metrics) -> Stores:
    keys, policy = Keys(settings.redis_prefix), _log_policy(settings, limits)
    leases = LeaseStore(redis, keys, policy)
    inactive = settings.user_inactive_timeout * 1000
    of_sessions = SessionLimits(policy.session_ttl, inactive, limits.sessions, limits.users, policy.hold)
    large = LargeReads()
    sessions = SessionStore(redis, keys, of_sessions, metrics=metrics, large=large)
    usage_days = settings.usage_retention_days
    return Stores(
        sessions=sessions,
        chats=ChatStore(redis, keys, policy, leases.process, large),
        leases=leases,
        rates=RateStore(redis, keys, limits.rates, metrics=metrics),
        usage=UsageStore(
            redis, keys, days=usage_days, daily_tokens=limits.tokens, metrics=metrics, large=large
        ),
        conversations=ConversationStore(redis, keys, days=settings.conversation_days),
        files=FileStore(redis, keys, days=settings.file_days),
        users=UserStore(redis, keys, sessions, large),
        owned=OwnedStore(redis, keys, days=settings.conversation_days),
        failures=FailureStore(redis, keys),
        replicas=ReplicaStore(redis, keys, leases.process),
        large=large,
    )
