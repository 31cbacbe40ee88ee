"""The life of one chat: what the bot does, in which order, at which pace, and what goes wrong on request."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Sequence

from coze_simulator.answers import Answer, compose, count_tokens, split_deltas, split_tokens
from coze_simulator.errors import message_of
from coze_simulator.options import THINKING_TIME, TYPING_GAP, SimulatorOptions
from coze_simulator.state import Chat, Message, Store, Usage
from coze_simulator.wire import Dialect

_YIELD_EVERY = 16  # deltas between two yields to the loop when there are no pauses
_FINISH = {"finish_reason": 0, "FinData": ""}


class _TurnFailed(Exception):
    """The chat is to fail here; ``as_error`` by an error event rather than by chat.failed."""

    def __init__(self, code: int, *, as_error: bool) -> None:
        self.code = code
        self.as_error = as_error
        super().__init__(str(code))


class Turn:
    """Runs one chat from created (or from its tool outputs) to its end. One instance per run."""

    def __init__(self, store: Store, dialect: Dialect, options: SimulatorOptions, chat: Chat) -> None:
        self._store = store
        self._dialect = dialect
        self._options = options
        self._chat = chat
        self._knobs = chat.knobs
        self._deltas = 0
        gap = chat.knobs.gap
        self._gap = options.pace(TYPING_GAP) if gap is None else gap

    async def run(self, *, resumed: bool = False) -> None:
        """To the end, whatever it is. ``resumed``: tool outputs have come, events start at in_progress."""
        chat = self._chat
        try:
            if not resumed:
                self._emit_chat("created")
            if chat.status == "created":
                chat.status = "in_progress"
            self._emit_chat("in_progress")
            await self._think()
            if chat.rounds_left > 0:
                self._require_action()
            else:
                await self._answer()
                self._complete()
        except _TurnFailed as failure:
            self._fail(failure)
        finally:
            if chat.outbox is not None:
                chat.outbox.finish()

    # -- the course of things

    async def _think(self) -> None:
        if self._knobs.last_error is not None:
            raise _TurnFailed(self._knobs.last_error, as_error=False)
        delay = self._knobs.delay
        await asyncio.sleep(self._options.pace(THINKING_TIME) if delay is None else delay)

    def _require_action(self) -> None:
        chat, kind = self._chat, self._knobs.requires_action or "function"
        calls = []
        for number in range(1, self._knobs.tool_calls + 1):
            if kind == "reply_message":
                function = {
                    "name": "reply_message",
                    "arguments": json.dumps({"question": "你想查询哪个城市？"}),
                }
            else:
                arguments = json.dumps({"question": chat.question, "number": number}, ensure_ascii=False)
                name = self._knobs.tool_name
                function = {"name": name if number == 1 else f"{name}{number}", "arguments": arguments}
            opaque = base64.b64encode(f"{chat.id}:{chat.rounds_left}:{number}".encode()).decode()
            calls.append({"id": opaque, "type": kind, "function": function})
        chat.required_action = {"type": "submit_tool_outputs", "submit_tool_outputs": {"tool_calls": calls}}
        chat.rounds_left -= 1
        if chat.status != "canceled":
            chat.status = "requires_action"
        self._emit_chat("requires_action")
        self._emit_done()

    async def _answer(self) -> None:
        knobs = self._knobs
        answer = self._compose()
        if knobs.plugin:
            self._plugin()
        if knobs.verbose == "knowledge":
            chunks = json.dumps({"chunks": [{"slice": "simulated knowledge", "score": 0.9}]})
            self._verbose("knowledge_recall", chunks)
        await self._check_faults()
        for number in range(1, max(1, knobs.multi) + 1):
            if knobs.card or knobs.object_string:
                self._whole_answer(answer)
            else:
                text = answer.content if knobs.multi <= 1 else f"({number}/{knobs.multi}) {answer.content}"
                await self._typed_answer(text, answer.reasoning if number == 1 and knobs.reasoning else "")
        if knobs.verbose != "none":
            self._verbose("generate_answer_finish", json.dumps(_FINISH, separators=(",", ":")))
        for question in self._follow_ups(answer):
            self._completed(self._message("follow_up", question))

    def _compose(self) -> Answer:
        chat, knobs = self._chat, self._knobs
        answer = compose(chat.question, chat.history, seed=self._options.seed, tool_outputs=chat.tool_outputs)
        if knobs.text is not None:
            answer = Answer(answer.reasoning, knobs.text, answer.follow_ups)
        return answer

    def _follow_ups(self, answer: Answer) -> list[str]:
        return [answer.follow_ups[number % 3] for number in range(self._knobs.followups)]

    async def _typed_answer(self, text: str, reasoning: str) -> None:
        """One answer as the model types it; its completed event carries the whole text."""
        message = self._message("answer", "")
        message.reasoning_content = reasoning
        for number, piece in enumerate(split_tokens(reasoning)):
            self._emit_delta(message, "", piece)
            await self._pause(number)
        if self._knobs.huge is not None:
            huge = "汉" * max(1, self._knobs.huge // 3)
            self._emit_delta(message, huge)
            message.content = huge
        pieces = split_deltas(text, self._knobs.deltas)
        for number, piece in enumerate(pieces):
            message.content += piece
            self._emit_delta(message, piece)
            self._deltas += 1
            await self._check_faults()
            await self._pause(number)
        if self._knobs.completed_text is not None:
            message.content = self._knobs.completed_text
        self._completed(message)

    def _whole_answer(self, answer: Answer) -> None:
        """A card or an object_string: completed without deltas."""
        if self._knobs.card:
            card = {"card_type": 3, "template_url": "https://example.com/card", "title": answer.content}
            message = self._message("answer", json.dumps(card, ensure_ascii=False))
            message.content_type = "card"
        else:
            items: Sequence[dict[str, str]] = (
                {"type": "text", "text": answer.content},
                {"type": "image", "file_url": "https://example.com/image.png"},
            )
            message = self._message("answer", json.dumps(items, ensure_ascii=False))
            message.content_type = "object_string"
        self._completed(message)

    def _plugin(self) -> None:
        call = {
            "name": "weather-query",
            "arguments": {"q": self._chat.question},
            "plugin_id": 7380000000000000101,
            "api_id": 7380000000000000102,
            "plugin_name": "weather",
            "plugin_type": 1,
            "thought": "",
        }
        self._completed(self._message("function_call", json.dumps(call, ensure_ascii=False)))
        self._completed(self._message("tool_response", json.dumps({"result": "sunny", "degrees": 21})))

    def _complete(self) -> None:
        chat = self._chat
        self._set_usage()
        if chat.status != "canceled":
            # Settled before the event leaves, so that the reader's next message is not refused as busy.
            chat.status = "completed"
            chat.completed_at = int(time.time())
            chat.ended = time.monotonic()
        if self._knobs.no_terminal:
            return
        # A cancel does not change the stream: it is sent in full.
        self._emit_chat("completed")
        if self._knobs.audio:
            audio = self._message("answer", base64.b64encode(b"\x00\x01" * 240).decode())
            audio.content_type = "audio"
            self._emit("conversation.audio.delta", self._dialect.delta(audio, audio.content))
        self._emit_done()

    def _set_usage(self) -> None:
        chat = self._chat
        said = sum(
            count_tokens(item.content) + count_tokens(item.reasoning_content) for item in chat.messages
        )
        chat.usage = Usage(input_count=chat.prompt_tokens, output_count=said)

    def _fail(self, failure: _TurnFailed) -> None:
        chat = self._chat
        if chat.status != "canceled":
            end_failed(self._store, chat, failure.code)
        if failure.as_error:
            name, text = self._knobs.error_shape, message_of(failure.code)
            self._emit("error", {} if name == "empty" else {name: failure.code, "msg": text})
            if self._dialect.completes_after_error:
                self._emit_chat("completed")
                self._emit_done()
                return
        else:
            self._emit_failed(failure.code)
        if self._knobs.done_after_error:
            self._emit_done()

    def _emit_failed(self, code: int) -> None:
        shape = self._knobs.fail_shape
        if shape == "chat":
            self._emit_chat("failed")
        else:
            bare: int | str = str(code) if shape == "string" else code
            self._emit("conversation.chat.failed", {"code": bare, "msg": message_of(code)})

    async def _check_faults(self) -> None:
        """The faults that are due after this many content deltas."""
        knobs = self._knobs
        if knobs.stall is not None and knobs.stall.after == self._deltas:
            await asyncio.sleep(knobs.stall.seconds)
        if knobs.fail_at is not None and self._deltas >= knobs.fail_at:
            raise _TurnFailed(knobs.fail_code, as_error=False)
        if knobs.error_at is not None and self._deltas >= knobs.error_at:
            code = knobs.error_code or self._dialect.mid_stream_error_code
            raise _TurnFailed(code, as_error=True)

    async def _pause(self, number: int) -> None:
        if self._gap > 0:
            await asyncio.sleep(self._gap)
        elif number % _YIELD_EVERY == _YIELD_EVERY - 1:
            await asyncio.sleep(0)

    # -- events

    def _message(self, kind: str, content: str) -> Message:
        chat = self._chat
        return Message(
            id=self._store.ids.next(),
            conversation_id=chat.conversation_id,
            section_id=chat.section_id,
            role="assistant",
            type=kind,
            content=content,
            bot_id=chat.bot_id,
            chat_id=chat.id,
            created_at=int(time.time()),
        )

    def _verbose(self, kind: str, data: str) -> None:
        content = {"msg_type": kind, "data": data, "from_module": None, "from_unit": None}
        text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
        self._completed(self._message("verbose", text))

    def _completed(self, message: Message) -> None:
        self._store.add_message(self._chat, message)
        self._emit("conversation.message.completed", self._dialect.message(message))
        if message.type == "answer" and self._knobs.stored_text is not None:
            message.content = self._knobs.stored_text

    def _emit_delta(self, message: Message, content: str, reasoning: str | None = None) -> None:
        if self._chat.outbox is not None:
            self._emit("conversation.message.delta", self._dialect.delta(message, content, reasoning))

    def _emit_chat(self, status: str) -> None:
        if self._chat.outbox is not None:
            self._emit(
                f"conversation.chat.{status}", self._dialect.chat(self._chat, status=status, event=True)
            )

    def _emit_done(self) -> None:
        if self._chat.outbox is not None and not self._knobs.no_done:
            self._chat.outbox.put(self._dialect.done())

    def _emit(self, event: str, data: object) -> None:
        outbox = self._chat.outbox
        if outbox is not None and not outbox.gone:
            outbox.put(self._dialect.frame(event, data))


def end_failed(store: Store, chat: Chat, code: int) -> None:
    """Marks ``chat`` as failed with ``code``; its turn leaves the context."""
    chat.status = "failed"
    chat.last_error = (code, message_of(code))
    chat.failed_at = int(time.time())
    chat.ended = time.monotonic()
    store.leave_context(chat)
