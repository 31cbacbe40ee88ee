"""A response as clients see it, from its chat's record and its note alone: the same on every replica."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec

from app.doors.openai.bodies import ChatCompletionRequest
from app.doors.openai.chunks import answer_of, created_of, refusal_of, usage_of
from app.doors.openai.errors import openai_error
from app.doors.openai.folding import KINDS, TextByKind, content_type_of, said_since
from app.doors.openai.forms import Form, form_of, reading
from app.doors.openai.responses.items import as_chat_request
from app.doors.openai.responses.names import Name, conversation_id
from app.doors.openai.responses.notes import Done, Note, note_in, packed, unpacked
from app.doors.openai.schema_work import Work
from app.doors.openai.texts import notice_of

OutputItem = dict[str, Any]
_STATUSES: Final = {
    "pending": "queued",
    "processing": "in_progress",
    "completed": "completed",
    "requires_action": "completed",
    "cancelled": "cancelled",
    "failed": "failed",
}
_PROMPT_CODES: Final = frozenset({"context_length_exceeded", "content_policy_violation"})
ENDED: Final = frozenset({"completed", "failed", "cancelled"})


def status_of(chat: dict[str, Any]) -> str:
    """Of the response that a chat's newest answer is."""
    if chat["status"] == "requires_action" and refusal_of(chat) is not None:
        return "failed"  # it waits for what these clients cannot give
    return _STATUSES[chat["status"]]


def request_in(note: Note) -> ChatCompletionRequest:
    """For chat completions, that demands the same form. Raises ``ValidationFailed``."""
    return as_chat_request(note.model, note.text, note.tool_choice, note.tools)


def form_in(note: Note, work: Work) -> Form | None:
    """In which the answer was asked for. ``work``: what the request has left that asks for it now."""
    return form_of(request_in(note), work)


@dataclass(frozen=True, slots=True)
class PackedResponse:
    """A ``Response`` that is kept while its chat runs."""

    name: Name
    note: bytes
    session_id: str

    def unpacked(self) -> "Response":
        return Response(self.name, unpacked(self.note), self.session_id)


