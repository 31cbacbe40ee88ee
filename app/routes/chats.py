"""Chats: the result of one, at once or as soon as it is there."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from app.dependencies import IdentityDep, TasksDep
from app.exceptions import ChatNotFound, ValidationFailed
from app.models import Chat, SuccessEnvelope
from app.openapi import errors
from app.routes.answers import chat_as_it_stands

router = APIRouter(prefix="/coze/chats", tags=["chats"])


@router.get(
    "/{chat_id}/result",
    summary="The chat as it stands; `wait` long-polls until it is over",
    response_model=SuccessEnvelope[Chat],
    responses=errors(ValidationFailed, ChatNotFound),
)
async def get_result(
    chat_id: str,
    identity: IdentityDep,
    tasks: TasksDep,
    wait: Annotated[float, Query(ge=0, le=60, description="Seconds", allow_inf_nan=False)] = 0,
) -> Response:
    return chat_as_it_stands(await tasks.result(identity, chat_id, wait))
