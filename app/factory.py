"""From settings to all that a process lives with: opened in order, closed in reverse order."""

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from typing import Final

import httpx

from app import __version__
from app.auth import ApiKeys, AuthOptions, HtyVerifier, NoVerifier, Verifier, build_auth_client
from app.config import Settings
from app.coze import CozeApi, CozeClient, CozeOptions, Endpoints, PooledClient, build_http_client
from app.credentials import Accounts, build_accounts
from app.metrics import Metrics
from app.redis_client import Keys, RedisGate, Servers, open_redis
from app.sse import OpenStreams
from app.stores.chats import ChatStore
from app.stores.conversations import ConversationStore
from app.stores.event_log import LogWriter
from app.stores.files import FileStore
from app.stores.leases import LeaseStore
from app.stores.limits import SessionLimits
from app.stores.log_reader import LogReader
from app.stores.open_log import LogPolicy
from app.stores.rates import RateKind, RateStore
from app.stores.sessions import SessionStore
from app.stores.usage import UsageStore
from app.stores.users import UserStore
from app.tasks import (
    Attachments,
    ConversationService,
    FileOptions,
    FileService,
    LeaseKeeper,
    Runner,
    RunningChats,
    SingleChats,
    TaskOptions,
    TaskService,
    UsageService,
    UserService,
    scan_seconds,
)
from app.tracing import Tracing, open_tracing
from app.utils import now_ms


@dataclass(frozen=True, slots=True)
class Resources:
    """All that lives as long as the process: what routes work with."""

    settings: Settings
    redis: RedisGate
    tasks: TaskService
    users: UserService
    files: FileService
    usage: UsageService
    conversations: ConversationService
    singles: SingleChats
    streams: OpenStreams
    verifier: Verifier
    api_keys: ApiKeys
    metrics: Metrics
    tracing: Tracing
    started_ms: int

    @property
    def uptime(self) -> int:
        """Seconds since start."""
        return (now_ms() - self.started_ms) // 1000


@dataclass(frozen=True, slots=True)
class World:
    """What a process has outside itself, for those who bring their own: tests, above all a simulated world.

    Args:
        servers: Redis, instead of what the settings name.
        transport: carries all HTTP, to Coze and to the auth service.
        scan_seconds: says how many seconds to wait between two looks for leases that have run out.
    """

    servers: Servers | None = None
    transport: httpx.AsyncBaseTransport | None = None
    scan_seconds: Callable[[], float] = scan_seconds


_REAL_WORLD: Final = World()


@dataclass(frozen=True, slots=True)
class _Stores:
    sessions: SessionStore
    chats: ChatStore
    leases: LeaseStore
    conversations: ConversationStore
    files: FileStore
    rates: RateStore
    usage: UsageStore
    users: UserStore


@asynccontextmanager
async def open_resources(settings: Settings, world: World = _REAL_WORLD) -> AsyncIterator[Resources]:
    """Opens everything, and closes it in reverse order.

    Raises:
        ValueError: a setting cannot work, which only the part that uses it can tell.
    """
    async with AsyncExitStack() as stack:
        metrics = stack.enter_context(closing(Metrics(__version__)))
        tracing = await stack.enter_async_context(
            open_tracing(settings.otel_endpoint, service=settings.otel_service)
        )
        redis = await stack.enter_async_context(_redis(settings, metrics, tracing, world.servers))
        http = await stack.enter_async_context(_coze_http(settings, world.transport))
        accounts = build_accounts(settings, http)
        stack.push_async_callback(accounts.aclose)
        metrics.watch_credentials(accounts.states)
        coze = _coze(settings, http, accounts, metrics, tracing)
        stores = _stores(settings, redis)
        running, writer, reader = _start_running(settings, stack, redis, stores, coze, metrics, tracing)
        LeaseKeeper(redis, stores.leases, running, scan_seconds=world.scan_seconds).start()
        tasks = TaskService(
            sessions=stores.sessions,
            rates=stores.rates,
            usage=stores.usage,
            conversations=stores.conversations,
            attachments=Attachments(stores.files, stores.sessions),
            chats=stores.chats,
            leases=stores.leases,
            reader=reader,
            writer=writer,
            running=running,
            coze=coze,
            options=_task_options(settings),
        )
        users = UserService(
            users=stores.users,
            files=stores.files,
            usage=stores.usage,
            conversations=stores.conversations,
            tasks=tasks,
            coze=coze,
            credentials=accounts.states,
        )
        yield Resources(
            settings=settings,
            redis=redis,
            tasks=tasks,
            users=users,
            files=_files(settings, stores, tasks, coze),
            usage=UsageService(stores.usage),
            conversations=ConversationService(sessions=stores.sessions, coze=coze),
            singles=SingleChats(tasks=tasks, sessions=stores.sessions, rates=stores.rates),
            streams=OpenStreams(settings.max_open_streams_per_caller, metrics),
            verifier=await _open_verifier(settings, stack, metrics, world.transport),
            api_keys=api_keys(settings),
            metrics=metrics,
            tracing=tracing,
            started_ms=now_ms(),
        )


