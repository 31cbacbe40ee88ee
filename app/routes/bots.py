"""Bots: those of the settings, as Coze describes them."""

from typing import Annotated

from fastapi import APIRouter, Path, Response

from app.exceptions import COZE, BotNotFound
from app.http.dependencies import ContextDep
from app.http.openapi import errors
from app.http.raw_path import RawPathRoute
from app.models.catalog import Bot, BotList
from app.models.envelope import SuccessEnvelope
from app.routes.answers import success

router = APIRouter(prefix="/coze/bots", tags=["bots"], route_class=RawPathRoute)


@router.get(
    "",
    summary="The configured bots: name, icon, opening text, suggested questions",
    response_model=SuccessEnvelope[BotList],
    responses=errors(),
)
async def list_bots(context: ContextDep) -> Response:
    bots = await context.resources.bots.all()
    return success({"bots": bots}, message=f"{len(bots)} bots")


@router.get(
    "/{bot_id}",
    summary="One configured bot",
    response_model=SuccessEnvelope[Bot],
    responses=errors(*COZE, BotNotFound),
)
async def get_bot(
    bot_id: Annotated[str, Path(description="Coze's id of the bot")], context: ContextDep
) -> Response:
    bot, logid = await context.resources.bots.get(bot_id)
    return success(bot, message="bot found", logid=logid)
