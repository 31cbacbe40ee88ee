"""What Coze tells of the service's bots, remembered for a while: a bot rarely changes, and many clients
ask."""

import time
from collections.abc import Callable, Collection
from typing import Any, Final

from app.coze.client import CozeClient
from app.exceptions import BotNotFound
from app.tasks.passed import Passed

_FRESH_SECONDS: Final = 300.0
_SHOWN: Final = (
    *("bot_id", "name", "description", "icon_url", "create_time", "update_time", "version"),
    *("onboarding_info", "bot_mode", "background_image_info", "default_user_input_type", "voice_info_list"),
    *("shortcut_commands", "media_config"),
)
"""What an app needs to show a bot. The rest is how it is made: prompt, knowledge, plug-ins, model."""


class BotService:
    """``bot_ids``: of the bots that the service has; nobody learns of others here."""

    def __init__(
        self, coze: CozeClient, bot_ids: Collection[str], *, ticks: Callable[[], float] = time.monotonic
    ) -> None:
        self._coze = coze
        self._bot_ids = frozenset(bot_ids)
        self._ticks = ticks
        self._known: dict[tuple[str, str], tuple[float, Passed]] = {}

    async def published(self, bot_id: str) -> Passed:
        """As GET /v1/bot/get_online_info tells. Raises ``BotNotFound`` and ``UpstreamError``."""
        return await self._ask(bot_id, "online", "/v1/bot/get_online_info", {"bot_id": bot_id})

    async def configured(self, bot_id: str, is_published: str) -> Passed:
        """As GET /v1/bots/{id} tells. ``is_published``: true, false, or empty for Coze's default."""
        params = {"is_published": is_published} if is_published else {}
        return await self._ask(bot_id, f"bot {is_published}", f"/v1/bots/{bot_id}", params)

    async def _ask(self, bot_id: str, what: str, path: str, params: dict[str, str]) -> Passed:
        if bot_id not in self._bot_ids:
            raise BotNotFound
        known = self._known.get((bot_id, what))
        if known is not None and known[0] > self._ticks():
            return known[1]
        reply = await self._coze.using("").pass_on("GET", path, params=params)
        data: dict[str, Any] = reply.data if isinstance(reply.data, dict) else {}
        shown = Passed({name: data[name] for name in _SHOWN if name in data}, reply.logid, {})
        self._known[bot_id, what] = (self._ticks() + _FRESH_SECONDS, shown)
        return shown
