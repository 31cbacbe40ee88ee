"""The bots of the settings, as Coze describes them: asked for rarely, and never on behalf of one caller."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from loguru import logger

from app.coze.client import CozeClient
from app.coze.replies import Reply
from app.coze.wire import text
from app.exceptions import BotNotFound, UpstreamError
from app.tasks.passed import Passed

_KEPT_SECONDS: Final = 600.0
_FAILURE_SECONDS: Final = 10.0
"""So long Coze is not asked again after it has failed, however many callers want to know."""
_MOST_QUESTIONS: Final = 20
_OF_COZE: Final = (
    *("bot_id", "name", "description", "icon_url", "create_time", "update_time", "version"),
    *("onboarding_info", "bot_mode", "background_image_info", "default_user_input_type", "voice_info_list"),
    *("shortcut_commands", "media_config"),
)
"""What an app needs to show a bot. The rest is how it is made: prompt, knowledge, plug-ins, model."""


@dataclass(slots=True)
class _Known:
    """What is known of one bot. ``until``: when Coze is asked again, by the loop's clock, in seconds."""

    reply: Reply | None = None
    failure: UpstreamError | None = None
    until: float = 0.0
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)


class BotService:
    """``bot_ids``: the configured ones, the default first. Nothing is told of any other."""

    def __init__(self, coze: CozeClient, bot_ids: Iterable[str]) -> None:
        self._coze = coze
        self._known = {bot_id: _Known() for bot_id in bot_ids}

    async def all(self) -> list[dict[str, object]]:
        """What callers may know of each; of one that Coze tells nothing of at the moment, its id."""
        return list(await asyncio.gather(*map(self._view_or_id, self._known)))

    async def get(self, bot_id: str) -> tuple[dict[str, object], str | None]:
        """What callers may know of the bot, and Coze's logid. Raises ``BotNotFound``, ``UpstreamError``."""
        reply = await self.described(bot_id)
        return _view(bot_id, reply.data), reply.logid

    async def described(self, bot_id: str) -> Reply:
        """Coze's own answer about the bot, at most ten minutes old, or older where Coze fails. It holds the
        bot's prompt, which is not every caller's affair.

        Raises ``BotNotFound`` for one that is not configured, ``UpstreamError``.
        """
        known = self._known.get(bot_id)
        if known is None:
            raise BotNotFound
        async with known.asking:  # who comes meanwhile gets the same answer
            if known.until <= (now := asyncio.get_running_loop().time()):
                try:
                    known.reply, known.failure = await self._coze.using("", "").retrieve_bot(bot_id), None
                    known.until = now + _KEPT_SECONDS
                except UpstreamError as error:
                    logger.warning("Coze does not describe the bot {}: {}", bot_id, error.message)
                    known.failure, known.until = error, now + _FAILURE_SECONDS
        if known.reply is None:
            raise known.failure or BotNotFound
        return known.reply

    async def for_coze_clients(self, bot_id: str) -> Passed:
        """What clients of Coze's own API may know of the bot, in its shape: not how it is made. Raises as
        ``described``."""
        reply = await self.described(bot_id)
        bot = reply.data if isinstance(reply.data, dict) else {}
        return Passed({name: bot[name] for name in _OF_COZE if name in bot}, reply.logid, {})

    async def _view_or_id(self, bot_id: str) -> dict[str, object]:
        try:
            return (await self.get(bot_id))[0]
        except UpstreamError:
            return _view(bot_id, None)


def _view(bot_id: str, data: object) -> dict[str, object]:
    """The bot as the contract has it. The icon is an address that browsers load, so it must be https."""
    bot = data if isinstance(data, dict) else {}
    opening = bot.get("onboarding_info")
    opening = opening if isinstance(opening, dict) else {}
    questions = opening.get("suggested_questions")
    listed = questions if isinstance(questions, list) else []
    icon = text(bot.get("icon_url"))
    return {
        "bot_id": bot_id,
        "name": text(bot.get("name")) or None,
        "description": text(bot.get("description")),
        "icon_url": icon if icon.startswith("https://") else None,
        "opening_text": text(opening.get("prologue")),
        "suggested_questions": [each for each in listed if isinstance(each, str) and each][:_MOST_QUESTIONS],
    }
