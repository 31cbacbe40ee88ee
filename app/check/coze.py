"""Coze: reachable, the token good and of this region, its rights, and the bot. No call starts a chat.

The rights are asked for with ids that do not exist: a token without the right is answered 4101, any other
"no such chat", so that nothing happens and nothing is paid for.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import Final

import httpx
from attrs import define, field

from app.check.lines import Line
from app.coze.codes import NOT_FOUND, TOKEN_REFUSED, rule_for
from app.coze.credentials import Accounts
from app.coze.options import Bearer
from app.coze.transport import NETWORK_ERRORS
from app.coze.wire import strict_object
from app.exceptions import UpstreamError
from app.utils.certificates import certificate_fault

REGIONS: Final[Mapping[str, str]] = MappingProxyType(
    {"https://api.coze.cn": "https://api.coze.com", "https://api.coze.com": "https://api.coze.cn"}
)
_NO_PERMISSION: Final = 4101
_NO_SUCH_CHAT: Final[Mapping[str, str]] = MappingProxyType({"conversation_id": "1", "chat_id": "1"})
_PERMISSIONS: Final[tuple[tuple[str, bool, str, str, Mapping[str, object] | None], ...]] = (
    # The right, whether nothing works without it, method, path, body.
    ("getChat", True, "GET", "/v3/chat/retrieve", None),
    ("listMessage", True, "GET", "/v3/chat/message/list", None),
    # A bot that cannot exist and no message: refused whatever the token may do.
    ("chat", True, "POST", "/v3/chat", {"bot_id": "0", "user_id": "check", "additional_messages": []}),
    ("createConversation", True, "POST", "/v1/conversation/create", {"bot_id": "0"}),
    ("cancelChat", False, "POST", "/v3/chat/cancel", dict(_NO_SUCH_CHAT)),
    ("submitToolChat", False, "POST", "/v3/chat/submit_tool_outputs", {"tool_outputs": []}),
    ("editConversation", False, "POST", "/v1/conversations/1/clear", None),
)


@dataclass(frozen=True, slots=True)
class ProbeReply:
    """``code`` None: not an answer of Coze's; ``failure``: none at all, and why."""

    status: int = 0
    code: int | None = None
    logid: str = ""
    data: object = None
    failure: str = ""
    offset: float | None = None
    """Seconds by which Coze's clock is ahead."""

    @property
    def refused(self) -> bool:
        return self.code in TOKEN_REFUSED or self.status == httpx.codes.UNAUTHORIZED

    def __str__(self) -> str:
        logid = f", logid {self.logid}" if self.logid else ""
        return f"code {self.code}{logid}" if self.code is not None else f"HTTP {self.status}"


