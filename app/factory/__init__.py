"""Wiring: opens everything that lives as long as the process, in order, and closes it in reverse."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import httpx
from attrs import define

from app import __version__
from app.auth.api_keys import ApiKeys
from app.auth.options import build_auth_client
from app.auth.verifier import HtyVerifier, NoVerifier, Verifier
from app.config import Settings
from app.coze.api import CozeApi
from app.coze.client import CozeClient
from app.coze.credentials import Accounts, build_accounts
from app.coze.options import CozeOptions
from app.coze.retry import RetryBudget
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
from app.utils.fair_turns import FairTurns
from app.utils.kept import Kept
from app.utils.recent import Recent

_CHECKED_SECONDS: Final = 1.0
"""Less than any interval at which a balancer asks."""
_CHECKS_BYTES: Final = 16 * 1024 * 1024


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
    bodies: Places
    """One for each and for each 64 KiB of it: of what has arrived, then of what was made of that, until
    nobody has it any more. Messages are not refused because of pictures, so those do not get all of them."""
    going_back: FairTurns
    """For requests that read records of earlier chats, which takes memory; not those of bodies, since these
    wait for Redis."""
    big_bodies: BigBodies
    checks: Recent[Any]
    """Of answers, made of callers' JSON Schemas (``doors/openai``)."""
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


@define(eq=False, repr=False)
class _Opening:
    """What is opened first, and how everything else is, which closes itself with the stack."""

    settings: Settings
    world: World
    stack: AsyncExitStack
    metrics: Metrics
    tracing: Tracing

    async def redis(self) -> RedisGate:
        settings = self.settings
        return await self.stack.enter_async_context(
            open_redis(
                settings.redis_url.get_secret_value(),
                pool_size=settings.redis_pool_size,
                reply_timeout=settings.redis_timeout,
                prefix=settings.redis_prefix,
                metrics=self.metrics,
                tracing=self.tracing,
                servers=self.world.servers,
            )
        )

    async def coze(self, limits: ServiceLimits) -> tuple[CozeClient, Accounts]:
        settings = self.settings
        http = await self.stack.enter_async_context(coze_http(settings, self.world.transport))
        accounts = build_accounts(settings, http)
        self.stack.push_async_callback(accounts.aclose)
        self.metrics.watch_credentials(accounts.times)
        options = CozeOptions(
            endpoints=Endpoints.derive(settings.chat_url, settings.base_url or None),
            connect_timeout=settings.connect_timeout,
            first_byte_timeout=settings.first_byte_timeout,
            idle_timeout=settings.idle_timeout,
            max_retries=settings.max_retries,
            poll_interval=settings.poll_interval,
        )
        budget = RetryBudget(limits.retries.bounds)
        api = CozeApi(http, options, metrics=self.metrics, tracing=self.tracing, budget=budget)
        return CozeClient(api, accounts.named("")), accounts

    async def verifier(self) -> Verifier:
        if not self.settings.enable_auth:
            return NoVerifier()
        options, transport = auth_options(self.settings), self.world.transport
        http = (
            build_auth_client(options, ssl_context=ssl_context())
            if transport is None
            else httpx.AsyncClient(transport=transport, trust_env=False)
        )
        verifier = HtyVerifier(await self.stack.enter_async_context(http), options, metrics=self.metrics)
        self.stack.push_async_callback(verifier.aclose)
        return verifier

    def chats(
        self, redis: RedisGate, coze: CozeClient, stores: Stores, limits: ServiceLimits
    ) -> tuple[LogReader, RunningChats, Shutdown]:
        """What runs chats and reads those of others. Closed in reverse: chats first, the writer last."""
        settings, metrics = self.settings, self.metrics
        keys, leases = Keys(settings.redis_prefix), stores.leases
        writer = LogWriter(redis, keys, stores.chats.policy)
        writer.start()
        self.stack.push_async_callback(writer.stop)
        logs = LogReader(redis, keys, leases.process, stores.large)
        self.stack.push_async_callback(logs.stop)
        runner = Runner(
            coze=coze,
            writer=writer,
            use_stream=settings.use_stream,
            chat_timeout=settings.chat_timeout,
            max_log_bytes=settings.max_chat_log_bytes,
            user_id_scope=settings.user_id_scope,
            metrics=metrics,
        )
        running = RunningChats(
            runner=runner,
            writer=writer,
            leases=leases,
            logs=logs,
            metrics=metrics,
            tracing=self.tracing,
            conversations=stores.conversations,
            failures=stores.failures,
            sessions=stores.sessions,
            places=Places(limits.chats, metrics=metrics),
            usage=stores.usage,
        )
        self.stack.push_async_callback(running.stop)
        return logs, running, Shutdown(running, writer, seconds=settings.drain_seconds)


