"""``check --live``: asks the configured Coze what the service takes for granted of it.

Nobody promises these things: above all that a chat goes on when the connection of its stream drops. Four
short chats with the configured bot tell, and are paid for. What was found is kept as a report without tokens,
ids or texts, of which ``check`` and the start of the service remind.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import orjson

from app import __version__
from app.check.lines import Line
from app.check.live.findings import Finding, Report
from app.check.live.probes import Probes
from app.check.live.raw import RawCoze
from app.config import Settings
from app.coze.credentials import build_accounts
from app.coze.options import Bearer
from app.coze.wire import Endpoints
from app.factory.parts import coze_http

__all__ = ["COST", "REPORT_NAME", "Finding", "Report", "ask_coze", "keep", "reminder"]

REPORT_NAME: Final = "coze-live.json"
"""Of the report, in the directory of pid files and logs (``.run``)."""
COST: Final = (
    "This asks the configured bot four questions, two of which it is asked to answer at length and which are "
    "cancelled or left: about 2,000 tokens of your quota, and whatever plug-ins of the bot cost. It makes "
    "three or four conversations, uploads two files of some bytes, and takes one to four minutes.\n"
    "这会向配置的智能体提四个问题，约消耗 2,000 个 token，另加智能体插件的费用，需要一到四分钟。"
)


async def ask_coze(settings: Settings, tell: Callable[[Finding], None]) -> Report:
    """Runs all probes with the first credential, and calls ``tell`` with each finding as soon as it is there.
    Raises ``UpstreamError`` where there is no token."""
    endpoints = Endpoints.derive(settings.chat_url, settings.base_url or None)
    findings = []
    async with coze_http(settings) as http:
        accounts = build_accounts(settings, http)
        try:
            credential = accounts.named(str(accounts.states()[0]["name"]))
            bearer = Bearer(await credential.bearer(None)).header()
            coze = RawCoze(http, endpoints, bearer, settings.bot_id, settings.poll_interval)
            async for finding in Probes(coze, settings.use_stream).run():
                tell(finding)
                findings.append(finding)
        finally:
            await accounts.aclose()
    host = urlsplit(endpoints.base).hostname or ""
    return Report(__version__, host, settings.use_stream, findings)


def keep(report: Report, path: Path) -> None:
    """Writes the report, for its owner alone. Raises ``OSError``."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(orjson.dumps(report.as_json(), option=orjson.OPT_INDENT_2) + b"\n")
    new.replace(path)


def reminder(path: Path, settings: Settings) -> Line:
    """What the last ``check --live`` found, as far as it is about the Coze of ``settings``."""
    found = _read(path)
    host = urlsplit(Endpoints.derive(settings.chat_url, settings.base_url or None).base).hostname
    name, ask = "live", "./run-service.sh check --live"
    if found is None or found.get("host") != host:
        text = "whether this Coze keeps what the service rests on was never asked"
        return Line("skip", name, text, f"{ask} (costs some tokens)", "尚未实测扣子的行为")
    when, summary = str(found.get("made_at"))[:10], str(found.get("summary"))
    if found.get("use_stream") is not settings.use_stream:
        text = f"asked on {when} with another COZE_USE_STREAM"
        return Line("skip", name, text, ask, "实测时的 COZE_USE_STREAM 与现在不同")
    if found.get("holds") is True:
        return Line("ok", name, f"asked on {when}: {summary}", "", "实测通过")
    return Line("warn", name, f"asked on {when}: {summary}", ask, "实测发现回答可能丢失")


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
    return found if isinstance(found, dict) else None
