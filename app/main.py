"""The application: ``create_app``, and ``app`` for uvicorn. Importing it reads no environment."""

import asyncio
import signal
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from types import FrameType
from typing import Any

import httpx
from fastapi import FastAPI
from loguru import logger

from app import __version__
from app.auth import AuthOptions, HtyVerifier, NoVerifier, Verifier, build_auth_client
from app.config import Settings, SettingsError, load_settings
from app.coze import CozeClient, CozeOptions, Endpoints, build_http_client
from app.credentials import Accounts, build_accounts
from app.dependencies import Resources
from app.error_handlers import add_error_handlers
from app.exceptions import RedisUnavailable
from app.logging_config import configure_logging
from app.metrics import Metrics
from app.middleware import Cors, RequestContext
from app.openapi import add_openapi
from app.redis_client import Keys, open_redis
from app.routes import admin, chats, docs, health, messages, metrics, sessions, users
from app.sse import OpenStreams
from app.stores.chats import ChatStore
from app.stores.event_log import LogPolicy, LogWriter
from app.stores.leases import LeaseStore
from app.stores.limits import SessionLimits
from app.stores.log_reader import LogReader
from app.stores.rates import RateKind, RateStore
from app.stores.sessions import SessionStore
from app.stores.users import UserStore
from app.tasks import LeaseKeeper, Runner, RunningChats, TaskOptions, TaskService, UserService
from app.tracing import Tracing, open_tracing
from app.utils import now_ms


def ssl_context() -> ssl.SSLContext:
    """certifi's authorities and the machine's own, SSL_CERT_FILE among them: private ones are common."""
    context = httpx.create_ssl_context(trust_env=False)
    context.load_default_certs()
    return context


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


async def _open_verifier(settings: Settings, stack: AsyncExitStack, meters: Metrics) -> Verifier:
    if not settings.enable_auth:
        return NoVerifier()
    options = auth_options(settings)
    verifier = HtyVerifier(
        await stack.enter_async_context(build_auth_client(options, ssl_context=ssl_context())),
        options,
        metrics=meters,
    )
    stack.push_async_callback(verifier.aclose)
    return verifier


async def _open_coze(
    settings: Settings, stack: AsyncExitStack, meters: Metrics, tracing: Tracing
) -> tuple[CozeClient, Accounts]:
    http = await stack.enter_async_context(
        build_http_client(
            connect_timeout=settings.connect_timeout,
            pool_size=settings.max_upstream_connections,
            transport=settings.transport,
            ssl_context=ssl_context(),
        )
    )
    accounts = build_accounts(settings, http)
    meters.watch_credentials(accounts.states)
    coze = CozeClient(
        http,
        CozeOptions(
            endpoints=Endpoints.derive(settings.chat_url, settings.base_url or None),
            connect_timeout=settings.connect_timeout,
            first_byte_timeout=settings.first_byte_timeout,
            idle_timeout=settings.idle_timeout,
            chat_timeout=settings.chat_timeout,
            max_retries=settings.max_retries,
            poll_interval=settings.poll_interval,
        ),
        accounts,
        metrics=meters,
        tracing=tracing,
    )
    return coze, accounts


def _log_policy(settings: Settings) -> LogPolicy:
    return LogPolicy(
        lease=int(settings.lease_seconds * 1000),
        session_ttl=settings.session_expire * 1000,
        log_ttl=settings.result_expire * 1000,
        hold=int(settings.chat_timeout * 1000) + 60_000,
    )


def _session_limits(settings: Settings) -> SessionLimits:
    return SessionLimits(
        expire=settings.session_expire,
        inactive=settings.user_inactive_timeout,
        per_user=settings.max_sessions_per_user,
        total=settings.max_total_sessions,
        users=settings.max_active_users,
    )


def _runner(settings: Settings, coze: CozeClient, writer: LogWriter, meters: Metrics) -> Runner:
    return Runner(
        coze,
        writer,
        use_stream=settings.use_stream,
        chat_timeout=settings.chat_timeout,
        max_log_bytes=settings.max_chat_log_bytes,
        user_id_scope=settings.user_id_scope,
        metrics=meters,
    )


def _task_options(settings: Settings) -> TaskOptions:
    return TaskOptions(
        default_bot_id=settings.bot_id,
        max_message_length=settings.max_message_length,
        max_queued=settings.max_queued_per_session,
        max_running=settings.max_concurrent_chats,
        drain_seconds=settings.drain_seconds,
    )


