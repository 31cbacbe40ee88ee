"""OpenAI's messages as Coze's: what is asked, and what was said before.

Coze v3 knows no system role, so system texts stand as one message of the user's before all others. Of a
history longer than Coze takes, the newest messages go along.
"""

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from app.doors.openai.bodies import ChatCompletionRequest, DialogMessage, Part
from app.exceptions import ServiceError, ValidationFailed
from app.models import SubmitToolOutputs
from app.utils import is_chat_id

_M = TypeVar("_M", bound=BaseModel)
MAX_HISTORY: Final = 99
"""Coze takes 100 messages; the last one is the question itself."""
_SYSTEM: Final = ("system", "developer")
_TOOL: Final = ("tool", "function")
_DATA_URL: Final = re.compile(r"data:image/[a-z0-9.+-]{1,64}(?:;[a-z0-9=_-]{1,64})*;base64,", re.IGNORECASE)
_HTTPS: Final = re.compile(r"https://[^\s]+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Image:
    """Either an address or the bytes themselves."""

    url: str = ""
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of the conversation. Only the user's have ``images``."""

    role: str
    text: str
    images: list[Image] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Question:
    asked: Turn
    history: list[Turn]


def invalid(where: str, message: str) -> ServiceError:
    return ValidationFailed(details={"fields": [{"field": where, "message": message}]})


def question_of(body: ChatCompletionRequest) -> Question:
    """Raises ``ValidationFailed`` naming the message that cannot be sent."""
    last = len(body.messages) - 1
    if body.messages[last].role != "user":
        raise invalid(f"messages.{last}.role", "the last message must be the user's, or the outputs of tools")
    if body.session_id is not None:  # what was said before is in the session's conversation
        return Question(_turn_of(body.messages[last], last), [])
    system, history = [], []
    for index, message in enumerate(body.messages[:-1]):
        if message.role in _TOOL:
            continue  # the answer that they led to is in the history
        turn = _turn_of(message, index)
        if message.role in _SYSTEM:
            system.append(turn.text)
        elif turn.text.strip() or turn.images:
            history.append(turn)
    head = [Turn("user", "\n\n".join(system))] if any(text.strip() for text in system) else []
    return Question(_turn_of(body.messages[last], last), [*head, *history[len(head) - MAX_HISTORY :]])


def tool_outputs_of(messages: Sequence[DialogMessage]) -> tuple[str, SubmitToolOutputs] | None:
    """The chat that asked for the outputs at the end of ``messages``, and these; None where there are none.

    The ids of tool calls were made by ``chunks.call_id``. Raises ``ValidationFailed``.
    """
    first = len(messages)
    while first and messages[first - 1].role == "tool":
        first -= 1
    if first == len(messages):
        return None
    outputs, chat_ids = [], set()
    for index, message in enumerate(messages[first:], first):
        chat_id, colon, coze_id = (message.tool_call_id or "").partition(":")
        if not colon or not coze_id or not is_chat_id(chat_id):
            raise invalid(f"messages.{index}.tool_call_id", "is not the id of a tool call of this service")
        chat_ids.add(chat_id)
        outputs.append({"tool_call_id": coze_id, "output": _turn_of(message, index).text})
    if len(chat_ids) > 1:
        raise invalid("messages", "the outputs at the end answer tool calls of several chats")
    return chat_ids.pop(), checked(SubmitToolOutputs, {"tool_outputs": outputs}, "messages")


def checked(model: type[_M], values: dict[str, Any], where: str) -> _M:
    """``values`` as one of our own bodies; what is wrong is told under the name that the caller used."""
    try:
        return model.model_validate(values)
    except ValidationError as exc:
        faults = exc.errors(include_input=False, include_url=False, include_context=False)
        where = "metadata" if faults[0]["loc"][:1] == ("meta_data",) else where
        raise invalid(
            where, "; ".join(str(fault["msg"]).removeprefix("Value error, ") for fault in faults[:3])
        ) from None


def _turn_of(message: DialogMessage, index: int) -> Turn:
    if message.content is None or isinstance(message.content, str):
        return Turn(_role(message), message.content or "")
    texts: list[str] = []
    images: list[Image] = []
    for number, part in enumerate(message.content):
        where = f"messages.{index}.content.{number}"
        kind = part.get("type")
        if kind in ("text", "refusal"):
            texts.append(_text(part, str(kind), where))
        elif kind == "image_url" and message.role == "user":
            images.append(_image(part, f"{where}.image_url"))
        else:
            raise invalid(f"{where}.type", "only text, and images in the user's messages, can be sent")
    return Turn(_role(message), "\n".join(texts), images)


def _role(message: DialogMessage) -> str:
    return "assistant" if message.role == "assistant" else "user"


def _text(part: Part, kind: str, where: str) -> str:
    text = part.get(kind)
    if not isinstance(text, str):
        raise invalid(f"{where}.{kind}", "must be a text")
    return text


def _image(part: Part, where: str) -> Image:
    given = part.get("image_url")
    url = given.get("url") if isinstance(given, dict) else given
    if not isinstance(url, str):
        raise invalid(f"{where}.url", "must be a text")
    if _HTTPS.fullmatch(url):
        return Image(url=url)
    head = _DATA_URL.match(url)
    if head is None:
        raise invalid(f"{where}.url", "must be an https address, or data:image/...;base64,...")
    try:
        data = base64.b64decode(url[head.end() :], validate=True)
    except (binascii.Error, ValueError):
        raise invalid(f"{where}.url", "is not base64") from None
    if not data:
        raise invalid(f"{where}.url", "holds nothing")
    return Image(data=data)
