"""OpenAI's messages as Coze's: what is asked, and what was said before.

Coze v3 knows no system role, so system texts stand as one message of the user's before all others. Of a
history longer than Coze takes, the newest messages go along. What cannot be sent is refused in the last
message alone: in an earlier one it is passed over, or the dialog could never go on.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import dropwhile
from operator import not_
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from app.doors.openai.bodies import MAX_MESSAGES, ChatCompletionRequest, DialogMessage, Part
from app.doors.openai.data_urls import clean_url, data_of_url
from app.doors.openai.errors import TOO_LONG
from app.doors.openai.values import clear_text
from app.exceptions import ServiceError, UnsupportedMediaType, ValidationFailed
from app.models.bodies import FileType, SubmitToolOutputs
from app.models.faults import in_plain_words
from app.tasks.file_types import HEAD_BYTES, Kind, sniff
from app.utils import is_chat_id

_M = TypeVar("_M", bound=BaseModel)
MAX_HISTORY: Final = 99
"""Coze takes 100 messages; the last one is the question itself."""
_SYSTEM: Final = ("system", "developer")
_TOOL: Final = ("tool", "function")
_TEXTS: Final = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
"""Parts with a text, and under which key it is. Some are of OpenAI's Responses API."""
_IMAGES: Final = {"image_url": "image_url", "input_image": "image_url"}
_FILES: Final = ("file", "input_file")
_HTTPS: Final = re.compile(r"https://[^\s]+", re.IGNORECASE)
_MAX_ADDRESS: Final = 2048
OUR_CALL: Final = "call_"
"""What the id of a tool call begins with that Coze knows nothing of; the completion's follows."""
_PICTURE_ALONE: Final = "[image]"
_FILE_ALONE: Final = "[file]"
"""Coze takes neither a picture nor a file without a text."""
_FILE_ID: Final = re.compile(r"coze_file_[0-9]{13}_[a-z2-7]{21}")


@dataclass(frozen=True, slots=True)
class Enclosed:
    """A picture or a file: an address, the bytes themselves, or the id of an upload of ours. ``type`` counts
    for an address; of all else the bytes say what it is."""

    url: str = ""
    data: bytes = b""
    file_id: str = ""
    type: FileType = "image"
    name: str = "image"


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of the conversation. Only the user's have something ``enclosed``."""

    role: str
    text: str
    enclosed: list[Enclosed] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Question:
    asked: Turn
    history: list[Turn]


def invalid(where: str, message: str) -> ServiceError:
    return ValidationFailed(details={"fields": [{"field": where, "message": message}]})


def too_long(where: str, message: str) -> ServiceError:
    """With the code at which clients shorten what they send."""
    error = invalid(where, message)
    error.details["openai_code"] = TOO_LONG
    return error


def question_of(body: ChatCompletionRequest, max_image: int, room: int = MAX_HISTORY) -> Question:
    """Raises ``ValidationFailed`` naming the message that cannot be sent.

    ``max_image``: bytes; a larger picture is passed over in an earlier message. ``room``: how many messages
    the history may have.
    """
    if len(body.messages) > MAX_MESSAGES:
        raise too_long("messages", f"at most {MAX_MESSAGES} messages, {len(body.messages)} given")
    last = _first_output(body.messages)
    if last < len(body.messages):
        asked = _told_outputs(body.messages, last)
    else:
        last = _place_of_question(body.messages)
        asked = _turn_of(body.messages[last], f"messages.{last}")
    if body.session_id is not None:  # what was said before is in the session's conversation
        return Question(asked, [])
    system, history = [], []
    for message in body.messages[:last]:
        if message.role in _TOOL:
            continue  # the answer that they led to is in the history
        turn = _earlier_turn(message, max_image)
        if message.role in _SYSTEM:
            system.append(turn.text)
        elif turn.text.strip():
            history.append(turn)
    head = [Turn("user", "\n\n".join(system))] if any(text.strip() for text in system) else []
    return Question(asked, [*head, *history[len(head) - room :]])


def _first_output(messages: Sequence[DialogMessage]) -> int:
    """Where the outputs of tools begin at the end; behind the last message where there are none."""
    first = len(messages)
    while first and messages[first - 1].role in _TOOL:
        first -= 1
    return first


