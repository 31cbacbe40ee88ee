"""A chat's frames as ``chat.completion.chunk`` objects, for one reader."""

import re
from typing import Any, Final

import orjson

from app.doors.openai.dialog import OUR_CALL
from app.doors.openai.errors import openai_error
from app.doors.openai.folding import KINDS, AnswerFold, TextByKind, has_begun
from app.doors.openai.forms import Form, reading
from app.exceptions import ChatState, ServiceError, ShuttingDown
from app.models import Cursor
from app.tasks.frames import error_of
from app.tasks.reader import Batch, Ending
from app.utils import created_ms

ID_PREFIX: Final = "chatcmpl-"
_DONE: Final = b"data: [DONE]\n\n"
_NOT_BEGUN: Final = frozenset({"COZE_RATE_LIMITED"})
"""Codes that say so by themselves: HTTP 429, for which Coze has none."""
_KIND: Final = re.compile(r"[a-z][a-z_]{0,31}")

_LEAVING: Final = (
    "This process is shutting down; the same call with the same Idempotency-Key gets the whole answer"
)


def answer_id(chat_id: str, epoch: int) -> str:
    """Of one answer of a chat: clients put an answer in the place of another with the same id.

    ``epoch``: in which the chat goes on with tool outputs; 0 for its first answer.
    """
    return f"{chat_id}-{epoch}" if epoch else chat_id


def unfinished(error: ServiceError, *, repeatable: bool) -> ServiceError:
    """``error`` ends a call, while its chat goes on without it."""
    error.details["begun"] = not repeatable
    return error


def created_of(chat_id: str) -> int:
    """Unix seconds; the id holds the time."""
    return created_ms(chat_id) // 1000


def usage_of(chat: dict[str, Any]) -> dict[str, int] | None:
    """As Coze counted; None where it has told nothing."""
    usage = chat.get("usage")
    if not usage:
        return None
    return {
        "prompt_tokens": usage["input_count"],
        "completion_tokens": usage["output_count"],
        "total_tokens": usage["token_count"],
    }


def call_id(chat_id: str, coze_id: str) -> str:
    """What a client gives back with the output: it leads to the chat that asks for it."""
    return f"{chat_id}:{coze_id}"


def tool_calls_of(chat: dict[str, Any]) -> list[dict[str, Any]]:
    """The functions that the bot asks for. None at all where it asks for anything else, too: outputs are only
    taken for all calls at once, and a client that kept a call without a name could not go on."""
    calls = [_function_of(chat["chat_id"], call) for call in _asked_calls(chat)]
    return [call for call in calls if call is not None] if None not in calls else []


def _asked_calls(chat: dict[str, Any]) -> list[Any]:
    action = chat.get("required_action")
    submit = action.get("submit_tool_outputs") if isinstance(action, dict) else None
    calls = submit.get("tool_calls") if isinstance(submit, dict) else None
    return calls if isinstance(calls, list) else []


def _function_of(chat_id: str, call: Any) -> dict[str, Any] | None:
    """None for what is no named function, or has no id by which it could be answered."""
    call = call if isinstance(call, dict) else {}
    function, coze_id = call.get("function"), call.get("id")
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(function, dict) or not isinstance(name, str) or not name.strip() or not coze_id:
        return None
    arguments = function.get("arguments")
    if not isinstance(arguments, str):
        arguments = orjson.dumps(arguments or {}).decode()
    return {
        "id": call_id(chat_id, str(coze_id)),
        "type": "function",
        "function": {"name": name.strip(), "arguments": arguments if arguments.strip() else "{}"},
    }


def answer_of(chat: dict[str, Any], text: str, form: Form | None, name: str) -> dict[str, Any]:
    """``content``, ``refusal`` and calls of the message that answers, each where there is one.

    ``text``: what the bot has said; ``name``: see ``answer_id``.
    """
    if chat["status"] == "requires_action":
        return {"content": text, "tool_calls": tool_calls_of(chat)}
    if form is None:
        return {"content": text}
    content, refusal, call = form.read(text)
    if call is None:
        return {"content": content, "refusal": refusal}
    if form.kind == "function_call":
        return {"content": None, "function_call": call}
    return {"content": None, "tool_calls": [{"id": OUR_CALL + name, "type": "function", "function": call}]}


def reason_of(answer: dict[str, Any]) -> str:
    """``finish_reason``."""
    return next((kind for kind in ("tool_calls", "function_call") if answer.get(kind)), "stop")


