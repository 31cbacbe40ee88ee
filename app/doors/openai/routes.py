"""OpenAI's routes under /coze/openai/v1."""

from typing import Annotated, Final

from fastapi import APIRouter, Header, Response

from app.doors.openai.bodies import BotModel, BotModels, ChatCompletion, ChatCompletionRequest
from app.doors.openai.completions import CompletionCall, begin, bot_of, stream_of, whole_answer
from app.doors.openai.errors import OPENAI_ERRORS
from app.exceptions import (
    BEGINS_ONCE,
    COZE,
    SESSION,
    ChatExpired,
    ChatNotFound,
    ChatState,
    ModelNotFound,
    QuotaExceeded,
    SessionBusy,
)
from app.http.dependencies import IdempotencyKeyHeader, OpenAIContextDep
from app.http.openapi import JsonBody, Responses, errors

_STREAM: Final[Responses] = {
    200: {
        "content": {
            "text/event-stream": {
                "schema": {
                    "type": "object",
                    "description": "One server-sent event without a name: a chat.completion.chunk, or [DONE]",
                    "properties": {"data": {"type": "string", "description": "JSON, or [DONE]"}},
                    "required": ["data"],
                }
            }
        }
    }
}

router = APIRouter(prefix="/coze/openai/v1", tags=["openai"])


@router.post(
    "/chat/completions",
    summary="OpenAI's chat completions: a bot answers, whole or as a stream",
    response_model=ChatCompletion,
    responses=_STREAM
    | errors(
        *(*BEGINS_ONCE, *SESSION, *COZE, SessionBusy, QuotaExceeded),
        *(ModelNotFound, ChatNotFound, ChatExpired, ChatState),
        shape=OPENAI_ERRORS,
    ),
    openapi_extra=JsonBody(ChatCompletionRequest),
)
async def chat_completions(
    context: OpenAIContextDep,
    end_user: Annotated[
        str | None,
        Header(alias="X-OpenWebUI-User-Id", description="Counts where the body has no `user`"),
    ] = None,
    idempotency_key: IdempotencyKeyHeader = None,
) -> Response:
    body = await context.json(ChatCompletionRequest, context.resources.settings.openai_max_body_bytes)
    call = CompletionCall(context, body, idempotency_key, end_user)
    with context.resources.streams.taken(context.identity.owner) as place:
        started = await begin(call)
        if body.stream:
            return stream_of(call, started, place)
        return await whole_answer(call, started, place)


@router.get(
    "/models",
    summary="The bots of COZE_BOTS, as OpenAI's clients list models",
    response_model=BotModels,
    responses=errors(shape=OPENAI_ERRORS),
)
async def list_models(context: OpenAIContextDep) -> BotModels:
    created = context.resources.started_ms // 1000
    return BotModels(data=[BotModel(id=name, created=created) for name in context.resources.settings.bots])


@router.get(
    "/models/{model:path}",
    summary="One bot of COZE_BOTS, as OpenAI's clients retrieve a model",
    response_model=BotModel,
    responses=errors(ModelNotFound, shape=OPENAI_ERRORS),
)
async def get_model(context: OpenAIContextDep, model: str) -> BotModel:
    bot_of(context.resources.settings.bots, model)
    return BotModel(id=model, created=context.resources.started_ms // 1000)