def _told_outputs(messages: Sequence[DialogMessage], first: int) -> Turn:
    """The outputs from ``first`` on of calls that were ours: at Coze nobody waits for them, so they are what
    is said next."""
    names = {call_id: name for message in messages[:first] for call_id, name in _calls_of(message)}
    told = []
    for index, message in enumerate(messages[first:], first):
        name = message.name if message.role == "function" else names.get(message.tool_call_id or "")
        words = f"The function `{name}` returned:" if isinstance(name, str) else "The function returned:"
        told.append(f"{words}\n{_turn_of(message, f'messages.{index}').text}")
    return Turn("user", "\n\n".join(told))


def _calls_of(message: DialogMessage) -> Iterator[tuple[str, Any]]:
    """Id and name of each call in a message of the assistant's that has an id."""
    for call in message.tool_calls if isinstance(message.tool_calls, list) else []:
        function = call.get("function") if isinstance(call, dict) else None
        call_id = call.get("id") if isinstance(call, dict) else None
        if isinstance(call_id, str) and isinstance(function, dict):
            yield call_id, function.get("name")


def _place_of_question(messages: Sequence[DialogMessage]) -> int:
    """The last message that says something; a system text can be it, as in requests for a title."""
    last = len(messages) - 1
    while last and messages[last].role not in ("user", *_TOOL) and _is_silent(messages[last]):
        last -= 1
    if messages[last].role not in ("user", *_SYSTEM):
        text = "the last message must be the user's, a system text, or the outputs of tools"
        raise invalid(f"messages.{last}.role", text)
    return last


def _is_ours(message: DialogMessage) -> bool:
    """Whether it answers a call that was demanded of us, by ``tool_choice`` or ``function_call``."""
    chat_id = (message.tool_call_id or "").removeprefix(OUR_CALL).partition("-")[0]
    return message.role == "function" or (
        (message.tool_call_id or "").startswith(OUR_CALL) and is_chat_id(chat_id)
    )


def _is_silent(message: DialogMessage) -> bool:
    """An empty message, as clients put it where the answer is to come."""
    return not message.tool_calls and all(map(_says_nothing, _parts_of(message)))


def _says_nothing(part: Part) -> bool:
    kind = part.get("type")
    text = part.get(_TEXTS[kind]) if isinstance(kind, str) and kind in _TEXTS else None
    return isinstance(text, str) and not text.strip()


def tool_outputs_of(messages: Sequence[DialogMessage]) -> tuple[str, SubmitToolOutputs] | None:
    """The chat that asked for the outputs at the end of ``messages``, and these; None where there are none.

    The ids of tool calls were made by ``chunks.call_id``, or are our own, for whose outputs nobody waits.
    Raises ``ValidationFailed``.
    """
    first = _first_output(messages)
    if all(_is_ours(message) for message in messages[first:]):
        return None
    outputs, chat_ids = [], set()
    for index, message in enumerate(messages[first:], first):
        chat_id, colon, coze_id = (message.tool_call_id or "").partition(":")
        if not colon or not coze_id or not is_chat_id(chat_id):
            raise invalid(f"messages.{index}.tool_call_id", "is not the id of a tool call of this service")
        chat_ids.add(chat_id)
        outputs.append({"tool_call_id": coze_id, "output": _turn_of(message, f"messages.{index}").text})
    if len(chat_ids) > 1:
        raise invalid("messages", "the outputs at the end answer tool calls of several chats")
    return chat_ids.pop(), checked(SubmitToolOutputs, {"tool_outputs": outputs}, "messages")


def checked(model: type[_M], values: dict[str, Any], where: str) -> _M:
    """``values`` as one of our own bodies; what is wrong is told under the name that the caller used."""
    try:
        return model.model_validate(values)
    except ValidationError as exc:
        faults = exc.errors(include_input=False, include_url=False)
        where = "metadata" if faults[0]["loc"][:1] == ("meta_data",) else where
        words = "; ".join(dict.fromkeys(in_plain_words(fault) for fault in faults[:3]))
        long = where == "messages" and any(fault["type"] == "string_too_long" for fault in faults)
        raise (too_long if long else invalid)(where, words) from None


def _turn_of(message: DialogMessage, where: str) -> Turn:
    """A message of which everything is to be sent. ``where``: its place in the request."""
    role, parts = _role(message), enumerate(_parts_of(message))
    return _turn(role, [_content(role, part, f"{where}.content.{number}") for number, part in parts])


def _earlier_turn(message: DialogMessage, max_image: int) -> Turn:
    """What can be sent of a message of the history."""
    role, contents = _role(message), list[str | Enclosed]()
    for part in _parts_of(message):
        try:
            content = _content(role, part, "")
        except ValidationFailed:
            continue
        if isinstance(content, str) or len(content.data) <= max_image:
            contents.append(content)
    return _turn(role, contents)