def refusal_of(chat: dict[str, Any]) -> ServiceError | None:
    """Why there is no whole answer; None where there is one, or tools are asked for."""
    status = chat["status"]
    if status == "failed":
        return _failure_of(chat)
    if status == "cancelled":
        return _state(chat, "The chat was cancelled", "chat_cancelled")
    if status == "requires_action" and not tool_calls_of(chat):
        others = [call for call in _asked_calls(chat) if _function_of(chat["chat_id"], call) is None]
        kinds = [call.get("type") for call in others if isinstance(call, dict)]
        known = sorted({kind for kind in kinds if isinstance(kind, str) and _KIND.fullmatch(kind)})
        text = (
            f"The bot waits for something that is no named function ({', '.join(known) or 'unknown'}); "
            "OpenAI's clients cannot answer that. Use functions alone in the bot, or this service's own API"
        )
        return _state(chat, text, "unsupported_action")
    return None


def _state(chat: dict[str, Any], message: str, code: str) -> ServiceError:
    return ChatState(message, details={"chat_id": chat["chat_id"], "openai_code": code, "begun": True})


def _failure_of(chat: dict[str, Any]) -> ServiceError:
    """Only what Coze refused with a code of its own, before it made the chat, is known not to have begun."""
    error = error_of(chat)
    made = (chat.get("metadata") or {}).get("coze_chat_id") or any(chat.get(kind) for kind in KINDS)
    refused = error.details.get("coze_code") is not None or error.code in _NOT_BEGUN
    error.details["begun"] = bool(made) or not refused
    return error


class ChunkStream:
    """A ``Dialect``.

    ``finished``: the stream has been ended by us, so nobody hung up.

    Args:
        model: as the client called it.
        include_usage: whether the last chunk tells the usage.
        before: what an earlier answer of this chat, which asked for tools, has said.
        epoch: see ``answer_id``.
        form: in which the answer is asked for; then its text is told at the end, when it is whole.
        repeatable: the same call leads to this chat again, so nobody pays for it twice.
    """

    def __init__(
        self,
        chat_id: str,
        model: str,
        *,
        include_usage: bool,
        before: TextByKind | None = None,
        epoch: int = 0,
        form: Form | None = None,
        repeatable: bool = False,
    ) -> None:
        head = {
            "id": ID_PREFIX + answer_id(chat_id, epoch),
            "object": "chat.completion.chunk",
            "created": created_of(chat_id),
            "model": model,
            "system_fingerprint": None,
        }
        self._head = b"data: " + orjson.dumps(head)[:-1] + b',"choices":'
        self._tail = b',"usage":null}\n\n' if include_usage else b"}\n\n"
        self._include_usage = include_usage
        self._answer = AnswerFold(before, content=form is None)
        self._epoch = epoch
        self._form = form
        self._repeatable = repeatable
        self.finished = False

    @property
    def opening(self) -> bytes:
        return self._chunk({"role": "assistant", "content": ""})

    @property
    def heartbeat(self) -> bytes:
        """A chunk that says nothing. Comments are not for these clients: some take each blank line for the
        end of an event with data, others drop the chunk before which a comment stands."""
        return self._chunk({})

    def batch(self, batch: Batch) -> bytes:
        """What arrived together is sent in as few chunks as its kinds allow; where it is the bot's and holds
        no text, one that says nothing: the answer has begun. Raises ``ServiceError``."""
        news = b""
        for kind, text in self._answer.news_of(batch.frames):
            news += self._chunk({kind: text})
        return news or (self.heartbeat if has_begun(batch.frames) else b"")

    async def ending(self, ending: Ending, last: Cursor) -> bytes:
        """Raises ``ServiceError`` where the answer is not whole."""
        chat = orjson.loads(ending.record)
        if (refusal := refusal_of(chat)) is not None:
            raise refusal
        rest = self._answer.rest_of(chat)
        name = answer_id(chat["chat_id"], self._epoch)
        answer = await reading(self._form, answer_of, chat, rest["content"], self._form, name)
        for n, call in enumerate(answer.get("tool_calls") or ()):
            call["index"] = n
        chunks = (
            [self._chunk({"reasoning_content": rest["reasoning_content"]})]
            if rest["reasoning_content"]
            else []
        )
        chunks += [self._chunk({name: value}) for name, value in answer.items() if value]
        chunks.append(self._chunk({}, reason_of(answer)))
        if self._include_usage:
            chunks.append(self._head + b'[],"usage":' + orjson.dumps(usage_of(chat)) + b"}\n\n")
        self.finished = True
        return b"".join([*chunks, _DONE])

    def error(self, error: ServiceError, request_id: str) -> bytes:
        """OpenAI's SDKs raise at it. No ``[DONE]`` follows: some clients take that for a success."""
        self.finished = True
        return b"data: %s\n\n" % orjson.dumps(openai_error(error))

    def reconnect(self) -> bytes:
        """Raises ``ShuttingDown``."""
        raise unfinished(ShuttingDown(_LEAVING), repeatable=self._repeatable)

    def _chunk(self, delta: dict[str, Any], reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return b"%b[%b]%b" % (self._head, orjson.dumps(choice), self._tail)
