"""Checks of request bodies, as strict as Coze's: wrong JSON types are refused with 4000."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from coze_simulator.errors import ApiError
from coze_simulator.knobs import strip_directives
from coze_simulator.state import Store

MAX_ADDITIONAL_MESSAGES = 100
MAX_META_PAIRS = 16
_BOT_ID = re.compile(r"[1-9][0-9]{18}")
_INPUT_TYPES = ("question", "answer")
_UNSAVED_TYPES = ("function_call", "tool_response", "tool_output")


@dataclass(frozen=True, slots=True)
class EnterMessage:
    """A message of the caller's: the query or history."""

    role: str
    type: str
    content: str
    content_type: str
    meta_data: dict[str, str]

    @property
    def text(self) -> str:
        """Its words, with the directives."""
        if self.content_type != "object_string":
            return self.content
        items = json.loads(self.content)
        return "".join(str(item.get("text") or "") for item in items if item.get("type") == "text")

    @property
    def file_ids(self) -> list[str]:
        """The uploaded files that it names."""
        items = json.loads(self.content) if self.content_type == "object_string" else []
        return [item["file_id"] for item in items if item.get("file_id")]


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """The body of POST /v3/chat, checked."""

    bot_id: str
    user_id: str
    stream: bool
    save: bool
    messages: list[EnterMessage]
    meta_data: dict[str, str] = field(default_factory=dict)


def bad(what: str) -> ApiError:
    """4000 with the reason."""
    return ApiError(4000, f"Request parameter error: {what}")


def words(content: str, content_type: str) -> str:
    """What a stored message says, without directives."""
    return strip_directives(EnterMessage("user", "question", content, content_type, {}).text)


def text_of(body: Mapping[str, Any], name: str, *, required: bool = False, default: str = "") -> str:
    """A string field; a number is refused as Go's JSON decoder refuses it."""
    value = body.get(name)
    if value is None:
        if required:
            raise bad(f"the field {name} is required")
        return default
    if not isinstance(value, str):
        raise bad(f"json: cannot unmarshal {_kind(value)} into Go struct field {name} of type string")
    if required and not value:
        raise bad(f"the field {name} is required")
    return value


def bool_of(body: Mapping[str, Any], name: str, *, default: bool) -> bool:
    """A boolean field."""
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise bad(f"json: cannot unmarshal {_kind(value)} into Go struct field {name} of type bool")
    return value


def _kind(value: object) -> str:
    names = {bool: "bool", int: "number", float: "number", str: "string", list: "array", dict: "object"}
    return names.get(type(value), "value")


def texts_of(body: Mapping[str, Any], name: str) -> dict[str, str]:
    """A map of strings."""
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise bad(f"{name} must be a map of strings")
    return value


def meta_data_of(body: Mapping[str, Any]) -> dict[str, str]:
    """``meta_data``: at most 16 pairs (4003), keys of 1-64 and values of 1-512 characters (4000)."""
    pairs = texts_of(body, "meta_data")
    if len(pairs) > MAX_META_PAIRS:
        raise ApiError(4003)
    for key, value in pairs.items():
        if not 1 <= len(key) <= 64 or not 1 <= len(value) <= 512:
            raise bad("a meta_data key has 1 to 64 characters, a value 1 to 512")
    return pairs


def messages_of(body: Mapping[str, Any], name: str, *, save: bool) -> list[EnterMessage]:
    """A list of EnterMessage."""
    value = body.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise bad(f"{name} must be a list")
    messages = [_message(item, save=save) for item in value]
    _check_lone_images(messages)
    return messages


def _message(item: object, *, save: bool) -> EnterMessage:
    if not isinstance(item, dict):
        raise bad("a message must be an object")
    role = text_of(item, "role", required=True)
    if role not in ("user", "assistant"):
        raise bad("role must be user or assistant")
    kind = text_of(item, "type", default="question" if role == "user" else "answer") or "question"
    if kind not in _INPUT_TYPES and kind not in _UNSAVED_TYPES:
        raise bad(f"message type {kind} is not valid as input")
    if kind in _UNSAVED_TYPES and save:
        raise bad(f"message type {kind} needs auto_save_history=false")
    if kind == "question" and role != "user":
        raise bad("a question must have role user")
    content = text_of(item, "content")
    content_type = text_of(item, "content_type")
    if content and not content_type:
        raise bad("content_type is required with content")
    if content_type not in ("", "text", "object_string"):
        raise bad(f"content_type {content_type} is not valid as input")
    if content_type == "object_string":
        _check_objects(content)
    return EnterMessage(role, kind, content, content_type or "text", texts_of(item, "meta_data"))


