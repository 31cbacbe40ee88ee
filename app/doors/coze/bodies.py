"""What Coze's clients send. Read is what decides about access and what we have to do; all else is passed on
as it came, known or not, and Coze says what it thinks of it."""

import json
from collections.abc import Iterator
from itertools import chain, islice
from typing import Annotated, Any, ClassVar, Final

import msgspec
from pydantic import ConfigDict, Field, JsonValue, StringConstraints, model_validator

from app.exceptions import ValidationFailed, wrong_field
from app.models.bodies import BotId, UserId, check_json
from app.models.documented import Documented, example
from app.models.named_files import (
    MAX_FILES,
    MOST_INSIDE,
    file_fields,
    files_named,
    may_name_files,
)
from app.utils.json_shape import holds_more_than, in_pieces, size_of

_MOST_MESSAGES: Final = 100
_SHOWN_CHARS: Final = 4000
_TEXT: Final = "text"
_PIECE: Final = 64 * 1024
_MOST_META_BYTES: Final = 64 * 1024
"""Of ``meta_data``, which is part of our record; 16 pairs, as long as Coze takes them, are less."""

_DECIDING: Final = {
    name.replace("_", ""): name
    for name in (
        *("bot_id", "user_id", "conversation_id", "chat_id", "stream", "auto_save_history", "meta_data"),
        *("messages", "additional_messages", "shortcut_command", "tool_outputs", "content", "content_type"),
        *("parameters", "custom_variables"),
    )
}
"""What access and ownership are decided by. Go's JSON decoder takes ``USER_ID`` for ``user_id``, and of the
two the later; coze-studio has a field ``ConversationID``."""

Passed = dict[str, JsonValue]


class PassedOn(Documented):
    """A body that is passed on: ``values`` is all of it."""

    model_config = ConfigDict(extra="allow", strict=True)
    MOST_VALUES: ClassVar[int] = 50_000

    @model_validator(mode="after")
    def _can_be_written(self) -> "PassedOn":
        check_json(self.values)
        for name in self.model_extra or ():
            if (known := _DECIDING.get(name.casefold().replace("_", ""), name)) != name:
                raise ValueError(f"a field is called {known}, in no other spelling")
        return self

    @property
    def values(self) -> dict[str, Any]:
        """The fields that came, as they came."""
        return self.model_dump(exclude_unset=True)

    def written(self, *without: str, nulls: bool = True) -> dict[str, msgspec.Raw]:
        """The fields that came, each as JSON. Of a large body this takes long (``BigBodies``); whoever has it
        can send it on in no time.

        A conversation is left out: whose it is was only looked at where it stands in the address, and a
        server that reads the body first, too, would be led to somebody else's.

        Args:
            without: names of other fields that are left out.
            nulls: False: those that are null are, too.
        """
        write = _long if size_of(self).texts > _PIECE else msgspec.json.encode
        return {
            name: msgspec.Raw(write(value))
            for name, value in self.values.items()
            if name not in ("conversation_id", *without) and (nulls or value is not None)
        }


class ChatBody(PassedOn):
    """Body of POST /v3/chat."""

    model_config = example(
        {
            "bot_id": "7380000000000000009",
            "user_id": "u-1",
            "stream": False,
            "additional_messages": [
                {"role": "user", "type": "question", "content": "你好", "content_type": "text"}
            ],
        }
    )

    bot_id: BotId
    """The bot that answers."""
    user_id: UserId
    """The app's user; the first one's of a conversation labels its usage."""
    stream: bool | None = None
    """Whether the answer comes as Coze's events."""
    auto_save_history: bool | None = None
    """False: Coze keeps nothing of it; only with ``stream``."""
    additional_messages: Annotated[list[Passed], Field(max_length=_MOST_MESSAGES)] | None = None
    """The messages so far and the question, as Coze takes them."""

    @property
    def sent(self) -> dict[str, msgspec.Raw]:
        """Without what belongs to this connection."""
        sent = self.written("stream", nulls=False)
        if "meta_data" in sent and len(bytes(sent["meta_data"])) > _MOST_META_BYTES:
            raise wrong_field("meta_data", f"is longer than {_MOST_META_BYTES} bytes")
        return sent

    @property
    def texts_of_meta_data(self) -> dict[str, str]:
        given = (self.model_extra or {}).get("meta_data")
        texts = given.items() if isinstance(given, dict) else ()
        return {key: value for key, value in texts if isinstance(value, str)}

    @property
    def question(self) -> str:
        """What our record shows as the question: the last that the user says in words."""
        for message in reversed(self.additional_messages or []):
            if message.get("role") == "user" and isinstance(content := message.get("content"), str):
                return _words(content, message)[:_SHOWN_CHARS]
        return ""

    @property
    def file_ids(self) -> list[str]:
        try:
            ids = files_named(self._parameters())
        except ValueError as error:
            raise wrong_field("parameters", f"hold {error}") from None
        ids += _file_ids(list(_contents(self.additional_messages or [])))
        if len(ids) > MAX_FILES:
            raise _too_many_files()
        return ids

    def _parameters(self) -> Iterator[JsonValue]:
        """The values of all parameters: of the bot, of its prompt, of a shortcut."""
        extra = self.model_extra or {}
        command = extra.get("shortcut_command")
        several = [extra.get("parameters"), extra.get("custom_variables")]
        for name, values in command.items() if isinstance(command, dict) else ():
            if name.casefold() == "parameters":
                several.append(values)
        for values in several:
            yield from values.values() if isinstance(values, dict) else [values]