@asynccontextmanager
async def open_resources(settings: Settings) -> AsyncIterator[Resources]:
    """The one place that names everything: opens it in order, closes it in reverse."""
    async with AsyncExitStack() as stack:
        meters = Metrics(__version__)
        stack.callback(meters.close)
        tracing = await stack.enter_async_context(
            open_tracing(settings.otel_endpoint, service=settings.otel_service)
        )
        redis = await stack.enter_async_context(
            open_redis(
                settings.redis_url.get_secret_value(),
                pool_size=settings.redis_pool_size,
                reply_timeout=settings.redis_timeout,
                prefix=settings.redis_prefix,
                metrics=meters,
                tracing=tracing,
            )
        )
        coze, accounts = await _open_coze(settings, stack, meters, tracing)
        keys = Keys(settings.redis_prefix)
        policy, limits = _log_policy(settings), _session_limits(settings)
        writer = LogWriter(redis, keys, policy)
        writer.start()
        stack.push_async_callback(writer.stop)
        leases = LeaseStore(redis, keys, policy)
        reader = LogReader(redis, keys, leases.process)
        stack.push_async_callback(reader.stop)
        runner = _runner(settings, coze, writer, meters)
        running = RunningChats(
            runner=runner, writer=writer, leases=leases, reader=reader, metrics=meters, tracing=tracing
        )
        stack.push_async_callback(running.stop)
        LeaseKeeper(redis, leases, running).start()
        sessions = SessionStore(redis, keys, limits)
        rates: dict[RateKind, int] = {
            "messages": settings.rate_messages_per_minute,
            "sessions": settings.rate_sessions_per_minute,
        }
        tasks = TaskService(
            sessions=sessions,
            rates=RateStore(redis, keys, rates),
            chats=ChatStore(redis, keys, policy, leases.process),
            leases=leases,
            reader=reader,
            writer=writer,
            running=running,
            coze=coze,
            options=_task_options(settings),
        )
        verifier = await _open_verifier(settings, stack, meters)
        users = UserService(
            users=UserStore(redis, keys, sessions), tasks=tasks, coze=coze, credentials=accounts.states
        )
        streams = OpenStreams(settings.max_open_streams_per_caller, meters)
        yield Resources(settings, redis, tasks, users, streams, verifier, now_ms(), meters, tracing)


def _say_how_it_runs(settings: Settings) -> None:
    logger.info("coze-fastapi {} starts: {} -> {}", __version__, settings.app_mode, settings.chat_url)
    if not settings.enable_auth:
        logger.warning("ENABLE_AUTH=false: everyone who reaches this port is an administrator")
    if settings.embedded_redis:
        logger.warning("REDIS_URL=memory://: sessions and chats live in this process alone and die with it")


def _chain_signals(drain: Callable[[], Any]) -> None:
    """Lets us drain before uvicorn stops listening.

    uvicorn stops listening at once and runs the lifespan's shutdown only after the last open stream has
    ended. So its handler is kept, ours runs first, and its turn comes when we have drained; a second
    signal reaches it at once.
    """
    loop = asyncio.get_running_loop()

    def chain(number: int) -> None:
        original = signal.getsignal(number)
        if not callable(original):
            return

        def handle(received: int, frame: FrameType | None) -> None:
            signal.signal(number, original)

            def hand_on(_: object) -> None:
                original(received, frame)

            def start() -> None:
                asyncio.ensure_future(drain()).add_done_callback(hand_on)

            loop.call_soon_threadsafe(start)

        signal.signal(number, handle)

    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            chain(number)
        except ValueError:  # not in the main thread, as in tests: whoever runs us there drains us
            return


def create_app(settings: Settings | None = None) -> FastAPI:
    """An app of its own: two may live in one process. Without ``settings`` the lifespan reads them."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        try:
            chosen = settings or load_settings()
            auth_options(chosen)  # what only the verifier can tell is told at once, too
        except (SettingsError, ValueError) as exc:
            logger.error("{}", exc)
            raise SystemExit(78) from None
        configure_logging(**chosen.logging)
        _say_how_it_runs(chosen)
        async with open_resources(chosen) as resources:
            app.state.resources = resources
            if not await resources.redis.ping():
                logger.warning("{}", RedisUnavailable.default_message)
            _chain_signals(resources.tasks.drain)
            yield
            await resources.tasks.drain()

    app = FastAPI(
        title="coze-fastapi",
        version=__version__,
        description="Sessions and chats with Coze (扣子) bots: streamed, resumable, never lost.",
        lifespan=lifespan,
        openapi_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # ours: app.tracing, app.metrics
    )
    for module in (health, metrics, sessions, messages, chats, users, admin, docs):
        app.include_router(module.router)
    app.add_middleware(Cors)
    app.add_middleware(RequestContext)
    add_error_handlers(app)
    add_openapi(app)
    return app


app = create_app()
