"""Wiring: opens everything that lives as long as the process, in order, and closes it in reverse."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from typing import Final

import httpx

from app import __version__
from app.auth.api_keys import ApiKeys
from app.auth.options import build_auth_client
from app.auth.verifier import HtyVerifier, NoVerifier, Verifier
from app.config import Settings
from app.coze.api import CozeApi
from app.coze.client import CozeClient
from app.coze.credentials import Accounts, build_accounts
from app.coze.options import CozeOptions
from app.coze.wire import Endpoints
from app.factory.parts import api_keys, auth_options, coze_http, ssl_context
from app.factory.stores import Stores, open_stores
from app.observing.metrics import Metrics
from app.observing.scrapes import MetricsPages
from app.observing.tracing import Tracing, open_tracing
from app.redis_client import Keys, RedisGate, Servers, open_redis
from app.stores.event_log import LogWriter
from app.stores.log_reader import LogReader
from app.tasks.asking import CozeForCallers
from app.tasks.at_coze import ChatsAtCoze
from app.tasks.bots import BotService
from app.tasks.chats import ChatService
from app.tasks.conversations import ConversationService
from app.tasks.drafts import Drafts
from app.tasks.feedback import FeedbackService
from app.tasks.files import FileService
from app.tasks.lease_keeper import LeaseKeeper, scan_seconds
from app.tasks.limits import ServiceLimits
from app.tasks.operators import SAYS_EVERY, OperatorService
from app.tasks.owned import OwnedConversations
from app.tasks.places import Places
from app.tasks.runner import Runner
from app.tasks.running import RunningChats
from app.tasks.sessions import SessionService
from app.tasks.shutdown import Shutdown
from app.tasks.usage import UsageService
from app.tasks.user_conversations import UserConversations
from app.tasks.users import UserService
from app.utils import now_ms
from app.utils.big_bodies import BigBodies
from app.utils.kept import Kept

_CHECKED_SECONDS: Final = 1.0
"""Less than any interval at which a balancer asks."""


@dataclass(frozen=True, slots=True)
class Resources:
    """All that lives as long as the process. Opened by the lifespan, closed in reverse order."""

    settings: Settings
    redis: RedisGate
    sessions: SessionService
    chats: ChatService
    shutdown: Shutdown
    users: UserService
    operators: OperatorService
    files: FileService
    usage: UsageService
    conversations: ConversationService
    owned: OwnedConversations
    past: UserConversations
    bots: BotService
    feedback: FeedbackService
    streams: Places
    verifier: Verifier
    started_ms: int
    metrics: Metrics
    tracing: Tracing
    api_keys: ApiKeys
    big_bodies: BigBodies
    metrics_pages: MetricsPages
    redis_check: Kept[bool]

    async def redis_works(self) -> bool:
        """For whoever asks without a token: Redis is looked at once in a second, however many ask. That it is
        away is known at once."""
        return not self.redis.away and await self.redis_check.get()

    @property
    def uptime(self) -> int:
        """Seconds since start."""
        return (now_ms() - self.started_ms) // 1000


async def _open_verifier(
    settings: Settings,
    stack: AsyncExitStack,
    metrics: Metrics,
    transport: httpx.AsyncBaseTransport | None,
) -> Verifier:
    if not settings.enable_auth:
        return NoVerifier()
    options = auth_options(settings)
    http = (
        build_auth_client(options, ssl_context=ssl_context())
        if transport is None
        else httpx.AsyncClient(transport=transport, trust_env=False)
    )
    verifier = HtyVerifier(await stack.enter_async_context(http), options, metrics=metrics)
    stack.push_async_callback(verifier.aclose)
    return verifier


@dataclass(frozen=True, slots=True)
class World:
    """What a process has outside itself, for those who bring their own: tests, above all a simulated world.

    ``servers`` and ``transport``: Redis and all HTTP, instead of what the settings name. ``scan_seconds``:
    says how long to wait between two looks for leases that have run out. ``says_every``: seconds between two
    times that a process says it is there.
    """

    servers: Servers | None = None
    transport: httpx.AsyncBaseTransport | None = None
    scan_seconds: Callable[[], float] = scan_seconds
    says_every: float = SAYS_EVERY


_REAL_WORLD: Final = World()


async def _open_redis(
    settings: Settings, stack: AsyncExitStack, metrics: Metrics, tracing: Tracing, servers: Servers | None
) -> RedisGate:
    return await stack.enter_async_context(
        open_redis(
            settings.redis_url.get_secret_value(),
            pool_size=settings.redis_pool_size,
            reply_timeout=settings.redis_timeout,
            prefix=settings.redis_prefix,
            metrics=metrics,
            tracing=tracing,
            servers=servers,
        )
    )


async def _open_coze(
    settings: Settings,
    stack: AsyncExitStack,
    metrics: Metrics,
    tracing: Tracing,
    transport: httpx.AsyncBaseTransport | None,
) -> tuple[CozeClient, Accounts]:
    http = await stack.enter_async_context(coze_http(settings, transport))
    accounts = build_accounts(settings, http)
    stack.push_async_callback(accounts.aclose)
    metrics.watch_credentials(accounts.expiry_times, accounts.cool_downs)
    options = CozeOptions(
        endpoints=Endpoints.derive(settings.chat_url, settings.base_url or None),
        connect_timeout=settings.connect_timeout,
        first_byte_timeout=settings.first_byte_timeout,
        idle_timeout=settings.idle_timeout,
        max_retries=settings.max_retries,
        poll_interval=settings.poll_interval,
    )
    api = CozeApi(http, options, metrics=metrics, tracing=tracing)
    return CozeClient(api, accounts.named("")), accounts


def _runner(settings: Settings, coze: CozeClient, writer: LogWriter, metrics: Metrics) -> Runner:
    return Runner(
        coze=coze,
        writer=writer,
        use_stream=settings.use_stream,
        chat_timeout=settings.chat_timeout,
        max_log_bytes=settings.max_chat_log_bytes,
        user_id_scope=settings.user_id_scope,
        metrics=metrics,
    )


def _open_running(
    settings: Settings,
    stack: AsyncExitStack,
    redis: RedisGate,
    coze: CozeClient,
    stores: Stores,
    limits: ServiceLimits,
    metrics: Metrics,
    tracing: Tracing,
) -> tuple[LogReader, RunningChats, Shutdown]:
    """What runs chats and reads those of others. Closed in reverse order: chats first, the writer last."""
    keys, leases = Keys(settings.redis_prefix), stores.leases
    writer = LogWriter(redis, keys, stores.chats.policy)
    writer.start()
    stack.push_async_callback(writer.stop)
    logs = LogReader(redis, keys, leases.process)
    stack.push_async_callback(logs.stop)
    running = RunningChats(
        runner=_runner(settings, coze, writer, metrics),
        writer=writer,
        leases=leases,
        logs=logs,
        metrics=metrics,
        tracing=tracing,
        conversations=stores.conversations,
        failures=stores.failures,
        sessions=stores.sessions,
        places=Places(limits.chats, metrics=metrics),
    )
    stack.push_async_callback(running.stop)
    return logs, running, Shutdown(running, writer, seconds=settings.drain_seconds)


def _streams(limits: ServiceLimits, shutdown: Shutdown, metrics: Metrics) -> Places:
    return Places(
        limits.streams, metrics.open_streams.inc, metrics=metrics, refuse_first=shutdown.refuse_if_begun
    )


def _sessions(
    settings: Settings, stores: Stores, running: RunningChats, shutdown: Shutdown, coze: CozeClient
) -> SessionService:
    return SessionService(
        sessions=stores.sessions,
        conversations=stores.conversations,
        rates=stores.rates,
        running=running,
        shutdown=shutdown,
        coze=coze,
        default_bot_id=settings.bot_id,
        max_opening_bytes=settings.max_opening_bytes,
    )


def _chats(
    settings: Settings,
    stores: Stores,
    sessions: SessionService,
    logs: LogReader,
    running: RunningChats,
    streams: Places,
    shutdown: Shutdown,
) -> ChatService:
    return ChatService(
        sessions=sessions,
        chats=stores.chats,
        rates=stores.rates,
        usage=stores.usage,
        drafts=Drafts(stores.files, stores.sessions),
        leases=stores.leases,
        logs=logs,
        running=running,
        streams=streams,
        shutdown=shutdown,
        max_length=settings.max_message_length,
        max_queued=settings.max_queued_per_session,
    )


def _files(
    settings: Settings,
    stores: Stores,
    sessions: SessionService,
    shutdown: Shutdown,
    streams: Places,
    coze: CozeClient,
) -> FileService:
    return FileService(
        files=stores.files,
        rates=stores.rates,
        sessions=sessions,
        shutdown=shutdown,
        streams=streams,
        coze=coze,
        max_bytes=settings.max_file_bytes,
        seconds=settings.upload_timeout,
    )


def _users(stores: Stores, sessions: SessionService, coze: CozeClient) -> UserService:
    return UserService(
        users=stores.users,
        files=stores.files,
        usage=stores.usage,
        rates=stores.rates,
        conversations=stores.conversations,
        owned=stores.owned,
        failures=stores.failures,
        sessions=sessions,
        coze=coze,
    )


def _operators(
    stores: Stores,
    redis: RedisGate,
    streams: Places,
    running: RunningChats,
    shutdown: Shutdown,
    accounts: Accounts,
    started_ms: int,
    says_every: float,
) -> OperatorService:
    operators = OperatorService(
        users=stores.users,
        failures=stores.failures,
        replicas=stores.replicas,
        streams=streams,
        running=running,
        shutdown=shutdown,
        credentials=accounts.states,
        started_ms=started_ms,
        says_every=says_every,
    )
    operators.start(redis)
    return operators


def _owned(
    stores: Stores,
    sessions: SessionService,
    chats: ChatService,
    running: RunningChats,
    shutdown: Shutdown,
    coze: CozeClient,
) -> OwnedConversations:
    at_coze = ChatsAtCoze(running=running, records=stores.chats, leases=stores.leases, shutdown=shutdown)
    return OwnedConversations(
        owned=stores.owned,
        store=stores.sessions,
        records=stores.chats,
        files=stores.files,
        rates=stores.rates,
        usage=stores.usage,
        places=running.places,
        sessions=sessions,
        chats=chats,
        at_coze=at_coze,
        shutdown=shutdown,
        coze=coze,
    )


@asynccontextmanager
async def open_resources(settings: Settings, world: World = _REAL_WORLD) -> AsyncIterator[Resources]:
    """Opens everything, and closes it in reverse order.

    Raises:
        ValueError: a setting cannot work, which only the part that uses it can tell.
    """
    async with AsyncExitStack() as stack:
        metrics = stack.enter_context(closing(Metrics(__version__)))
        tracing_of = open_tracing(settings.otel_endpoint, service=settings.otel_service)
        tracing = await stack.enter_async_context(tracing_of)
        redis = await _open_redis(settings, stack, metrics, tracing, world.servers)
        coze, accounts = await _open_coze(settings, stack, metrics, tracing, world.transport)
        limits = ServiceLimits.of(settings)
        metrics.expect_refusals(limits.refusals())
        stores = open_stores(settings, redis, limits, metrics)
        logs, running, shutdown = _open_running(
            settings, stack, redis, coze, stores, limits, metrics, tracing
        )
        LeaseKeeper(redis, stores.leases, running, scan_seconds=world.scan_seconds).start()
        sessions = _sessions(settings, stores, running, shutdown, coze)
        asking = CozeForCallers(coze, stores.rates)
        streams = _streams(limits, shutdown, metrics)
        chats = _chats(settings, stores, sessions, logs, running, streams, shutdown)
        started_ms = now_ms()
        yield Resources(
            settings=settings,
            redis=redis,
            sessions=sessions,
            chats=chats,
            shutdown=shutdown,
            users=_users(stores, sessions, coze),
            operators=_operators(
                stores, redis, streams, running, shutdown, accounts, started_ms, world.says_every
            ),
            files=_files(settings, stores, sessions, shutdown, streams, coze),
            usage=UsageService(stores.usage, stores.rates),
            conversations=ConversationService(sessions=stores.sessions, coze=asking),
            owned=_owned(stores, sessions, chats, running, shutdown, coze),
            past=UserConversations(stores.conversations, stores.users, sessions, asking),
            bots=BotService(coze, settings.bot_ids),
            feedback=FeedbackService(stores.chats, stores.sessions, asking),
            streams=streams,
            verifier=await _open_verifier(settings, stack, metrics, world.transport),
            started_ms=started_ms,
            metrics=metrics,
            tracing=tracing,
            api_keys=api_keys(settings),
            big_bodies=BigBodies(),
            metrics_pages=MetricsPages(metrics, chats.queued),
            redis_check=Kept(redis.works, _CHECKED_SECONDS),
        )