@dataclass(frozen=True, slots=True)
class Response:
    """One response: its name and its note, and the session that its chat is in."""

    name: Name
    note: Note
    session_id: str

    @classmethod
    def in_chat(cls, name: Name, chat: dict[str, Any]) -> "Response | None":
        """None where it was never asked for, or has been deleted."""
        note = note_in(chat["metadata"], name.epoch)
        return cls(name, note, chat["session_id"]) if note is not None else None

    def packed(self) -> PackedResponse:
        return PackedResponse(self.name, packed(self.note), self.session_id)

    def before(self, chat: dict[str, Any]) -> TextByKind | None:
        """What the chat had said before this response."""
        if not self.name.epoch:
            return None
        lengths = dict(zip(("content", "reasoning_content"), self.note.said, strict=True))
        return {kind: chat[kind][: lengths[kind]] for kind in KINDS}

    async def seen(self, chat: dict[str, Any], work: Work) -> dict[str, Any]:
        """The response object. ``work``: see ``form_in``."""
        if self.note.done is not None:
            return self.object("completed", **msgspec.structs.asdict(self.note.done))
        status = status_of(chat)
        output = await self.output(chat, work) if status in ENDED else []
        return self.ended(chat, output) if status in ENDED else self.object(status)

    def ended(self, chat: dict[str, Any], output: list[OutputItem]) -> dict[str, Any]:
        """Of a chat that is over or asks for tools, with ``output`` in the order in which it was told."""
        status = status_of(chat)
        error = _failure_of(chat) if status == "failed" else None
        return self.object(
            status,
            output=output,
            usage=response_usage(chat),
            error=error,
            completed_at=_end_of(chat) if status == "completed" else None,
        )

    def done(self, chat: dict[str, Any]) -> Done:
        """What it has told, before its chat goes on: all that was said, in no form."""
        return Done(self.output_of_a_part(chat), response_usage(chat), _end_of(chat))

    async def output(self, chat: dict[str, Any], work: Work) -> list[OutputItem]:
        """Items of what a chat has said that is over, or asks for tools. ``work``: see ``form_in``."""
        form = form_in(self.note, work)
        return await reading(form if _is_whole(chat) else None, self._output, chat, form)

    def output_of_a_part(self, chat: dict[str, Any]) -> list[OutputItem]:
        """As ``output``, of a chat that failed, was cancelled or asks for tools: nothing of it is checked."""
        return self._output(chat, form_in(self.note, Work()))

    def _output(self, chat: dict[str, Any], form: Form | None) -> list[OutputItem]:
        before, name, whole = self.before(chat), self.name, _is_whole(chat)
        said = {kind: said_since(chat, kind, before) for kind in KINDS}
        text = said["content"]
        if text and form is None:
            text = notice_of(content_type_of(chat)) + text
        answer = answer_of(chat, text, form if whole else None, name.answer_id)
        calls = answer.get("tool_calls") or []
        items = []
        if said["reasoning_content"]:
            items.append(reasoning_item(name, said["reasoning_content"]))
        if answer.get("content") or answer.get("refusal") or (whole and not calls):
            part = message_part(answer.get("content") or "", answer.get("refusal"))
            items.append(message_item(name, part, "completed" if whole else "incomplete"))
        return items + [call_item(name, number, call) for number, call in enumerate(calls)]

    def object(
        self,
        status: str,
        *,
        output: list[OutputItem] | None = None,
        usage: dict[str, Any] | None = None,
        error: dict[str, str] | None = None,
        completed_at: int | None = None,
    ) -> dict[str, Any]:
        note = self.note
        return {
            "id": self.name.response_id,
            "object": "response",
            "created_at": created_of(self.name.chat_id),
            "completed_at": completed_at,
            "status": status,
            "background": note.background,
            "conversation": {"id": conversation_id(self.session_id)} if note.store else None,
            "error": error,
            "incomplete_details": None,
            "instructions": note.instructions,
            "max_output_tokens": None,
            "max_tool_calls": None,
            "metadata": note.metadata,
            "model": note.model,
            "output": output or [],
            "parallel_tool_calls": True,
            "previous_response_id": note.previous,
            "reasoning": {"effort": None, "summary": None},
            "service_tier": "default",
            "store": note.store,
            "temperature": None,
            "text": {"format": {"type": "text"}, **(note.text or {})},
            "tool_choice": note.tool_choice or "auto",
            "tools": note.tools,
            "top_logprobs": 0,
            "top_p": None,
            "truncation": "disabled",
            "usage": usage,
            "user": note.user,
        }


def _is_whole(chat: dict[str, Any]) -> bool:
    return status_of(chat) == "completed"


def _end_of(chat: dict[str, Any]) -> int:
    """Unix seconds."""
    return int(datetime.fromisoformat(chat["completed_at"] or chat["updated_at"]).timestamp())


def _failure_of(chat: dict[str, Any]) -> dict[str, str] | None:
    refusal = refusal_of(chat)
    if refusal is None:
        return None
    told = openai_error(refusal)["error"]
    code = "server_error"
    if told["code"] in _PROMPT_CODES:
        code = "invalid_prompt"
    elif told["code"] in ("rate_limit_exceeded", "insufficient_quota"):
        code = "rate_limit_exceeded"
    return {"code": code, "message": told["message"]}


def response_usage(chat: dict[str, Any]) -> dict[str, Any] | None:
    usage = usage_of(chat)
    if usage is None:
        return None
    return {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": usage["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage["total_tokens"],
    }


# -- items of the output -----------------------------------------------------------------------------------


def reasoning_item(name: Name, text: str) -> OutputItem:
    """As a summary: that is what clients show."""
    summary = [{"type": "summary_text", "text": text}] if text else []
    return {"id": name.reasoning_id, "type": "reasoning", "summary": summary}


def message_part(text: str, refusal: str | None) -> OutputItem:
    if refusal is not None:
        return {"type": "refusal", "refusal": refusal}
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def message_item(name: Name, part: OutputItem | None, status: str) -> OutputItem:
    head = {"id": name.message_id, "type": "message", "status": status, "role": "assistant"}
    return {**head, "content": [part] if part is not None else []}


def call_item(name: Name, number: int, call: dict[str, Any]) -> OutputItem:
    """``call``: as chat completions have it."""
    return {
        "id": name.call_item_id(number),
        "type": "function_call",
        "status": "completed",
        "call_id": call["id"],
        "name": call["function"]["name"],
        "arguments": call["function"]["arguments"],
    }
