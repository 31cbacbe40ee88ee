"""Coze's chats: /v3/chat and what hangs below it."""

from typing import Annotated, Final

import orjson
from fastapi import APIRouter, Query, Response
from pydantic import ValidationError

from app.doors.coze.answers import ConversationId, described, stream_of
from app.doors.coze.bodies import CancelBody, ChatBody, ToolOutputsBody
from app.doors.coze.errors import CANNOT_CANCEL, PARAMETERS, UNSAVED_NEEDS_STREAM, CozeRefusal
from app.doors.coze.views import (
    Json,
    answer,
    chat_just_begun,
    chat_of_record,
    has_answer,
    messages_of_record,
    passed,
)
from app.exceptions import (
    BEGINS,
    COZE,
    ChatNotFound,
    ChatState,
    ConversationNotFound,
    QuotaExceeded,
    RateLimited,
    SessionBusy,
)
from app.http.dependencies import CozeContextDep, RequestContext
from app.http.direct import DirectRoute
from app.models.bodies import SubmitToolOutputs
from app.tasks.at_coze import AtCoze
from app.tasks.outputs import Outputs
from app.tasks.owned import Asked, Begun, Found

router = APIRouter(prefix="/coze/api/v3/chat", tags=["coze"], route_class=DirectRoute)

ChatId = Annotated[str, Query(min_length=1, max_length=128, description="Coze's id of the chat")]
_ABOUT: Final = (*COZE, ConversationNotFound, ChatNotFound, RateLimited)


@router.post(
    "",
    **described(
        "Coze's chat: begins one, in a conversation of the caller's or in a new one",
        *BEGINS,
        *COZE,
        ConversationNotFound,
        SessionBusy,
        QuotaExceeded,
        body=ChatBody,
        streams=True,
    ),
)
async def create_chat(
    context: CozeContextDep,
    conversation_id: Annotated[
        str | None,
        Query(max_length=128, description="Coze's id of the conversation; without it there is a new one"),
    ] = None,
) -> Response:
    resources = context.resources
    body = await context.json(ChatBody, resources.settings.coze_max_body_bytes)
    if not body.stream and body.auto_save_history is False:
        raise CozeRefusal(UNSAVED_NEEDS_STREAM, "auto_save_history must be true when stream is false")
    asked = await resources.big_bodies.work_on(body, _asked, body, conversation_id)
    with resources.streams.taken_if(bool(body.stream), context.identity.owner) as place:
        begun = await resources.owned.send(context.identity, asked, context.request_id, context.began)
        if place is not None:
            return stream_of(context, begun, place)
    logid = begun.at_coze.logid or context.request_id
    return _in_progress(begun, logid)


@router.post(
    "/retrieve", **described("The same, as some SDKs ask for it", *_ABOUT, name="retrieve_chat_by_post")
)
@router.get("/retrieve", **described("Coze's chat as it stands", *_ABOUT))
async def retrieve_chat(
    context: CozeContextDep, conversation_id: ConversationId, chat_id: ChatId
) -> Response:
    found = await context.resources.owned.chat(context.identity, conversation_id, chat_id)
    if (record := found.record) is not None:
        return answer(chat_of_record(record, conversation_id, chat_id), _logid(context, record))
    params = {"conversation_id": conversation_id, "chat_id": chat_id}
    reply = await context.resources.owned.pass_on(found.owned, "GET", "/v3/chat/retrieve", params=params)
    _check_is(reply.data, conversation_id, chat_id)
    return passed(reply, context.request_id)


@router.get("/message/list", **described("What Coze's chat has said", *_ABOUT))
async def list_chat_messages(
    context: CozeContextDep, conversation_id: ConversationId, chat_id: ChatId
) -> Response:
    found = await context.resources.owned.chat(context.identity, conversation_id, chat_id)
    record: Json | None = found.record
    if record is not None and record["metadata"].get("auto_save_history") == "false":
        return answer(messages_of_record(record, conversation_id, chat_id), _logid(context, record))
    params = {"conversation_id": conversation_id, "chat_id": chat_id}
    reply = await context.resources.owned.pass_on(found.owned, "GET", "/v3/chat/message/list", params=params)
    mine = [
        each
        for each in (reply.data if isinstance(reply.data, list) else [])
        if isinstance(each, dict) and each.get("conversation_id", conversation_id) == conversation_id
    ]
    logid = reply.logid or context.request_id
    if record is not None and has_answer(record) and not any(each.get("type") == "answer" for each in mine):
        # Coze's list can lag behind its chat; who asks right behind the end would have an empty answer.
        return answer(messages_of_record(record, conversation_id, chat_id), logid)
    return answer(None if reply.data is None else mine, logid)


