"""Coze's conversations and their messages: /v1/conversation... Each is looked for among the caller's own
before Coze is asked."""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, TypeVar

from fastapi import APIRouter, Path, Query, Response
from msgspec import Raw
from pydantic import BeforeValidator

from app.doors.coze.answers import ConversationId, described
from app.doors.coze.bodies import (
    ConversationBody,
    FeedbackBody,
    ListMessagesBody,
    MessageBody,
    Passed,
    PassedOn,
    RenameBody,
    files_in,
)
from app.doors.coze.errors import CozeRefusal
from app.doors.coze.views import answer, passed
from app.exceptions import BEGINS, COZE, ConversationNotFound, RateLimited, SessionBusy
from app.http.dependencies import CozeContextDep, RequestContext
from app.http.direct import DirectRoute
from app.tasks.owned import COZE_ID, Owned, conversation_view

router = APIRouter(prefix="/coze/api/v1", tags=["coze"], route_class=DirectRoute)

MessageId = Annotated[str, Query(min_length=1, max_length=128, description="Coze's id of the message")]
ConversationPath = Annotated[str, Path(description="Coze's id of the conversation")]
MessagePath = Annotated[str, Path(description="Coze's id of the message")]
_ABOUT: Final = (*COZE, ConversationNotFound, RateLimited)
_UNKNOWN_MESSAGE: Final = 4005
_PAGE_KEYS: Final = ("first_id", "last_id", "has_more")
_M = TypeVar("_M", bound=PassedOn)


def _in_capitals(value: object) -> object:
    """Clients write both. In the document each stands once: generators make names of them, which would be the
    same twice."""
    return value.upper() if isinstance(value, str) else value


@router.post(
    "/conversation/create",
    **described("A new conversation of the caller's", *BEGINS, *COZE, body=ConversationBody),
)
async def create_conversation(context: CozeContextDep) -> Response:
    body = await _body(context, ConversationBody)
    bot_id = body.bot_id or context.resources.settings.bot_id
    reply = await context.resources.owned.create(
        context.identity,
        await _written(context, body, nulls=False),
        bot_id=bot_id,
        name=body.name or "",
        file_ids=await _files(context, body, body.messages or []),
    )
    return passed(reply, context.request_id)


@router.get("/conversation/retrieve", **described("A conversation of the caller's, as Coze has it", *_ABOUT))
async def retrieve_conversation(context: CozeContextDep, conversation_id: ConversationId) -> Response:
    owned = await _owned(context, conversation_id)
    params = {"conversation_id": conversation_id}
    return await _pass_on(context, owned, "GET", "/v1/conversation/retrieve", params)


@router.get(
    "/conversations", **described("The caller's conversations with a bot, in the order of their last use")
)
async def list_conversations(
    context: CozeContextDep,
    bot_id: Annotated[str, Query(pattern=r"^[0-9A-Za-z_-]{1,64}$", description="Whose conversations")],
    page_num: Annotated[int, Query(ge=1, le=10_000, description="From 1")] = 1,
    page_size: Annotated[int, Query(ge=1, le=50, description="Conversations of a page")] = 50,
    sort_order: Annotated[
        Literal["ASC", "DESC"], BeforeValidator(_in_capitals), Query(description="By last use")
    ] = "DESC",
) -> Response:
    page = await context.resources.owned.page(
        context.identity,
        bot_id,
        first=(page_num - 1) * page_size,
        size=page_size,
        newest_first=sort_order == "DESC",
    )
    data = {"conversations": list(map(conversation_view, page.conversations)), "has_more": page.has_more}
    return answer(data, context.request_id)


@router.put("/conversations/{conversation_id}", **described("Names a conversation", *_ABOUT, body=RenameBody))
async def rename_conversation(context: CozeContextDep, conversation_id: ConversationPath) -> Response:
    body = await _body(context, RenameBody)
    owned = await _owned(context, conversation_id)
    text = await _written(context, body)
    return passed(await context.resources.owned.rename(owned, body.name, text), context.request_id)


@router.delete("/conversations/{conversation_id}", **described("Deletes a conversation at Coze", *_ABOUT))
async def delete_conversation(context: CozeContextDep, conversation_id: ConversationPath) -> Response:
    owned = await _owned(context, conversation_id)
    return passed(await context.resources.owned.delete(context.identity, owned), context.request_id)


@router.post(
    "/conversations/{conversation_id}/clear",
    **described("A new context: the bot forgets what was said", *_ABOUT, SessionBusy),
)
async def clear_conversation(context: CozeContextDep, conversation_id: ConversationPath) -> Response:
    owned = await _owned(context, conversation_id)
    return passed(await context.resources.owned.clear(context.identity, owned), context.request_id)


# -- messages ------------------------------------------------------------------------------------------------


@router.post(
    "/conversation/message/list",
    **described("A page of a conversation's messages", *_ABOUT, body=ListMessagesBody),
)
async def list_messages(context: CozeContextDep, conversation_id: ConversationId) -> Response:
    body = await _body(context, ListMessagesBody)
    return await _page(context, conversation_id, await _written(context, body, nulls=False))


