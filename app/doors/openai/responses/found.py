"""Responses that there are: found by their ids, told, gone back from, cancelled and deleted."""

from dataclasses import dataclass
from typing import Any, Final

import orjson

from app.doors.openai.asking import work_of
from app.doors.openai.dialog import invalid
from app.doors.openai.responses.bodies import Item
from app.doors.openai.responses.items import REFERENCE
from app.doors.openai.responses.names import Name, response_named, response_of_item
from app.doors.openai.responses.notes import epochs_in, without_note
from app.doors.openai.responses.objects import ENDED, OutputItem, Response, status_of
from app.doors.openai.schema_work import Work
from app.exceptions import ChatNotFound, ChatState
from app.http.dependencies import RequestContext

MOST_REFERRED: Final = 100
"""Responses whose items a request may refer to; as many messages go to Coze."""
MOST_READ: Final = 4 * 1024 * 1024
"""Bytes of chats' records that one request has looked through, for what it refers to or goes on from. It has
not paid for anything yet then."""
MOST_LINKS: Final = 200
"""Responses that a history is made of; some of them have no items at all, and next to no bytes."""


@dataclass(frozen=True, slots=True)
class Found:
    """A response, and its chat as it stands. ``size``: bytes of the chat's record, as it was read."""

    name: Name
    response: Response
    chat: dict[str, Any]
    size: int = 0

    @property
    def session_id(self) -> str:
        session_id: str = self.chat["session_id"]
        return session_id

    @property
    def is_over(self) -> bool:
        return self.response.note.done is not None or status_of(self.chat) in ENDED

    async def output(self, work: Work) -> list[OutputItem]:
        """Empty while it is not over. ``work``: what the request has left for checks of answers."""
        done = self.response.note.done
        if done is not None:
            return done.output
        return await self.response.output(self.chat, work) if self.is_over else []

    async def seen(self, context: RequestContext) -> dict[str, Any]:
        return await self.response.seen(self.chat, work_of(context))

    async def history(self, context: RequestContext, most: int) -> list[Item]:
        """Input and output of this response and of those that it went on from, at most ``most`` items or a
        few more. It ends where one of them is not kept any more, where ``MOST_READ`` was read, after
        ``MOST_LINKS`` of them, and before one whose check is more than a request may have checked."""
        items, here, read, links, work = list[Item](), self, self.size, 1, work_of(context)
        async with context.resources.going_back.taken(context.identity.owner):
            while True:
                output = await here.output(work)
                if work.is_over:
                    return items
                items = [*here.response.note.input, *output, *items]
                before = response_named(here.response.note.previous or "")
                if before is None or len(items) >= most or read >= MOST_READ or links >= MOST_LINKS:
                    return items
                try:
                    here = await find(context, before)
                except ChatNotFound:
                    return items
                read, links = read + here.size, links + 1


async def find(context: RequestContext, name: Name) -> Found:
    """Raises ``ChatNotFound``, also for what is somebody else's, or was not to be kept."""
    record = (await context.resources.chats.result(context.identity, name.chat_id, 0)).record
    chat = orjson.loads(record)
    response = Response.in_chat(name, chat)
    if response is None or not response.note.store:
        raise ChatNotFound
    return Found(name, response, chat, len(record))


async def found(context: RequestContext, response_id: str) -> Found:
    """Raises ``ChatNotFound`` in OpenAI's words."""
    name = response_named(response_id)
    try:
        if name is not None:
            return await find(context, name)
    except ChatNotFound:
        pass
    raise not_found()


def not_found() -> ChatNotFound:
    """The same for an unknown one, a malformed one, and somebody else's."""
    details = {"param": "response_id", "openai_code": "response_not_found"}
    return ChatNotFound("Response not found.", details=details)


async def with_references(context: RequestContext, items: list[Item]) -> list[Item]:
    """``items`` with what they refer to in the place of references. Raises ``ValidationFailed``."""
    if not any(_referred(item) for item in items):
        return items
    async with context.resources.going_back.taken(context.identity.owner):  # what is read takes much memory
        return await _with_references(context, items)


def _referred(item: Item) -> str | None:
    """The id of what the item refers to; None where it is one itself."""
    given = item.get("id")
    if not isinstance(given, str) or item.get("type") not in (REFERENCE, None) or "role" in item:
        return None
    return given


async def _with_references(context: RequestContext, items: list[Item]) -> list[Item]:
    known: dict[Name, list[OutputItem]] = {}
    read, whole, work = 0, [], work_of(context)
    for number, item in enumerate(items):
        given = _referred(item)
        if given is None:
            whole.append(item)
            continue
        name = response_of_item(given)
        if name is not None and name not in known:
            if len(known) >= MOST_REFERRED:
                raise invalid(f"input.{number}.id", f"items of at most {MOST_REFERRED} responses")
            if read >= MOST_READ:
                raise invalid(f"input.{number}.id", "the responses that the input refers to are too large")
            try:
                here = await find(context, name)
                known[name], read = await here.output(work), read + here.size
            except ChatNotFound:
                known[name] = []
            if work.is_over:
                raise invalid(
                    f"input.{number}.id", "the answers that the input refers to take too long to check"
                )
        outputs = known[name] if name is not None else []
        meant = next((each for each in outputs if each["id"] == given), None)
        if meant is None:
            raise invalid(
                f"input.{number}.id", "Item with this id not found; responses that are kept have some"
            )
        whole.append(meant)
    return whole


async def cancel(context: RequestContext, response_id: str) -> Found:
    """Raises ``ChatNotFound``, ``ValidationFailed`` for one that is not in background."""
    here = await found(context, response_id)
    if not here.response.note.background:
        raise invalid("response_id", "only responses in background can be cancelled; others by hanging up")
    if here.is_over:
        return here
    ending = await context.resources.chats.cancel(context.identity, here.name.chat_id)
    chat = orjson.loads(ending.record)
    return Found(here.name, here.response, chat)


async def delete(context: RequestContext, response_id: str) -> None:
    """One that is not over is cancelled first. The texts go with the last response of a chat: those that
    went on with tool outputs are one chat.

    Raises ``ChatNotFound``, ``ChatState`` where another response of its chat is not over.
    """
    here = await found(context, response_id)
    chats, name = context.resources.chats, here.name
    newest = epochs_in(here.chat["metadata"])[-1]
    if name.epoch == newest and here.chat["status"] in ("pending", "processing", "requires_action"):
        await chats.cancel(context.identity, name.chat_id)

    def rest_of(record: bytes) -> bytes:
        chat = orjson.loads(record)
        if name.epoch not in epochs_in(chat["metadata"]):
            raise not_found()  # another call was first
        chat["metadata"] = without_note(chat["metadata"], name.epoch)
        return orjson.dumps(chat) if epochs_in(chat["metadata"]) else b""

    try:
        await chats.forget(context.identity, name.chat_id, rest_of)
    except ChatState:
        raise ChatState("A response that went on from this one is not over yet") from None
    except ChatNotFound:
        raise not_found() from None
