"""The bot endpoints: /v1/bots/{id} and the older /v1/bot/get_online_info."""

from __future__ import annotations

from starlette.responses import Response

from coze_simulator.core import Call
from coze_simulator.errors import ApiError
from coze_simulator.options import UNPUBLISHED_BOT_ID
from coze_simulator.validate import check_bot_id
from coze_simulator.wire import Json


async def online_info(call: Call) -> Response:
    """GET /v1/bot/get_online_info: a bot as it was published."""
    return call.reply(_bot(check_bot_id(call.query("bot_id"))))


async def retrieve_bot(call: Call) -> Response:
    """GET /v1/bots/{bot_id}."""
    return call.reply(_bot(check_bot_id(call.request.path_params["bot_id"])))


def _bot(bot_id: str) -> Json:
    if bot_id == UNPUBLISHED_BOT_ID:
        raise ApiError(4015)
    return {
        "bot_id": bot_id,
        "name": "Simulated bot",
        "description": "Answers what it is asked",
        "icon_url": "https://example.com/icon.png",
        "create_time": 1735700000,
        "update_time": 1735700001,
        "version": "1735700001000",
        "prompt_info": {"prompt": "You are a bot of the simulator."},
        "onboarding_info": {
            "prologue": "Hello! What can I do for you?",
            "suggested_questions": ["Who are you?"],
        },
        "bot_mode": 0,
        "plugin_info_list": [],
        "model_info": {"model_id": "1", "model_name": "simulated"},
    }
