"""The bots: what Coze tells of a published one. Every 19-digit id is one here; one is unpublished."""

from __future__ import annotations

from starlette.responses import Response

from coze_simulator.core import Call
from coze_simulator.errors import ApiError
from coze_simulator.options import SIMULATOR_BOT_ID, UNPUBLISHED_BOT_ID
from coze_simulator.validate import check_bot_id
from coze_simulator.wire import Json

_CREATED = 1_700_000_000


async def online_info(call: Call) -> Response:
    """GET /v1/bot/get_online_info."""
    return call.reply(_bot(call.query("bot_id")))


async def retrieve_bot(call: Call) -> Response:
    """GET /v1/bots/{bot_id}."""
    return call.reply(_bot(call.request.path_params["bot_id"]))


def _bot(bot_id: str) -> Json:
    check_bot_id(bot_id)
    if bot_id == UNPUBLISHED_BOT_ID:
        raise ApiError(4015)
    name = "模拟智能体" if bot_id == SIMULATOR_BOT_ID else f"模拟智能体 {bot_id[-4:]}"
    return {
        "bot_id": bot_id,
        "name": name,
        "description": "本机模拟的智能体，不调用任何模型",
        "icon_url": f"https://icons.example.com/{bot_id}.png",
        "create_time": _CREATED,
        "update_time": _CREATED,
        "version": "1",
        "prompt_info": {"prompt": "the bot's own instructions, which are nobody else's affair"},
        "onboarding_info": {
            "prologue": "你好！我是本机模拟的智能体，会算术、会写代码，也记得你说过的话。",
            "suggested_questions": ["3 + 4 等于几？", "写一段 Python 代码", "我刚才说了什么？"],
        },
        "bot_mode": 0,
        "plugin_info_list": [],
        "model_info": {"model_id": "1", "model_name": "simulated"},
    }