def _turn(role: str, contents: list[str | Enclosed]) -> Turn:
    enclosed = [each for each in contents if isinstance(each, Enclosed)]
    text = "\n".join(dropwhile(not_, (each for each in contents if isinstance(each, str))))
    if enclosed and not text.strip():
        text = _PICTURE_ALONE if enclosed[0].type == "image" else _FILE_ALONE
    return Turn(role, text, enclosed)


def _parts_of(message: DialogMessage) -> list[Part]:
    content = message.content
    return content or [] if not isinstance(content, str) else [{"type": "text", "text": content}]


def _content(role: str, part: Part, where: str) -> str | Enclosed:
    """What ``part`` says. Raises ``ValidationFailed`` where that cannot be sent."""
    kind = part.get("type")
    if kind is None:
        kind = next((name for name in (*_TEXTS, *_IMAGES) if name in part), None)
    sent = (*_TEXTS, *_IMAGES, *_FILES) if role == "user" else (*_TEXTS,)
    if not isinstance(kind, str) or kind not in sent:
        raise invalid(f"{where}.type", "only text, and images and files in the user's messages, can be sent")
    if kind in _IMAGES:
        return _image(part, where)
    return _file(part, where) if kind in _FILES else _text(part, _TEXTS[kind], where)


def _role(message: DialogMessage) -> str:
    return "assistant" if message.role == "assistant" else "user"


def _text(part: Part, key: str, where: str) -> str:
    given = part.get(key)
    text = clear_text(given.get("value") if isinstance(given, dict) else given)
    if not isinstance(text, str):
        raise invalid(f"{where}.{key}", "must be a text")
    return text


def _image(part: Part, where: str) -> Enclosed:
    given = part.get("image_url")
    if given is None and (file_id := part.get("file_id")) is not None:
        return Enclosed(file_id=_file_id(file_id, f"{where}.file_id"))
    where = f"{where}.image_url"
    url = given.get("url") if isinstance(given, dict) else given
    if not isinstance(url, str):
        raise invalid(f"{where}.url", "must be a text")
    url = clean_url(url)
    if _HTTPS.fullmatch(url):
        return Enclosed(url=_address(url, f"{where}.url"))
    data = _data(url, f"{where}.url")
    if data is None:
        raise invalid(f"{where}.url", "must be an https address, or data:image/...;base64,...")
    if not data:
        raise invalid(f"{where}.url", "holds nothing")
    if (kind := _kind(data, f"{where}.url")).type != "image":
        raise invalid(f"{where}.url", f"is no image but {kind.mime}")
    return Enclosed(data=data)


def _file(part: Part, where: str) -> Enclosed:
    """``file`` of chat completions has an object, ``input_file`` the same fields itself."""
    inner = part.get("file")
    given, name = inner if isinstance(inner, dict) else part, "file"
    if isinstance(filename := given.get("filename"), str) and filename.strip():
        name = filename
    if (file_id := given.get("file_id")) is not None:
        return Enclosed(file_id=_file_id(file_id, f"{where}.file_id"), type="file")
    if isinstance(url := given.get("file_url"), str):
        url = clean_url(url)
        if not _HTTPS.fullmatch(url):
            raise invalid(f"{where}.file_url", "must be an https address")
        return Enclosed(url=_address(url, f"{where}.file_url"), type="file", name=name)
    text = given.get("file_data")
    if not isinstance(text, str):
        raise invalid(where, "must have file_data, file_url or file_id")
    data = _data(clean_url(text), f"{where}.file_data")
    if not data:
        raise invalid(f"{where}.file_data", "must be data:...;base64,... and hold something")
    _kind(data, f"{where}.file_data")
    return Enclosed(data=data, type="file", name=name)


def _file_id(given: Any, where: str) -> str:
    if not isinstance(given, str) or not _FILE_ID.fullmatch(given):
        raise invalid(where, "must be the id of a file that was uploaded with POST /coze/files")
    return given


def _address(url: str, where: str) -> str:
    if len(url) > _MAX_ADDRESS:
        raise invalid(where, f"at most {_MAX_ADDRESS} characters, {len(url)} given")
    return url


def _data(url: str, where: str) -> bytes | None:
    """None where it is no ``data:`` URL."""
    try:
        return data_of_url(url)
    except ValueError as error:
        raise invalid(where, str(error)) from None


def _kind(data: bytes, where: str) -> Kind:
    """By its own bytes, as with uploads; the type that the URL names is not asked."""
    try:
        return sniff(data[:HEAD_BYTES])
    except UnsupportedMediaType as error:
        raise invalid(where, error.message) from None