@router.get("/conversation/message/list", **described("The same with all in the query", *_ABOUT))
async def list_messages_by_query(
    context: CozeContextDep,
    conversation_id: ConversationId,
    order: Annotated[Literal["asc", "desc"] | None, Query(description="By time")] = None,
    chat_id: Annotated[str | None, Query(max_length=128, description="Of this chat alone")] = None,
    before_id: Annotated[str | None, Query(max_length=128, description="Up to this message")] = None,
    after_id: Annotated[str | None, Query(max_length=128, description="Behind this message")] = None,
    limit: Annotated[int | None, Query(ge=1, le=50, description="Messages of a page")] = None,
) -> Response:
    given = {"order": order, "chat_id": chat_id, "before_id": before_id, "after_id": after_id, "limit": limit}
    return await _page(context, conversation_id, given)


async def _page(context: RequestContext, conversation_id: str, given: Mapping[str, Any]) -> Response:
    owned = await _owned(context, conversation_id)
    # coze-studio lists nothing without a limit.
    body = {"limit": 50} | {name: value for name, value in given.items() if value is not None}
    reply = await context.resources.owned.pass_on(
        owned,
        "POST",
        "/v1/conversation/message/list",
        params={"conversation_id": conversation_id},
        body=body,
    )
    empty = reply._replace(data=[]) if reply.data is None else reply
    return passed(empty, context.request_id, *_PAGE_KEYS)


@router.post(
    "/conversation/message/create",
    **described("Adds a message to a conversation", *BEGINS, *_ABOUT, body=MessageBody),
)
async def create_message(context: CozeContextDep, conversation_id: ConversationId) -> Response:
    body = await _body(context, MessageBody)
    owned = await _owned(context, conversation_id)
    files = await _files(context, body, [body.values])
    await context.resources.owned.check_files(context.identity, files, owned.credential)
    path, params = "/v1/conversation/message/create", {"conversation_id": conversation_id}
    return await _pass_on(context, owned, "POST", path, params, await _written(context, body))


@router.get("/conversation/message/retrieve", **described("One message of a conversation", *_ABOUT))
async def retrieve_message(
    context: CozeContextDep, conversation_id: ConversationId, message_id: MessageId
) -> Response:
    owned = await _owned(context, conversation_id)
    path = "/v1/conversation/message/retrieve"
    params = {"conversation_id": conversation_id, "message_id": _message(message_id)}
    reply = await context.resources.owned.pass_on(owned, "GET", path, params=params)
    told = reply.data if isinstance(reply.data, dict) else {}
    if str(told.get("conversation_id") or conversation_id) != conversation_id:
        raise CozeRefusal(_UNKNOWN_MESSAGE, "There is no such message in this conversation")
    return passed(reply, context.request_id)


_FEEDBACK: Final = "/conversations/{conversation_id}/messages/{message_id}/feedback"


@router.post(_FEEDBACK, **described("What a user thinks of a message", *BEGINS, *_ABOUT, body=FeedbackBody))
async def give_feedback(
    context: CozeContextDep, conversation_id: ConversationPath, message_id: MessagePath
) -> Response:
    body = await _body(context, FeedbackBody)
    owned = await _owned(context, conversation_id)
    path, text = _feedback_path(owned, message_id), await _written(context, body)
    return await _pass_on(context, owned, "POST", path, body=text)


@router.delete(_FEEDBACK, **described("Takes it back", *_ABOUT))
async def take_feedback_back(
    context: CozeContextDep, conversation_id: ConversationPath, message_id: MessagePath
) -> Response:
    owned = await _owned(context, conversation_id)
    return await _pass_on(context, owned, "DELETE", _feedback_path(owned, message_id))


def _feedback_path(owned: Owned, message_id: str) -> str:
    return f"/v1/conversations/{owned.conversation_id}/messages/{_message(message_id)}/feedback"


# -- what they share -----------------------------------------------------------------------------------------


async def _body(context: RequestContext, model: type[_M]) -> _M:
    return await context.json(model, context.resources.settings.coze_max_body_bytes)


async def _files(context: RequestContext, body: PassedOn, messages: list[Passed]) -> list[str]:
    return await context.resources.big_bodies.work_on(body, files_in, messages)


async def _written(context: RequestContext, body: PassedOn, *, nulls: bool = True) -> dict[str, Raw]:
    return await context.resources.big_bodies.work_on(body, body.written, nulls=nulls)


async def _pass_on(
    context: RequestContext,
    owned: Owned,
    method: str,
    path: str,
    params: Mapping[str, str] | None = None,
    body: object = None,
) -> Response:
    reply = await context.resources.owned.pass_on(owned, method, path, params=params, body=body)
    return passed(reply, context.request_id)


async def _owned(context: RequestContext, conversation_id: str) -> Owned:
    return await context.resources.owned.find(context.identity, conversation_id)


def _message(message_id: str) -> str:
    if not COZE_ID.fullmatch(message_id):
        raise CozeRefusal(_UNKNOWN_MESSAGE, "There is no such message in this conversation")
    return message_id
