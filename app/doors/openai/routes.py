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
from app.http.direct import DirectRoute
from app.http.openapi import JsonBody, errors, event_stream

_STREAM: Final = event_stream(
    "Server-sent events without a name: each a chat.completion.chunk, or [DONE]",
    'data: {"id":"chatcmpl-coze_chat_1795372834470_7gdps4qxt4cw5d2pk","object":"chat.completion.chunk",'
    '"created":1795372834,"model":"coze","choices":[{"index":0,"delta":{"content":"你好"},"logprobs":null,'
    '"finish_reason":null}]}\n\ndata: [DONE]\n\n',
)

router = APIRouter(prefix="/coze/openai/v1", tags=["openai"], route_class=DirectRoute)


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
async def create_chat_completion(
    context: OpenAIContextDep,
    end_user: Annotated[
        str | None,
        Header(alias="X-OpenWebUI-User-Id", description="Counts where the body has no `user`"),
    ] = None,
    idempotency_key: IdempotencyKeyHeader = None,
) -> Response:
    """The conversation so far comes along in `messages`, or is that of the session in `metadata.session_id`.
    A bot that asks for tools ends with `tool_calls`; the outputs come with the next call."""
    body = await context.json(ChatCompletionRequest, context.resources.settings.openai_max_body_bytes)
    call = CompletionCall(context, body, idempotency_key, end_user)
    with context.resources.streams.taken(context.identity.owner) as place:
        started, is_stream = await begin(call), bool(body.stream)
        del body, call  # megabytes of pictures, for as long as the answer takes
        return stream_of(started, place) if is_stream else await whole_answer(started, place)


@router.get(
    "/models",
    summary="The bots of COZE_BOTS, as OpenAI's clients list models",
    response_model=BotModels,
    responses=errors(shape=OPENAI_ERRORS),
)
async def list_models(context: OpenAIContextDep) -> BotModels:
    """Each is the name of a bot."""
    created = context.resources.started_ms // 1000
    return BotModels(data=[BotModel(id=name, created=created) for name in context.resources.settings.bots])


@router.get(
    "/models/{model:path}",
    summary="One bot of COZE_BOTS, as OpenAI's clients retrieve a model",
    response_model=BotModel,
    responses=errors(ModelNotFound, shape=OPENAI_ERRORS),
)
async def get_model(context: OpenAIContextDep, model: str) -> BotModel:
    """404 where there is no such bot."""
    bot_of(context.resources.settings.bots, model)
    return BotModel(id=model, created=context.resources.started_ms // 1000)