class ToolOutputsBody(PassedOn):
    """Body of POST /v3/chat/submit_tool_outputs."""

    model_config = example({"tool_outputs": [{"tool_call_id": "Q0Q=", "output": '{"t":21}'}]})

    tool_outputs: Annotated[list[Passed], Field(min_length=1, max_length=100)]
    """``tool_call_id`` and ``output`` of each call that the chat asks for."""
    stream: bool | None = None
    """Whether the rest of the answer comes as Coze's events."""


class CancelBody(PassedOn):
    """Body of POST /v3/chat/cancel."""

    model_config = example({"conversation_id": "7380000000000000005", "chat_id": "7380000000000000006"})

    conversation_id: str
    """Coze's id of the conversation."""
    chat_id: str
    """Coze's id of the chat."""


class ConversationBody(PassedOn):
    """Body of POST /v1/conversation/create."""

    model_config = example({"meta_data": {"k": "v"}})

    bot_id: BotId | None = None
    """The bot in whose list it is."""
    name: Annotated[str, StringConstraints(max_length=1000)] | None = None
    """What lists call it."""
    messages: Annotated[list[Passed], Field(max_length=_MOST_MESSAGES)] | None = None
    """What it begins with, as Coze takes it."""


class MessageBody(PassedOn):
    """Body of POST /v1/conversation/message/create."""

    model_config = example({"role": "user", "content": "你好", "content_type": "text"})


class ListMessagesBody(PassedOn):
    """Body of POST /v1/conversation/message/list."""

    model_config = example({"order": "desc", "limit": 20})


class RenameBody(PassedOn):
    """Body of PUT /v1/conversations/{conversation_id}."""

    model_config = example({"name": "周末去杭州"})

    name: Annotated[str, StringConstraints(max_length=1000)] | None = None
    """What lists call it from now on."""


class FeedbackBody(PassedOn):
    """Body of POST .../messages/{message_id}/feedback."""

    model_config = example({"feedback_type": "like"})


# -- files that messages name ------------------------------------------------------------------------------


def files_in(messages: list[Passed]) -> list[str]:
    """The ids of uploaded files that messages name. Plain text is not looked into.

    Names are compared as Go's JSON decoder does it, without regard to case: whoever writes ``File_ID`` must
    not get at a file that is not his.
    """
    return _file_ids(list(_contents(messages)))


def _contents(messages: list[Passed]) -> Iterator[str]:
    for message in messages:
        kinds = [value for name, value in message.items() if name.casefold() == "content_type"]
        if kinds == [_TEXT]:
            continue
        for name, value in message.items():
            if name.casefold() == "content" and isinstance(value, str):
                yield value


def _file_ids(contents: list[str]) -> list[str]:
    naming = [content for content in contents if may_name_files(content)]
    if holds_more_than(b",".join(map(_encoded, naming)), MOST_INSIDE):
        raise wrong_field("content", f"holds more than {MOST_INSIDE} values, in texts that are JSON")
    found = chain.from_iterable(map(_ids_in, naming))
    ids = [*islice(found, MAX_FILES + 1)]
    if len(ids) > MAX_FILES:
        raise _too_many_files()
    return ids


def _too_many_files() -> ValidationFailed:
    return wrong_field("file_id", f"at most {MAX_FILES} files are named in one request")


def _ids_in(content: str) -> Iterator[str]:
    try:
        named = [value for fields in file_fields(content) for _, value in fields]
    except (ValueError, RecursionError):
        raise wrong_field("content", "is no JSON, as content that names files has to be") from None
    yield from (str(value) for value in named if value is not None and value != "")


def _words(content: str, message: Passed) -> str:
    if message.get("content_type") != "object_string" or holds_more_than(_encoded(content), MOST_INSIDE):
        return content
    try:
        items = json.loads(content)
    except (ValueError, RecursionError):
        return content
    texts = [item.get("text") for item in items if isinstance(item, dict)] if isinstance(items, list) else []
    return "".join(text for text in texts if isinstance(text, str))


def _long(value: object) -> bytes:
    return b"".join(in_pieces(value))


def _encoded(text: str) -> bytes:
    return text.encode(errors="surrogatepass")
