"""OpenAI's routes under /coze/openai/v1."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from app.dependencies import (
    CallerDep,
    IdempotencyKeyDep,
    RequestIdDep,
    ResourcesDep,
    get_caller,
    json_body,
)
from app.exceptions import (
    BodyTooLarge,
    ChatExpired,
    ChatNotFound,
    ChatState,
    CozeApiError,
    CozeQuotaExhausted,
    CozeRateLimited,
    CozeTimeout,
    IdempotencyKeyReused,
    ModelNotFound,
    QuotaExceeded,
    RateLimited,
    SessionBusy,
    SessionExpired,
    SessionNotFound,
    SessionTerminated,
    ShuttingDown,
    UnsupportedMediaType,
    ValidationFailed,
)
from app.openai_bodies import BotModel, BotModels, ChatCompletion, ChatCompletionRequest
from app.openai_door.callers import EndUserDep
from app.openai_door.completions import Call, begin, stream_of, whole_answer
from app.openapi import body_of, openai_errors, openai_stream

BODY = json_body(ChatCompletionRequest, get_caller, lambda settings: settings.openai_max_body_bytes)

router = APIRouter(prefix="/coze/openai/v1", tags=["openai"])


@router.post(
    "/chat/completions",
    summary="OpenAI's chat completions: a bot answers, whole or as a stream",
    response_model=ChatCompletion,
    responses={
        **openai_stream(),
        **openai_errors(
            *(ValidationFailed, BodyTooLarge, UnsupportedMediaType, IdempotencyKeyReused, ModelNotFound),
            *(SessionNotFound, SessionTerminated, SessionExpired, ChatNotFound, ChatExpired, ChatState),
            *(SessionBusy, ShuttingDown, RateLimited, QuotaExceeded),
            *(CozeRateLimited, CozeApiError, CozeQuotaExhausted, CozeTimeout),
        ),
    },
    openapi_extra=body_of(ChatCompletionRequest),
)
async def chat_completions(
    request: Request,
    caller: CallerDep,
    resources: ResourcesDep,
    end_user: EndUserDep,
    idempotency_key: IdempotencyKeyDep,
    request_id: RequestIdDep,
    body: Annotated[ChatCompletionRequest, Depends(BODY)],
) -> Response:
    call = Call(resources, caller, body, request_id, idempotency_key, end_user)
    begun = await begin(call)
    return stream_of(call, begun) if body.stream else await whole_answer(call, begun, request)


@router.get(
    "/models",
    summary="The bots of COZE_BOTS, as OpenAI's clients list models",
    response_model=BotModels,
    responses=openai_errors(),
)
async def list_models(_: CallerDep, resources: ResourcesDep) -> BotModels:
    created = resources.started_ms // 1000
    return BotModels(data=[BotModel(id=name, created=created) for name in resources.settings.bots])