@define(eq=False, repr=False)
class CozeCheck:
    """``base``: Coze's address without ``/v3``. ``seconds``: for one answer."""

    _http: httpx.AsyncClient
    _base: str
    _accounts: Accounts
    _bot_id: str
    _seconds: float = field(kw_only=True)
    _regions: Mapping[str, str] = field(kw_only=True, default=REGIONS)

    async def lines(self, offsets: dict[str, float]) -> list[Line]:
        """Adds Coze's clock to ``offsets``."""
        began = time.monotonic()
        answer = await self._probe("GET", "/v3/chat/retrieve", "none", dict(_NO_SUCH_CHAT))
        if answer.offset is not None:
            offsets["Coze"] = answer.offset
        if answer.code is None:
            why = answer.failure or f"it answers HTTP {answer.status}, and not as Coze does"
            fix = "check COZE_API_URL and COZE_BASE_URL, the network and the name service"
            return [Line("fail", "coze", f"{self._base}: {why}", fix, "无法访问扣子 API")]
        if not answer.refused and answer.code != _NO_PERMISSION:
            text = f"{self._base} does not refuse a token that was made up ({answer})"
            fix = "check COZE_API_URL and COZE_BASE_URL: this is not Coze"
            return [Line("fail", "coze", text, fix, "该地址不是扣子 API：接受了无效令牌")]
        milliseconds = (time.monotonic() - began) * 1000
        lines = [Line("ok", "coze", f"{self._base} answers within {milliseconds:.0f} ms", "", "扣子可访问")]
        for state in self._accounts.states():
            lines += await self._credential(str(state["name"]), str(state["kind"]))
        return lines

    async def _credential(self, name: str, kind: str) -> list[Line]:
        who = f"{name} ({kind})"
        try:
            bearer = await self._accounts.named(name).bearer(None)
            Bearer(bearer).header()
        except UpstreamError as error:
            return [Line("fail", "token", f"{who}: {error.message}", error.hint or "", "无法取得令牌")]
        answer = await self._probe("GET", "/v3/chat/retrieve", bearer, dict(_NO_SUCH_CHAT))
        if answer.failure:
            return [Line("skip", "token", f"{who}: {answer.failure}", "try again", "请重试")]
        if answer.refused or answer.code == _NO_PERMISSION:
            line = await self._region(who, bearer, answer)
            if line is not None:
                return [line]
        if answer.refused:
            fix = "make a new one on Coze's page of access tokens, and set it"
            text = f"{who}: Coze does not accept it ({answer})"
            return [Line("fail", "token", text, fix, "令牌无效或已过期")]
        lines = [Line("ok", "token", f"{who}: Coze accepts it", "", "令牌有效")]
        return [*lines, await self._permissions(who, bearer), await self._bot(who, bearer)]

    async def _region(self, who: str, bearer: str, here: ProbeReply) -> Line | None:
        """Whether the other region knows the token: each has accounts of its own."""
        other = self._regions.get(self._base)
        if other is None:
            return None
        there = await self._probe("GET", "/v3/chat/retrieve", bearer, dict(_NO_SUCH_CHAT), base=other)
        if there.code is None or there.refused or there.code == _NO_PERMISSION:
            return None
        text = f"{who}: {self._base} refuses it ({here}), {other} knows it"
        fix = f"set COZE_API_URL={other}/v3/chat, or take a token of this region"
        return Line("fail", "region", text, fix, "令牌与区域不符：coze.cn 与 coze.com 账号互不相通")

    async def _permissions(self, who: str, bearer: str) -> Line:
        answers = await asyncio.gather(
            *(
                self._probe(
                    method, path, bearer, dict(_NO_SUCH_CHAT) if path != "/v3/chat" else {}, body=body
                )
                for _, _, method, path, body in _PERMISSIONS
            )
        )
        missing = [
            (right, needed)
            for (right, needed, *_), answer in zip(_PERMISSIONS, answers, strict=True)
            if answer.code == _NO_PERMISSION
        ]
        name = "permissions"
        if not missing:
            return Line("ok", name, f"{who}: none of those that the service uses is lacking", "", "权限齐全")
        text = f"{who}: Coze refuses (4101) what needs {', '.join(right for right, _ in missing)}"
        fix = "add these permissions to the token on Coze's page, for the bot's workspace"
        is_needed = any(needed for _, needed in missing)
        return Line("fail" if is_needed else "warn", name, text, fix, "令牌缺少权限")

    async def _bot(self, who: str, bearer: str) -> Line:
        """Coze's online information of a bot is there once it is published to the API channel."""
        name = "bot"
        what = f"{self._bot_id} for {who}"
        answer = await self._probe("GET", "/v1/bot/get_online_info", bearer, {"bot_id": self._bot_id})
        if answer.code == 0 and isinstance(answer.data, dict):
            title = str(answer.data.get("name") or "")[:60]
            return Line("ok", name, f"{what}: published to the API ({title!r})", "", "智能体已发布")
        if answer.code == _NO_PERMISSION:
            text = f"{what}: the token may not look (4101)"
            fix = "add the permission getMetadata, or see the first chat"
            return Line("skip", name, text, fix, "令牌无 getMetadata 权限，无法检查智能体")
        if answer.code is None or answer.code in (404, *TOKEN_REFUSED):
            return Line("skip", name, f"{what}: this Coze does not tell about bots", "", "无法检查智能体")
        if answer.code == 4015:
            fix = "publish the bot on Coze with the channel Agent As API"
            return Line("fail", name, f"{what}: not published ({answer})", fix, "智能体未发布到 API 渠道")
        if answer.code in (4000, 4006, *NOT_FOUND):
            fix = "check COZE_BOT_ID: it is the number at the end of the bot's address"
            return Line(
                "fail", name, f"{what}: not found ({answer})", fix, "找不到智能体，请检查 COZE_BOT_ID"
            )
        meaning = rule_for(answer.code).meaning
        fix = "is the bot published to the API, and the token of its workspace?"
        return Line("warn", name, f"{what}: {meaning} ({answer})", fix, "请确认智能体已发布到 API")

    async def _probe(
        self,
        method: str,
        path: str,
        bearer: str,
        params: dict[str, str],
        *,
        body: Mapping[str, object] | None = None,
        base: str | None = None,
    ) -> ProbeReply:
        headers = httpx.Headers({"authorization": f"Bearer {bearer}", "accept": "application/json"})
        try:
            async with asyncio.timeout(self._seconds):
                response = await self._http.request(
                    method, (base or self._base) + path, params=params, json=body, headers=headers
                )
        except NETWORK_ERRORS as error:
            return ProbeReply(failure=certificate_fault(error) or f"no answer ({_kind(error)})")
        reply = strict_object(response.content) or {}
        detail = reply.get("detail")
        code = reply.get("code")
        return ProbeReply(
            status=response.status_code,
            code=code if type(code) is int and response.status_code < 500 else None,
            logid=response.headers.get("x-tt-logid")
            or (str(detail.get("logid") or "") if isinstance(detail, dict) else ""),
            data=reply.get("data"),
            offset=_clock_offset(response.headers.get("date", "")),
        )


def _kind(error: BaseException) -> str:
    return type(error.__cause__ or error).__name__


def _clock_offset(date: str) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp() - time.time()
    except (ValueError, OverflowError):
        return None