# -- callers ----------------------------------------------------------------------------------------------


def auth_options(settings: Settings) -> AuthOptions:
    """Raises ``ValueError`` naming the setting that cannot work."""
    return AuthOptions(
        scheme=settings.http_scheme,
        roots=(settings.alchemy_host, settings.moicen_host, settings.huiwings_host, settings.local_host),
        verify_url=settings.verify_url or None,
        timeout=settings.auth_timeout,
        cache_ttl=settings.auth_cache_ttl,
        jwt_key=settings.jwt_key,
        admin_roles=frozenset(role.strip() for role in settings.admin_roles.split(",") if role.strip()),
    )


def api_keys(settings: Settings) -> ApiKeys:
    """Raises ``ValueError`` naming the setting that cannot work."""
    listed = settings.openai_api_keys
    return ApiKeys(listed.get_secret_value() if listed else "", settings.openai_api_keys_file)


async def _open_verifier(
    settings: Settings, stack: AsyncExitStack, metrics: Metrics, transport: httpx.AsyncBaseTransport | None
) -> Verifier:
    if not settings.enable_auth:
        return NoVerifier()
    options = auth_options(settings)
    if transport is None:
        http = build_auth_client(options, ssl_context=ssl_context())
    else:
        http = httpx.AsyncClient(transport=transport, trust_env=False)
    verifier = HtyVerifier(await stack.enter_async_context(http), options, metrics=metrics)
    stack.push_async_callback(verifier.aclose)
    return verifier


# -- Redis and Coze ---------------------------------------------------------------------------------------


def ssl_context() -> ssl.SSLContext:
    """certifi's authorities and the machine's own, SSL_CERT_FILE among them: private ones are common."""
    context = httpx.create_ssl_context(trust_env=False)
    context.load_default_certs()
    return context


def _redis(
    settings: Settings, metrics: Metrics, tracing: Tracing, servers: Servers | None
) -> AbstractAsyncContextManager[RedisGate]:
    return open_redis(
        settings.redis_url.get_secret_value(),
        pool_size=settings.redis_pool_size,
        reply_timeout=settings.redis_timeout,
        prefix=settings.redis_prefix,
        metrics=metrics,
        tracing=tracing,
        servers=servers,
    )


def _coze_http(settings: Settings, transport: httpx.AsyncBaseTransport | None) -> PooledClient:
    if transport is not None:
        return PooledClient(transport, settings.connect_timeout)
    return build_http_client(
        connect_timeout=settings.connect_timeout,
        pool_size=settings.max_upstream_connections,
        transport=settings.transport,
        ssl_context=ssl_context(),
    )