@dataclass(frozen=True)
class _Services:
    """Those of one process. Each is made when it is first asked for, with those that it asks itself."""

    _settings: Settings
    _stores: Stores
    _coze: CozeClient
    _logs: LogReader
    _running: RunningChats
    _shutdown: Shutdown
    _streams: Places
    _uploads: Places

    @cached_property
    def asking(self) -> CozeForCallers:
        return CozeForCallers(self._coze, self._stores.rates)

    @cached_property
    def sessions(self) -> SessionService:
        return SessionService(
            sessions=self._stores.sessions,
            conversations=self._stores.conversations,
            rates=self._stores.rates,
            running=self._running,
            shutdown=self._shutdown,
            coze=self._coze,
            default_bot_id=self._settings.bot_id,
            max_opening_bytes=self._settings.max_opening_bytes,
        )

    @cached_property
    def chats(self) -> ChatService:
        return ChatService(
            sessions=self.sessions,
            chats=self._stores.chats,
            rates=self._stores.rates,
            usage=self._stores.usage,
            drafts=Drafts(self._stores.files, self._stores.sessions),
            leases=self._stores.leases,
            logs=self._logs,
            running=self._running,
            streams=self._streams,
            shutdown=self._shutdown,
            max_length=self._settings.max_message_length,
            max_queued=self._settings.max_queued_per_session,
        )

    @cached_property
    def files(self) -> FileService:
        return FileService(
            files=self._stores.files,
            rates=self._stores.rates,
            sessions=self.sessions,
            shutdown=self._shutdown,
            streams=self._streams,
            uploads=self._uploads,
            coze=self._coze,
            max_bytes=self._settings.max_file_bytes,
            seconds=self._settings.upload_timeout,
        )

    @cached_property
    def users(self) -> UserService:
        return UserService(
            users=self._stores.users,
            files=self._stores.files,
            usage=self._stores.usage,
            rates=self._stores.rates,
            conversations=self._stores.conversations,
            owned=self._stores.owned,
            failures=self._stores.failures,
            sessions=self.sessions,
            coze=self._coze,
        )

    @cached_property
    def owned(self) -> OwnedConversations:
        stores = self._stores
        return OwnedConversations(
            owned=stores.owned,
            store=stores.sessions,
            records=stores.chats,
            files=stores.files,
            rates=stores.rates,
            places=self._running.places,
            sessions=self.sessions,
            chats=self.chats,
            at_coze=ChatsAtCoze(
                running=self._running, records=stores.chats, leases=stores.leases, shutdown=self._shutdown
            ),
            shutdown=self._shutdown,
            coze=self._coze,
        )

    def operators(
        self, redis: RedisGate, accounts: Accounts, started_ms: int, says_every: float
    ) -> OperatorService:
        operators = OperatorService(
            users=self._stores.users,
            failures=self._stores.failures,
            replicas=self._stores.replicas,
            usage=self._stores.usage,
            streams=self._streams,
            running=self._running,
            shutdown=self._shutdown,
            credentials=accounts.states,
            started_ms=started_ms,
            says_every=says_every,
        )
        operators.start(redis)
        return operators


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
        opening = _Opening(settings, world, stack, metrics, tracing)
        redis = await opening.redis()
        limits = ServiceLimits.of(settings)
        coze, accounts = await opening.coze(limits)
        metrics.expect_refusals(limits.refusals())
        stores = open_stores(settings, redis, limits, metrics)
        logs, running, shutdown = opening.chats(redis, coze, stores, limits)
        LeaseKeeper(redis, stores.leases, running, scan_seconds=world.scan_seconds).start()
        streams = Places(
            limits.streams, metrics.open_streams.inc, metrics=metrics, refuse_first=shutdown.refuse_if_begun
        )
        uploads = Places(limits.uploads, metrics=metrics)
        services = _Services(settings, stores, coze, logs, running, shutdown, streams, uploads)
        started_ms = now_ms()
        yield Resources(
            settings=settings,
            redis=redis,
            sessions=services.sessions,
            chats=services.chats,
            shutdown=shutdown,
            users=services.users,
            operators=services.operators(redis, accounts, started_ms, world.says_every),
            files=services.files,
            usage=UsageService(stores.usage, stores.rates),
            conversations=ConversationService(sessions=services.sessions, coze=services.asking),
            owned=services.owned,
            past=UserConversations(stores.conversations, stores.users, services.sessions, services.asking),
            bots=BotService(coze, settings.bot_ids),
            feedback=FeedbackService(stores.chats, stores.sessions, services.asking),
            streams=streams,
            verifier=await opening.verifier(),
            started_ms=started_ms,
            metrics=metrics,
            tracing=tracing,
            api_keys=api_keys(settings),
            bodies=Places(limits.bodies, metrics=metrics, for_small=0.2),
            going_back=FairTurns(),
            big_bodies=BigBodies(),
            checks=Recent(_CHECKS_BYTES),
            metrics_pages=MetricsPages(metrics, services.chats.queued),
            redis_check=Kept(redis.works, _CHECKED_SECONDS),
        )
