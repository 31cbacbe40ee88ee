"""Checks the settings and what they lead to: one line each, with the fix where something is wrong. No chat is
started, so nothing costs."""

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path

from app.auth.options import build_auth_client
from app.check.callers import check_auth, describe_coze_door
from app.check.coze import REGIONS, CozeCheck
from app.check.lines import Line, exit_code
from app.check.live import reminder
from app.check.local import check_clock, check_env_file, check_names
from app.check.store import check_redis
from app.config import Settings, load_settings
from app.config.faults import SettingsError
from app.coze.credentials import build_accounts
from app.coze.wire import Endpoints
from app.factory.parts import auth_options, check_parts, coze_http, ssl_context

__all__ = ["Line", "check", "check_settings", "exit_code"]


async def check(env_file: Path, live_report: Path) -> list[Line]:
    """Everything, in the order in which it has to be put right; ``live_report``: of ``check --live``."""
    lines = [check_env_file(env_file)]
    try:
        settings = load_settings(_env_file=env_file)
    except SettingsError as error:
        fix = "correct it in the environment or in .env"
        return [*lines, *(Line("fail", "settings", fault, fix, "配置有误") for fault in error.faults)]
    found = await check_settings(settings)
    return [*lines, *check_names(env_file), *found, reminder(live_report, settings)]


async def check_settings(settings: Settings, *, regions: Mapping[str, str] = REGIONS) -> list[Line]:
    """What these settings lead to. ``regions``: by Coze's address, that of the other region."""
    offsets: dict[str, float] = {}
    try:
        check_parts(settings)
    except SettingsError as error:
        faults = [fault.rstrip(".") for fault in error.faults]
        return [Line("fail", "settings", fault, "correct it", "配置有误") for fault in faults]
    auth = auth_options(settings) if settings.enable_auth else None
    base = Endpoints.derive(settings.chat_url, settings.base_url or None).base
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(coze_http(settings))
        accounts = build_accounts(settings, http)
        stack.push_async_callback(accounts.aclose)
        asking = CozeCheck(
            http,
            base,
            accounts,
            settings.bot_id,
            seconds=settings.connect_timeout + settings.auth_timeout,
            regions=regions,
        )
        auth_http = None
        if auth is not None:
            auth_http = await stack.enter_async_context(build_auth_client(auth, ssl_context=ssl_context()))
        store, coze, callers = await asyncio.gather(
            check_redis(settings, offsets),
            asking.lines(offsets),
            check_auth(auth, auth_http or http, settings.local_host),
        )
    return [*store, *coze, callers, describe_coze_door(settings), check_clock(offsets)]