def _coze(
    settings: Settings, http: PooledClient, accounts: Accounts, metrics: Metrics, tracing: Tracing
) -> CozeClient:
    options = CozeOptions(
        endpoints=Endpoints.derive(settings.chat_url, settings.base_url or None),
        connect_timeout=settings.connect_timeout,
        first_byte_timeout=settings.first_byte_timeout,
        idle_timeout=settings.idle_timeout,
        max_retries=settings.max_retries,
        poll_interval=settings.poll_interval,
    )
    api = CozeApi(http, options, metrics=metrics, tracing=tracing)
    return CozeClient(api, accounts.named(""))


# -- stores and tasks -------------------------------------------------------------------------------------


def _log_policy(settings: Settings) -> LogPolicy:
    return LogPolicy(
        lease=int(settings.lease_seconds * 1000),
        session_ttl=settings.session_expire * 1000,
        log_ttl=settings.result_expire * 1000,
        hold=int(settings.chat_timeout * 1000) + 60_000,
        usage_ttl=settings.usage_retention_days * 86_400_000,
        quota=settings.daily_token_quota > 0,
    )


def _stores(settings: Settings, redis: RedisGate) -> _Stores:
    keys, policy = Keys(settings.redis_prefix), _log_policy(settings)
    leases = LeaseStore(redis, keys, policy)
    limits = SessionLimits(
        expire=settings.session_expire,
        inactive=settings.user_inactive_timeout,
        per_user=settings.max_sessions_per_user,
        total=settings.max_total_sessions,
        users=settings.max_active_users,
        hold=policy.hold,
    )
    sessions = SessionStore(redis, keys, limits)
    messages = settings.rate_messages_per_minute
    rates: dict[RateKind, int] = {
        "messages": messages,
        "sessions": settings.rate_sessions_per_minute,
        "files": messages,
    }
    days, quota = settings.usage_retention_days, settings.daily_token_quota
    return _Stores(
        sessions=sessions,
        chats=ChatStore(redis, keys, policy, leases.process),
        leases=leases,
        conversations=ConversationStore(redis, keys, days=settings.conversation_days),
        files=FileStore(redis, keys, days=settings.file_days),
        rates=RateStore(redis, keys, rates),
        usage=UsageStore(redis, keys, days=days, daily_tokens=quota),
        users=UserStore(redis, keys, sessions),
    )


def _start_running(
    settings: Settings,
    stack: AsyncExitStack,
    redis: RedisGate,
    stores: _Stores,
    coze: CozeClient,
    metrics: Metrics,
    tracing: Tracing,
) -> tuple[RunningChats, LogWriter, LogReader]:
    """What runs chats and reads those of others. Closed in reverse order: chats first, the writer last."""
    keys = Keys(settings.redis_prefix)
    writer = LogWriter(redis, keys, _log_policy(settings))
    writer.start()
    stack.push_async_callback(writer.stop)
    reader = LogReader(redis, keys, stores.leases.process)
    stack.push_async_callback(reader.stop)
    runner = Runner(
        coze,
        writer,
        use_stream=settings.use_stream,
        chat_timeout=settings.chat_timeout,
        max_log_bytes=settings.max_chat_log_bytes,
        user_id_scope=settings.user_id_scope,
        metrics=metrics,
    )
    running = RunningChats(
        runner=runner,
        writer=writer,
        leases=stores.leases,
        reader=reader,
        metrics=metrics,
        tracing=tracing,
        conversations=stores.conversations,
        sessions=stores.sessions,
    )
    stack.push_async_callback(running.stop)
    return running, writer, reader


def _task_options(settings: Settings) -> TaskOptions:
    return TaskOptions(
        default_bot_id=settings.bot_id,
        max_message_length=settings.max_message_length,
        max_queued=settings.max_queued_per_session,
        max_running=settings.max_concurrent_chats,
        drain_seconds=settings.drain_seconds,
    )


def _files(settings: Settings, stores: _Stores, tasks: TaskService, coze: CozeClient) -> FileService:
    options = FileOptions(settings.max_file_bytes, settings.upload_timeout)
    return FileService(stores.files, stores.sessions, stores.rates, tasks, coze, options)
