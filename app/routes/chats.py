"""Chats: result, events, cancel, tool outputs, asked again, feedback."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Response

from app.exceptions import (
    BEGINS,
    BEGINS_ONCE,
    COZE,
    SESSION,
    ChatExpired,
    ChatNotFound,
    ChatState,
    ConversationNotFound,
    FileNotFound,
    QuotaExceeded,
    RateLimited,
    SessionBusy,
)
from app.http.dependencies import ContextDep, CursorDep, IdempotencyKeyHeader, PatienceDep
from app.http.openapi import AT_THE_END, JsonBody, chat_answers, chat_events, errors
from app.http.raw_path import RawPathRoute
from app.models.bodies import GiveFeedback, Regenerate, SubmitToolOutputs
from app.models.catalog import GivenFeedback
from app.models.chats import Chat
from app.models.envelope import SuccessEnvelope
from app.routes.answers import chat_as_it_stands, stream, stream_head, success
from app.routes.messages import begun
from app.tasks.outputs import Outputs

router = APIRouter(prefix="/coze/chats", tags=["chats"], route_class=RawPathRoute)


@router.get(
    "/{chat_id}/result",
    summary="The chat as it stands; `wait` long-polls until it is over",
    response_model=SuccessEnvelope[Chat],
    responses=errors(ChatNotFound, RateLimited),
)
async def get_result(
    chat_id: str,
    context: ContextDep,
    wait: Annotated[
        float, Query(ge=0, le=60, description="How long to wait: seconds", allow_inf_nan=False)
    ] = 0,
) -> Response:
    """With `wait` the answer comes as soon as the chat is over or needs tool outputs. A failed chat is a 200,
    too, with the reason in `error`. While a chat runs its text is only in its events."""
    seconds = 0 if context.is_head else wait
    return chat_as_it_stands(await context.resources.chats.result(context.identity, chat_id, seconds))


@router.get(
    "/{chat_id}/events",
    summary="The chat's event stream, from the start or after an event id",
    response_class=Response,
    responses=chat_events() | AT_THE_END | errors(ChatNotFound, RateLimited),
)
async def get_events(chat_id: str, context: ContextDep, after: CursorDep) -> Response:
    """Goes on until `done`. After a lost connection, or `reconnect`, come back with the id of the last event:
    nothing is lost or doubled. Fold the events by the rule of the documentation: append deltas, let a
    snapshot replace them."""
    with context.resources.streams.taken_if(not context.is_head, context.identity.owner) as place:
        reader = await context.resources.chats.follow(context.identity, chat_id, after)
        if reader is None:
            return Response(status_code=204, headers={"X-Coze-Chat-Id": chat_id})
        return stream_head(chat_id) if place is None else stream(context, reader, chat_id, place)


@router.post(
    "/{chat_id}/cancel",
    summary="Cancel the chat, here and at Coze",
    response_model=SuccessEnvelope[Chat],
    responses=errors(ChatNotFound),
)
async def cancel_chat(chat_id: str, context: ContextDep) -> Response:
    """A chat that is over is returned as it is."""
    chat = await context.resources.chats.cancel(context.identity, chat_id)
    return chat_as_it_stands(chat, asked_coze=True)


@router.post(
    "/{chat_id}/tool_outputs",
    summary="Answer a chat that requires action; it goes on under the same id",
    response_model=SuccessEnvelope[Chat],
    responses=chat_answers() | errors(*BEGINS_ONCE, *COZE, ChatNotFound, ChatState, QuotaExceeded),
    openapi_extra=JsonBody(SubmitToolOutputs),
)
async def submit_tool_outputs(
    chat_id: str,
    context: ContextDep,
    patience: PatienceDep,
    idempotency_key: IdempotencyKeyHeader = None,
) -> Response:
    """All outputs go in one call. The chat goes on under its id, in the same log of events; the answer is
    that of a message. With an `Idempotency-Key` the call may be repeated."""
    body = await context.json(SubmitToolOutputs)
    outputs = await context.resources.big_bodies.work_on(body, Outputs.of, body, idempotency_key)
    submit = context.resources.chats.submit_tool_outputs
    answering = begun(
        context,
        patience,
        partial(submit, context.identity, chat_id, outputs, context.request_id),
        streamed=body.stream,
    )
    del body, outputs  # else they stay until the answer is over
    return await answering


@router.post(
    "/{chat_id}/regenerate",
    summary="Ask the message of a session's newest chat once more; Coze keeps both turns",
    response_model=SuccessEnvelope[Chat],
    responses=chat_answers()
    | errors(
        *(*BEGINS_ONCE, *SESSION, *COZE, ChatNotFound, ChatState, ChatExpired),
        *(SessionBusy, FileNotFound, QuotaExceeded),
    ),
    openapi_extra=JsonBody(Regenerate),
)
async def regenerate(
    chat_id: str,
    context: ContextDep,
    patience: PatienceDep,
    idempotency_key: IdempotencyKeyHeader = None,
) -> Response:
    body = await context.json(Regenerate)
    ask_again = context.resources.chats.regenerate
    answering = begun(
        context,
        patience,
        partial(ask_again, context.identity, chat_id, body, context.request_id, idempotency_key),
        streamed=body.stream,
    )
    del body  # else it stays until the answer is over
    return await answering


@router.post(
    "/{chat_id}/feedback",
    summary="Say whether the answer is liked; Coze keeps that with the message",
    response_model=SuccessEnvelope[GivenFeedback],
    responses=errors(*BEGINS, *SESSION, *COZE, ChatNotFound, ConversationNotFound, ChatState),
    openapi_extra=JsonBody(GiveFeedback),
)
async def give_feedback(chat_id: str, context: ContextDep) -> Response:
    body = await context.json(GiveFeedback)
    given, logid = await context.resources.feedback.give(context.identity, chat_id, body.model_dump())
    return success(given, message="feedback given", logid=logid)


@router.delete(
    "/{chat_id}/feedback",
    summary="Take the feedback back",
    response_model=SuccessEnvelope[GivenFeedback],
    responses=errors(*SESSION, *COZE, ChatNotFound, ConversationNotFound, ChatState, RateLimited),
)
async def take_feedback_back(chat_id: str, context: ContextDep) -> Response:
    taken, logid = await context.resources.feedback.give(context.identity, chat_id, None)
    return success(taken, message="feedback taken back", logid=logid)