def _objects(content: str) -> list[dict[str, Any]]:
    try:
        items = json.loads(content)
    except json.JSONDecodeError as error:
        raise bad("the content of an object_string must be JSON") from error
    if not isinstance(items, list) or not items or not all(isinstance(item, dict) for item in items):
        raise bad("the content of an object_string must be a JSON array of objects")
    return items


def _check_objects(content: str) -> None:
    items = _objects(content)
    texts = [item for item in items if item.get("type") == "text"]
    media = [item for item in items if item.get("type") in ("image", "file", "audio")]
    if len(texts) + len(media) != len(items):
        raise bad("an object_string item has type text, image, file or audio")
    if not all(item.get("file_id") or item.get("file_url") for item in media):
        raise bad("an image, file or audio needs file_id or file_url")
    if len(texts) > 1:
        raise bad("an object_string has at most one text")
    if texts and not media:
        raise bad("a text in an object_string needs a file or an image beside it")


def _check_lone_images(messages: list[EnterMessage]) -> None:
    """An image without any words near it is refused."""
    if not messages or messages[-1].content_type != "object_string":
        return
    kinds = {item.get("type") for item in _objects(messages[-1].content)}
    if kinds == {"image"} and not any(message.text for message in messages[:-1]):
        raise bad("an image needs a text message beside it")


def check_files(store: Store, identity: str, messages: list[EnterMessage]) -> None:
    """Files that messages name are the identity's own."""
    for file_id in (file_id for message in messages for file_id in message.file_ids):
        try:
            store.file(file_id, identity)
        except ApiError as error:
            raise bad("file_id is not a file of this identity") from error


def last_user_text(body: object) -> str:
    """The words of the query in a body that is not checked yet; "" if it cannot be made out."""
    messages = body.get("additional_messages") if isinstance(body, dict) else None
    if not isinstance(messages, list):
        return ""
    for item in reversed(messages):
        if isinstance(item, dict) and item.get("role") == "user" and isinstance(item.get("content"), str):
            content: str = item["content"]
            if item.get("content_type") != "object_string":
                return content
            try:
                _check_objects(content)
            except ApiError:
                return ""
            return EnterMessage("user", "question", content, "object_string", {}).text
    return ""


def check_bot_id(bot_id: str) -> str:
    """A bot id has 19 digits."""
    if not _BOT_ID.fullmatch(bot_id):
        raise bad("bot_id must be a 19-digit id")
    return bot_id


def chat_request(body: Mapping[str, Any], *, stream_by_default: bool) -> ChatRequest:
    """Checks the body of POST /v3/chat. A conversation_id in it is ignored, as Coze does."""
    bot_id = check_bot_id(text_of(body, "bot_id", required=True))
    user_id = text_of(body, "user_id", required=True)
    stream = bool_of(body, "stream", default=stream_by_default)
    save = bool_of(body, "auto_save_history", default=True)
    texts_of(body, "custom_variables")
    texts_of(body, "extra_params")
    parameters = body.get("parameters")
    if parameters is not None and not isinstance(parameters, dict):
        raise bad("parameters must be an object")
    if text_of(body, "publish_status") == "unpublished_draft" and text_of(body, "bot_version"):
        raise bad("bot_version cannot be combined with unpublished_draft")
    bool_of(body, "enable_card", default=False)
    listed = body.get("additional_messages")
    if isinstance(listed, list) and len(listed) > MAX_ADDITIONAL_MESSAGES:
        raise ApiError(4004)
    messages = messages_of(body, "additional_messages", save=save)
    if not stream and not save:
        raise ApiError(4007)
    return ChatRequest(bot_id, user_id, stream, save, messages, meta_data_of(body))
