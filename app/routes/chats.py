"""Chats: result, events, cancel, tool outputs."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from app.dependencies import (
    ChatsDep,
    CursorDep,
    IdempotencyKeyDep,
    IdentityDep,
    PatienceDep,
    RequestIdDep,
    ResourcesDep,
    json_body,
    resources_of,
)
from app.exceptions import (
    BodyTooLarge,
    ChatNotFound,
    ChatState,
    CozeApiError,
    CozeQuotaExhausted,
    CozeRateLimited,
    CozeTimeout,
    IdempotencyKeyReused,
    RateLimited,
    ShuttingDown,
    UnsupportedMediaType,
    ValidationFailed,
)
from app.models import Chat, SubmitToolOutputs, SuccessEnvelope
from app.openapi import body_of, chat_answers, errors, event_stream
from app.routes.answers import chat_answer, chat_as_it_stands
from app.routes.streams import stream

router = APIRouter(prefix="/coze/chats", tags=["chats"])


@router.get(
    "/{chat_id}/result",
    summary="The chat as it stands; `wait` long-polls until it is over",
    response_model=SuccessEnvelope[Chat],
    responses=errors(ValidationFailed, ChatNotFound),
)
async def get_result(
    chat_id: str,
    request: Request,
    identity: IdentityDep,
    wait: Annotated[float, Query(ge=0, le=60, description="Seconds", allow_inf_nan=False)] = 0,
) -> Response:
    return chat_as_it_stands(await resources_of(request).chats.result(identity, chat_id, wait))


@router.get(
    "/{chat_id}/events",
    summary="The chat's event stream, from the start or after an event id",
    response_class=Response,
    responses={**event_stream(), **errors(ValidationFailed, ChatNotFound, RateLimited)},
)
async def get_events(
    chat_id: str, identity: IdentityDep, chats: ChatsDep, resources: ResourcesDep, after: CursorDep
) -> Response:
    resources.streams.check(identity.owner)
    return stream(await chats.follow(identity, chat_id, after), chat_id, identity, resources)


@router.post(
    "/{chat_id}/cancel",
    summary="Cancel the chat, here and at Coze",
    response_model=SuccessEnvelope[Chat],
    responses=errors(ChatNotFound),
)
async def cancel_chat(chat_id: str, identity: IdentityDep, chats: ChatsDep) -> Response:
    return chat_as_it_stands(await chats.cancel(identity, chat_id), asked_coze=True)


@router.post(
    "/{chat_id}/tool_outputs",
    summary="Answer a chat that requires action; it goes on under the same id",
    response_model=SuccessEnvelope[Chat],
    responses={
        **chat_answers(),
        **errors(
            *(ValidationFailed, BodyTooLarge, UnsupportedMediaType, ChatNotFound, ChatState, ShuttingDown),
            *(IdempotencyKeyReused, RateLimited, CozeRateLimited, CozeApiError, CozeTimeout),
            CozeQuotaExhausted,
        ),
    },
    openapi_extra=body_of(SubmitToolOutputs),
)
async def submit_tool_outputs(
    chat_id: str,
    identity: IdentityDep,
    chats: ChatsDep,
    resources: ResourcesDep,
    patience: PatienceDep,
    request_id: RequestIdDep,
    idempotency_key: IdempotencyKeyDep,
    body: Annotated[SubmitToolOutputs, Depends(json_body(SubmitToolOutputs))],
) -> Response:
    if body.stream:
        resources.streams.check(identity.owner)
    started = await chats.submit_tool_outputs(identity, chat_id, body, request_id, idempotency_key)
    if body.stream:
        return stream(chats.read(identity, started), chat_id, identity, resources)
    return chat_answer(await chats.answer(identity, chat_id, patience.seconds), patience.headers)