@router.post("/cancel", **described("Cancels Coze's chat", *_ABOUT, body=CancelBody))
async def cancel_chat(context: CozeContextDep) -> Response:
    body = await context.json(CancelBody)
    resources = context.resources
    found = await resources.owned.chat(context.identity, body.conversation_id, body.chat_id)
    if found.record is None:
        ids = {"conversation_id": body.conversation_id, "chat_id": body.chat_id}
        reply = await resources.owned.pass_on(found.owned, "POST", "/v3/chat/cancel", body=ids)
        return passed(reply, context.request_id)
    record = found.record
    if record["status"] in ("pending", "processing"):
        ending = await resources.chats.cancel(context.identity, found.chat_id)
        record = orjson.loads(ending.record)
        if record["status"] == "cancelled":
            view = chat_of_record(record, body.conversation_id, body.chat_id)
            return answer(view, _logid(context, record))
    raise CozeRefusal(CANNOT_CANCEL, f"The chat cannot be cancelled: it is {record['status']}")


@router.post(
    "/submit_tool_outputs",
    **described(
        "Hands in the outputs that Coze's chat asks for",
        *BEGINS,
        *_ABOUT,
        ChatState,
        body=ToolOutputsBody,
        streams=True,
    ),
)
async def submit_tool_outputs(
    context: CozeContextDep, conversation_id: ConversationId, chat_id: ChatId
) -> Response:
    resources = context.resources
    body = await context.json(ToolOutputsBody, resources.settings.coze_max_body_bytes)
    outputs = await resources.big_bodies.work_on(body, _outputs, body)
    found = await resources.owned.chat(context.identity, conversation_id, chat_id)
    if found.record is None:
        raise ChatNotFound("The chat is no longer kept, so that it cannot go on")
    with resources.streams.taken_if(bool(body.stream), context.identity.owner) as place:
        started = await resources.chats.submit_tool_outputs(
            context.identity, found.chat_id, outputs, context.request_id
        )
        begun = Begun(started, AtCoze(chat_id, conversation_id), _bot_of(found))
        if place is not None:
            return stream_of(context, begun, place, goes_on=True)
    return _in_progress(begun, context.request_id)


def _asked(body: ChatBody, conversation_id: str | None) -> Asked:
    return Asked(
        body=body.sent,
        conversation_id=conversation_id or None,
        user_id=body.user_id,
        bot_id=body.bot_id,
        text=body.question,
        file_ids=body.file_ids,
        meta_data=body.texts_of_meta_data,
    )


def _in_progress(begun: Begun, logid: str) -> Response:
    """Whatever it is by now: the SDKs poll what is in progress, and nothing else."""
    return answer(chat_just_begun(begun, "in_progress"), logid, chat_id=begun.started.chat_id)


def _logid(context: RequestContext, record: Json) -> str:
    logid: str = record["metadata"].get("logid") or context.request_id
    return logid


def _bot_of(found: Found) -> str:
    record: Json = found.record or {"metadata": {}}
    bot: str = record["metadata"].get("bot_id", found.owned.bot_id)
    return bot


def _outputs(body: ToolOutputsBody) -> Outputs:
    try:
        given = SubmitToolOutputs.model_validate({"tool_outputs": body.tool_outputs})
        return Outputs.of(given, repeatable=True)
    except ValidationError:
        raise CozeRefusal(
            PARAMETERS, "tool_outputs is a list of objects with tool_call_id and output, both strings"
        ) from None


def _check_is(data: object, conversation_id: str, chat_id: str) -> None:
    """Coze shall not tell of another chat than the one that was looked at."""
    told = data if isinstance(data, dict) else {}
    if str(told.get("id")) != chat_id or str(told.get("conversation_id")) != conversation_id:
        raise ChatNotFound
