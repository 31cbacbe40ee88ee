"""Items of the Responses API as messages of a dialog, and as they are listed afterwards."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import orjson

from app.doors.openai.bodies import ChatCompletionRequest, DialogMessage
from app.doors.openai.data_urls import clean_url, data_of_url
from app.doors.openai.dialog import checked, invalid
from app.doors.openai.responses.bodies import Item
from app.doors.openai.responses.names import Name
from app.models.bodies import FileType

MOST_KEPT: Final = 128 * 1024
"""Bytes of JSON of a response's input that are kept; of a longer one its newest items."""
REFERENCE: Final = "item_reference"
_ROLES: Final = ("user", "assistant", "system", "developer")
_CALL: Final = "function_call"
_OUTPUT: Final = "function_call_output"
_SILENT: Final = DialogMessage(role="assistant", content="")
"""In the place of an item that says nothing to the bot."""


def kind_of(item: Mapping[str, Any]) -> Any:
    return item.get("type") or ("message" if "role" in item else None)


def dialog_message(item: Item, where: str, *, is_last: bool) -> DialogMessage:
    """Raises ``ValidationFailed`` for what is no item, and for a last one that cannot be sent."""
    kind = kind_of(item)
    if kind == "message":
        if item.get("role") not in _ROLES:
            raise invalid(f"{where}.role", "must be user, assistant, system or developer")
        return checked(DialogMessage, {"role": item["role"], "content": item.get("content")}, where)
    if kind == _CALL:
        function = {"name": item.get("name"), "arguments": item.get("arguments")}
        call = {"id": item.get("call_id"), "type": "function", "function": function}
        return DialogMessage(role="assistant", tool_calls=[call])
    if kind == _OUTPUT:
        output = item.get("output")
        content = output if isinstance(output, str | list) else orjson.dumps(output).decode()
        values = {"role": "tool", "tool_call_id": item.get("call_id"), "content": content}
        return checked(DialogMessage, values, where)
    if not isinstance(kind, str):
        raise invalid(f"{where}.type", "must say what kind of item it is")
    if is_last and kind != "reasoning":
        raise invalid(f"{where}.type", "only messages and outputs of functions can be sent")
    return _SILENT


def dialog_messages(items: list[Item]) -> list[DialogMessage]:
    """One for each item, at the same place."""
    last = len(items) - 1
    return [dialog_message(item, f"input.{n}", is_last=n == last) for n, item in enumerate(items)]


# -- what is demanded of an answer, as chat completions say it ---------------------------------------------


def as_chat_request(
    model: str, text: Mapping[str, Any] | None, tool_choice: Any, tools: Any
) -> ChatCompletionRequest:
    """A request for chat completions that demands the same form. Raises ``ValidationFailed``."""
    values: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": "x"}]}
    form = (text or {}).get("format")
    if isinstance(form, dict) and form.get("type") == "json_schema":
        form = {"type": "json_schema", "json_schema": form}
    if isinstance(tool_choice, dict) and tool_choice.get("type") == "allowed_tools":
        inner = {"mode": tool_choice.get("mode"), "tools": tool_choice.get("tools")}
        tool_choice = {"type": "allowed_tools", "allowed_tools": inner}
    values |= {"response_format": form, "tool_choice": tool_choice, "tools": tools}
    return checked(ChatCompletionRequest, values, "tool_choice")


# -- as they are listed ------------------------------------------------------------------------------------


def kept_items(items: list[Item], uploads: Mapping[bytes, tuple[str, FileType]]) -> list[dict[str, Any]]:
    """The newest items, in OpenAI's shapes and without bytes; ``uploads``: what these became."""
    kept: list[dict[str, Any]] = []
    room = MOST_KEPT
    for item in reversed(items):
        listed = _listed(item, uploads)
        room -= len(orjson.dumps(listed))
        if room < 0:
            break
        kept.append(listed)
    return kept[::-1]


def with_ids(items: Iterable[dict[str, Any]], name: Name) -> list[dict[str, Any]]:
    """As input items are listed: each has an id."""
    return [
        item | {"id": item.get("id") or f"in_{name.answer_id}_{number}"} for number, item in enumerate(items)
    ]


def _listed(item: Item, uploads: Mapping[bytes, tuple[str, FileType]]) -> dict[str, Any]:
    kind = kind_of(item)
    if kind == _CALL:
        names = ("call_id", "name", "arguments")
        return {"type": kind, "status": "completed", **{name: _text_of(item.get(name)) for name in names}}
    if kind == _OUTPUT:
        output = item.get("output")
        output = output if isinstance(output, str | list) else orjson.dumps(output).decode()
        return {"type": kind, "status": "completed", "call_id": item.get("call_id"), "output": output}
    if kind != "message":
        return {"type": kind, "status": "completed", "summary": []}
    said = item.get("role") == "assistant"
    parts = _parts(item.get("content"), uploads, "output_text" if said else "input_text")
    return {"type": kind, "status": "completed", "role": item.get("role"), "content": parts}


def _parts(content: Any, uploads: Mapping[bytes, tuple[str, FileType]], text_type: str) -> list[Any]:
    parts = content if isinstance(content, list) else [content]
    return [_part(part, uploads, text_type) for part in parts if part is not None]


def _part(part: Any, uploads: Mapping[bytes, tuple[str, FileType]], text_type: str) -> dict[str, Any]:
    part = part if isinstance(part, dict) else {"text": _text_of(part)}
    if "image_url" in part or part.get("type") == "input_image":
        given = part.get("image_url")
        url = given.get("url") if isinstance(given, dict) else given
        image = {"type": "input_image", "detail": part.get("detail") or "auto", "image_url": url}
        return _without_bytes(image | {"file_id": part.get("file_id")}, "image_url", uploads)
    if part.get("type") in ("input_file", "file"):
        inner = part.get("file")
        given = inner if isinstance(inner, dict) else part
        names = ("file_id", "file_url", "file_data", "filename")
        file = {name: given[name] for name in names if given.get(name) is not None}
        return _without_bytes({"type": "input_file", **file}, "file_data", uploads)
    if "refusal" in part:
        return {"type": "refusal", "refusal": _text_of(part["refusal"])}
    listed = {"type": text_type, "text": _text_of(part.get("text"))}
    return listed | {"annotations": [], "logprobs": []} if text_type == "output_text" else listed


def _without_bytes(
    part: dict[str, Any], field: str, uploads: Mapping[bytes, tuple[str, FileType]]
) -> dict[str, Any]:
    """Bytes are not kept: the id of the upload that they became stands in their place."""
    given = part.get(field)
    url = clean_url(given) if isinstance(given, str) else ""
    if url[:5].lower() != "data:":
        return part
    try:
        data = data_of_url(url)
    except ValueError:
        data = None
    file_id, _ = uploads.get(data or b"", (None, ""))
    return {**part, field: None, "file_id": file_id} if field == "image_url" else _named(part, file_id)


def _named(part: dict[str, Any], file_id: str | None) -> dict[str, Any]:
    rest = {name: value for name, value in part.items() if name != "file_data"}
    return rest | {"file_id": file_id}


def _text_of(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else orjson.dumps(value).decode()
