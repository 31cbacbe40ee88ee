"""A chat's log as the typed events of the Responses API, for one reader.

In background the events are numbered by what was said alone: a text is told in pieces whose bounds follow
from its length, not from how it arrived. So each replica tells the same events under the same numbers,
however the log was batched, taken over, replaced by a snapshot or packed, and ``starting_after`` finds its
place. Elsewhere nobody comes back, and a text is told as it comes.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

import orjson

from app.doors.openai.chunks import refusal_of, unfinished
from app.doors.openai.errors import openai_error
from app.doors.openai.folding import AnswerFold, has_begun
from app.doors.openai.responses.objects import (
    OutputItem,
    Response,
    form_in,
    message_item,
    message_part,
    reasoning_item,
    status_of,
)
from app.doors.openai.schema_work import Work
from app.exceptions import ServiceError, ShuttingDown
from app.models import Cursor
from app.tasks.reader import Batch, Ending

_HEARTBEAT: Final = b": keep-alive\n"
"""A comment directly before the next event: behind a blank line some parsers take it for an event."""
_PIECES: Final = ((2_000, 4), (10_000, 16))
"""Up to so many characters, in pieces of so many: short ones at first, since the last of them waits until it
is whole; of a long text larger ones."""
_LONG_PIECE: Final = 64
_TERMINAL: Final = {"completed": "response.completed", "cancelled": "response.incomplete"}
_LEAVING: Final = "This process is shutting down; {how}"


def _bound_after(place: int) -> int:
    """Where the piece ends that begins at ``place``."""
    size = next((size for up_to, size in _PIECES if place < up_to), _LONG_PIECE)
    return (place // size + 1) * size


class _Item:
    """An item of the output that is being told. ``names``: what its events say beside their number."""

    def __init__(self, kind: str, index: int, names: dict[str, Any]) -> None:
        self.kind = kind
        self.index = index
        self.names = names
        self.told: list[str] = []
        self.place = 0
        """How many characters were told."""
        self.waiting = ""
        self.is_open = True

    def pieces(self, text: str, *, live: bool, whole: bool) -> Iterator[str]:
        """What is to be told now; ``whole``: no more will come."""
        text, begin = self.waiting + text, 0
        while not live and len(text) - begin >= (size := _bound_after(self.place) - self.place):
            yield self._tell(text[begin : begin + size])
            begin += size
        self.waiting = text[begin:]
        if self.waiting and (live or whole):
            rest, self.waiting = self.waiting, ""
            yield self._tell(rest)

    def _tell(self, piece: str) -> str:
        self.place += len(piece)
        self.told.append(piece)
        return piece


class ResponseEvents:
    """A ``Dialect``.

    ``finished``: the stream has been ended by us, so nobody hung up.

    Args:
        chat: the response's chat as it was read, for what it had said before.
        work: what the request has left for checks of answers.
        live: as it comes; else in pieces that follow from the text alone.
        after: the number of the event behind which to begin.
        repeatable: the same call leads to this chat again, so nobody pays for it twice.
    """

    def __init__(
        self,
        response: Response,
        chat: dict[str, Any],
        work: Work,
        *,
        live: bool,
        after: int = -1,
        repeatable: bool = False,
    ) -> None:
        self._packed = response.packed()
        self._work = work
        self._live = live
        self._after = after
        self._repeatable = repeatable
        self._next = 0
        self._items: dict[str, _Item] = {}
        self._whole_only = form_in(response.note, work) is not None
        """The text is told when it is whole."""
        self._fold = AnswerFold(response.before(chat), content=not self._whole_only)
        self._failed: dict[str, Any] | None = None
        self.finished = False
        self.opening = self._opening() or _HEARTBEAT

    @property
    def _response(self) -> Response:
        """Asked for a few times in an answer."""
        return self._packed.unpacked()

    @property
    def heartbeat(self) -> bytes:
        return _HEARTBEAT

    def batch(self, batch: Batch) -> bytes:
        """Raises ``ServiceError``."""
        news = b"".join(self._text(kind, text) for kind, text in self._fold.news_of(batch.frames))
        # The bot has begun, which is enough for the stream's status.
        return news or (_HEARTBEAT if self._live and has_begun(batch.frames) else b"")

    async def ending(self, ending: Ending, last: Cursor) -> bytes:
        """Raises ``ServiceError`` where the answer is not whole, and the stream may still be refused."""
        chat = orjson.loads(ending.record)
        if (refusal := refusal_of(chat)) is not None:
            if self._live:
                self._failed = chat
                raise refusal
            return self._failure(chat)
        rest = self._fold.rest_of(chat)
        news = self._text("reasoning_content", rest["reasoning_content"])
        if not self._whole_only:
            news += self._text("content", rest["content"])
        output = await self._response.output(chat, self._work)
        return news + self._whole(output, lambda told: self._response.ended(chat, told))

    def replay(self, output: list[OutputItem], seen: dict[str, Any]) -> bytes:
        """All of a response whose chat has gone on, in one piece. ``seen``: its object."""
        opening = self.opening if self.opening is not _HEARTBEAT else b""
        news = b""
        for item in output:
            if item["type"] == "reasoning":
                news += self._text("reasoning_content", item["summary"][0]["text"])
            elif item["type"] == "message" and not self._whole_only:
                news += self._text("content", item["content"][0].get("text", ""))
        return opening + news + self._whole(output, lambda told: seen | {"output": told})

    def error(self, error: ServiceError, request_id: str) -> bytes:
        """It has the number of the last event, so that who comes back with that misses nothing."""
        self.finished = True
        if self._failed is not None:
            return self._failure(self._failed)
        told = openai_error(error)["error"]
        names = ("code", "message", "param")
        number = max(self._next - 1, self._after, 0)
        body = {"type": "error", **{name: told[name] for name in names}, "sequence_number": number}
        return b"event: error\ndata: %b\n\n" % orjson.dumps(body)

    def reconnect(self) -> bytes:
        """Raises ``ShuttingDown``."""
        how = "the same call with the same Idempotency-Key gets the whole answer"
        if not self._live:
            how = f"come back with starting_after={max(self._next - 1, self._after)}"
        raise unfinished(ShuttingDown(_LEAVING.format(how=how)), repeatable=self._repeatable)

    # -- events --------------------------------------------------------------------------------------------

    def _event(self, kind: str, **fields: Any) -> bytes:
        number, self._next = self._next, self._next + 1
        if number <= self._after:
            return b""
        body = {"type": kind, "sequence_number": number, **fields}
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps(body))

    def _opening(self) -> bytes:
        steps = [("created", "queued"), ("queued", "queued"), ("in_progress", "in_progress")]
        if self._live:
            steps = [("created", "in_progress"), ("in_progress", "in_progress")]
        return b"".join(
            self._event(f"response.{step}", response=self._response.object(status)) for step, status in steps
        )

    def _text(self, kind: str, text: str, *, whole: bool = False) -> bytes:
        """Thoughts that come behind words are left to the end: where they would have stood is past."""
        if not text and not whole:
            return b""
        news = b""
        item = self._items.get(kind)
        if kind == "content":
            news = self._close_reasoning()
        elif item is None and "content" in self._items:
            return b""
        if item is None:
            item, opening = self._open(kind)
            news += opening
        if not item.is_open:
            return news
        delta = "response.output_text.delta" if kind == "content" else "response.reasoning_summary_text.delta"
        more: dict[str, Any] = {"logprobs": []} if kind == "content" else {}
        pieces = item.pieces(text, live=self._live, whole=whole)
        return news + b"".join(self._event(delta, **item.names, delta=piece, **more) for piece in pieces)

    def _open(self, kind: str, part: OutputItem | None = None) -> tuple[_Item, bytes]:
        name, index = self._response.name, len(self._items)
        if kind == "content":
            names: dict[str, Any] = {"item_id": name.message_id, "output_index": index, "content_index": 0}
            shown, added = message_item(name, None, "in_progress"), "response.content_part.added"
            part = part or message_part("", None)
        else:
            names = {"item_id": name.reasoning_id, "output_index": index, "summary_index": 0}
            shown, added = reasoning_item(name, ""), "response.reasoning_summary_part.added"
            part = {"type": "summary_text", "text": ""}
        item = self._items[kind] = _Item(kind, index, names)
        opening = self._event("response.output_item.added", output_index=index, item=shown)
        return item, opening + self._event(added, **names, part=part)

    def _close_reasoning(self) -> bytes:
        item = self._items.get("reasoning_content")
        if item is None or not item.is_open:
            return b""
        news = self._text("reasoning_content", "", whole=True)
        item.is_open = False
        text = "".join(item.told)
        part = {"type": "summary_text", "text": text}
        shown = reasoning_item(self._response.name, text)
        return news + b"".join(
            (
                self._event("response.reasoning_summary_text.done", **item.names, text=text),
                self._event("response.reasoning_summary_part.done", **item.names, part=part),
                self._event("response.output_item.done", output_index=item.index, item=shown),
            )
        )

    def _whole(self, output: list[OutputItem], seen: Callable[[list[OutputItem]], dict[str, Any]]) -> bytes:
        """What is missing of the items, and the terminal event. ``seen``: the response object by its items in
        the order in which they were told."""
        self.finished = True
        news, order = self._close_reasoning(), dict[str, int]()
        for item in output:
            if item["type"] == "reasoning":
                news += self._reasoning_at_the_end(item)
                order[item["id"]] = self._items["reasoning_content"].index
            elif item["type"] == "message":
                news += self._message(item)
                order[item["id"]] = self._items["content"].index
            else:
                order[item["id"]] = len(self._items)
                news += self._call(item)
        told = sorted(output, key=lambda item: order[item["id"]])
        response = seen(told)
        return news + self._event(_TERMINAL.get(response["status"], "response.failed"), response=response)

    def _reasoning_at_the_end(self, item: OutputItem) -> bytes:
        if "reasoning_content" in self._items:
            return b""
        opened, news = self._open("reasoning_content")
        pieces = opened.pieces(item["summary"][0]["text"], live=self._live, whole=True)
        delta = "response.reasoning_summary_text.delta"
        news += b"".join(self._event(delta, **opened.names, delta=piece) for piece in pieces)
        return news + self._close_reasoning()

    def _message(self, item: OutputItem) -> bytes:
        """The rest of it; a text that was held back until it was whole, and a refusal, are all of it."""
        part, names = item["content"][0], None
        if part["type"] == "refusal":
            opened, news = self._open("content", part | {"refusal": ""})
            names, refusal = opened.names, part["refusal"]
            news += self._event("response.refusal.delta", **names, delta=refusal)
            news += self._event("response.refusal.done", **names, refusal=refusal)
        else:
            held = part["text"] if self._whole_only else ""
            news = self._text("content", held, whole=True)
            names = self._items["content"].names
            news += self._event("response.output_text.done", **names, text=part["text"], logprobs=[])
        index = names["output_index"]
        news += self._event("response.content_part.done", **names, part=part)
        return news + self._event("response.output_item.done", output_index=index, item=item)

    def _call(self, item: OutputItem) -> bytes:
        index = len(self._items)
        names = {"item_id": item["id"], "output_index": index}
        self._items[item["id"]] = _Item("function_call", index, names)
        arguments, begun = item["arguments"], item | {"status": "in_progress", "arguments": ""}
        return b"".join(
            (
                self._event("response.output_item.added", output_index=index, item=begun),
                self._event("response.function_call_arguments.delta", **names, delta=arguments),
                self._event(
                    "response.function_call_arguments.done", **names, name=item["name"], arguments=arguments
                ),
                self._event("response.output_item.done", output_index=index, item=item),
            )
        )

    def _failure(self, chat: dict[str, Any]) -> bytes:
        """Its last event; what was said of it stays in the object."""
        self.finished = True
        output = self._response.output_of_a_part(chat)
        response = self._response.ended(chat, output)
        return self._event(_TERMINAL.get(status_of(chat), "response.failed"), response=response)
