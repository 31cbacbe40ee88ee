"""Users: their live sessions and past conversations, and erasing what is kept of them."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from app.exceptions import COZE, BodyTooLarge, ConversationNotFound, RateLimited, UnsupportedMediaType
from app.http.dependencies import ContextDep, OpenAIContextDep
from app.http.openapi import JsonBody, errors
from app.http.raw_path import RawPathRoute
from app.models.answers import Erased, SessionList
from app.models.bodies import USER_ID_PATTERN, RenameConversation
from app.models.catalog import Conversation, ConversationPage, DeletedConversation
from app.models.envelope import SuccessEnvelope
from app.models.faults import MESSAGE_ID_PATTERN
from app.routes.answers import success

router = APIRouter(prefix="/coze/users", tags=["users"], route_class=RawPathRoute)

UserIdPath = Annotated[str, Path(min_length=1, max_length=128, pattern=USER_ID_PATTERN)]
ConversationIdPath = Annotated[str, Path(description="Coze's id of the conversation")]


@router.get(
    "/{user_id}/sessions",
    summary="The user's live sessions, newest activity first",
    response_model=SuccessEnvelope[SessionList],
    responses=errors(),
)
async def list_sessions(
    user_id: UserIdPath,
    context: ContextDep,
    limit: Annotated[int, Query(ge=1, le=1000, description="How many sessions")] = 100,
) -> Response:
    """The caller's own user of that name; for an admin, all users of that name in the root domain."""
    sessions = await context.resources.users.sessions(context.identity, user_id, limit)
    return success({"sessions": sessions}, message=f"{len(sessions)} sessions")


@router.get(
    "/{user_id}/conversations",
    summary="Conversations that the user has had, the last used first; they outlive sessions",
    response_model=SuccessEnvelope[ConversationPage],
    responses=errors(),
)
async def list_conversations(
    user_id: UserIdPath,
    context: ContextDep,
    limit: Annotated[int, Query(ge=1, le=100, description="How many at most")] = 50,
    before: Annotated[
        str, Query(pattern=MESSAGE_ID_PATTERN, description="conversation_id that ended the last page")
    ] = "",
) -> Response:
    conversations, has_more = await context.resources.past.page(
        context.identity, user_id, limit=limit, before=before
    )
    last = conversations[-1]["conversation_id"] if has_more and conversations else None
    page = {"conversations": conversations, "has_more": has_more, "next_before": last}
    return success(page, message=f"{len(conversations)} conversations")


@router.patch(
    "/{user_id}/conversations/{conversation_id}",
    summary="Rename a conversation",
    response_model=SuccessEnvelope[Conversation],
    responses=errors(BodyTooLarge, UnsupportedMediaType, ConversationNotFound),
    openapi_extra=JsonBody(RenameConversation),
)
async def rename_conversation(
    user_id: UserIdPath, conversation_id: ConversationIdPath, context: ContextDep
) -> Response:
    body = await context.json(RenameConversation)
    renamed = await context.resources.past.rename(context.identity, user_id, conversation_id, body.title)
    return success(renamed, message="conversation renamed")


@router.delete(
    "/{user_id}/conversations/{conversation_id}",
    summary="Delete a conversation, at Coze too; sessions that go on with it end",
    response_model=SuccessEnvelope[DeletedConversation],
    responses=errors(*COZE, ConversationNotFound, RateLimited),
)
async def delete_conversation(
    user_id: UserIdPath, conversation_id: ConversationIdPath, context: ContextDep
) -> Response:
    deleted, logid = await context.resources.past.delete(context.identity, user_id, conversation_id)
    return success(deleted, message="conversation deleted", logid=logid)


@router.delete(
    "/{user_id}",
    summary="Erase what is kept of a user",
    response_model=SuccessEnvelope[Erased],
    responses=errors(RateLimited),
)
async def erase_user(user_id: UserIdPath, context: OpenAIContextDep) -> Response:
    """Cancels what runs, deletes sessions, chats, logs and keys, and asks Coze to clear the conversations. A
    bounded number of sessions at a time: call it again while `remaining_sessions` is above zero."""
    erased = await context.resources.users.erase(context.identity, user_id)
    return success(erased, message=f"{erased['erased_sessions']} sessions erased")
