"""Request bodies: what callers may write, checked before anything is done with it."""

import math
import re
from collections.abc import Collection
from typing import Annotated, Any, Final, Literal, Self

import orjson
from pydantic import Field, JsonValue, PrivateAttr, StringConstraints, model_validator

from app.models.documented import Body, example
from app.models.named_files import FILE_ID, MAX_FILES, file_fields, files_named, may_name_files

_MetaKey = Annotated[str, StringConstraints(min_length=1, max_length=64)]
_MetaValue = Annotated[str, StringConstraints(min_length=1, max_length=512)]
MetaData = Annotated[dict[_MetaKey, _MetaValue], Field(max_length=15)]
USER_ID_PATTERN: Final = r"^[^\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]+$"
"""Anything but control characters, line ends and changes of direction, which make a line read as another
one: it goes to Coze, into keys (hashed) and into logs."""
UserId = Annotated[str, StringConstraints(pattern=USER_ID_PATTERN, min_length=1, max_length=128)]
CONVERSATION_ID_PATTERN: Final = r"^[0-9]{1,32}$"
ConversationId = Annotated[str, StringConstraints(pattern=CONVERSATION_ID_PATTERN)]
"""As Coze numbers them; of a conversation that the same user has had before."""
BOT_ID_PATTERN: Final = r"^[0-9A-Za-z_-]{1,64}$"
BotId = Annotated[str, StringConstraints(pattern=BOT_ID_PATTERN)]
Title = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100, pattern=USER_ID_PATTERN)
]
"""One line, as lists show it."""
_Reason = Annotated[str, StringConstraints(min_length=1, max_length=64)]
CustomVariables = Annotated[dict[str, str], Field(max_length=100)]
Parameters = Annotated[dict[str, JsonValue], Field(max_length=100)]


_MAX_DEPTH: Final = 64
MAX_ATTACHMENTS: Final = 20
_MAX_FILE_ID: Final = 128
_HTTPS: Final = re.compile(r"https://[^\s/?#\x00-\x1f\x7f][^\s\x00-\x1f\x7f]*", re.IGNORECASE)


class _WithMetaData(Body):
    """Our answers say ``metadata``, Coze and our bodies ``meta_data``: both are taken as the latter."""

    meta_data: MetaData | None = None
    """Pairs of the caller's own, kept and told again: at most 15; keys of 64, values of 512 characters."""
    # Left out of what is dumped: Idempotency-Keys compare that, with the version before this one, too.
    metadata: Annotated[MetaData | None, Field(exclude=True)] = None
    """Another name for `meta_data`."""

    @model_validator(mode="after")
    def _one_name(self) -> Self:
        if self.metadata is not None:
            if self.meta_data is not None and self.meta_data != self.metadata:
                raise ValueError("give either meta_data or metadata, which are two names for one thing")
            self.meta_data, self.metadata = self.metadata, None
        return self


class EnterMessage(_WithMetaData):
    """A message of the conversation so far, as Coze's ``additional_messages`` takes it."""

    role: Literal["user", "assistant"]
    """Who said it."""
    content: Annotated[str, StringConstraints(max_length=100_000)] = ""
    """What was said, by `content_type`."""
    content_type: Literal["text", "object_string"] = "text"
    """`object_string`: `content` is a JSON array of texts, images, files and audio, as Coze takes it."""
    type: Literal["question", "answer", "function_call", "tool_response", "tool_output"] | None = None
    """What kind of message it is to Coze; `question` goes with the role `user`."""

    @model_validator(mode="after")
    def _question_is_the_users(self) -> "EnterMessage":
        if self.type == "question" and self.role != "user":
            raise ValueError("type question goes with role user")
        if self.content_type == "object_string":
            _check_objects(self.content)
        return self


def check_json(value: JsonValue | dict[str, JsonValue]) -> None:
    """What every reader of JSON takes: 64-bit integers, finite numbers, nesting within bounds."""
    level: list[Any] = [value]
    for _ in range(_MAX_DEPTH):
        inner: list[Any] = []
        for item in level:
            if isinstance(item, int) and not -(1 << 63) <= item < 1 << 64:
                raise ValueError("integers have at most 64 bits")
            if isinstance(item, float) and not math.isfinite(item):
                raise ValueError("numbers must be finite")
            if isinstance(item, dict):
                inner += item.values()
            elif isinstance(item, list):
                inner += item
        if not inner:
            return
        level = inner
    raise ValueError(f"nested more than {_MAX_DEPTH} levels deep")


def _check_objects(content: str) -> None:
    """What Coze takes as an object_string; what it links to is https, and is never fetched by us.

    Source: Coze's page "Chat v3", ``object_string``: at most one text, and a file beside it.
    """
    try:
        objects = orjson.loads(content)
    except orjson.JSONDecodeError:
        raise ValueError("an object_string holds a JSON array") from None
    if not isinstance(objects, list) or not all(isinstance(item, dict) for item in objects):
        raise ValueError("an object_string holds a JSON array of objects")
    if len(objects) > 1 + MAX_FILES:
        raise ValueError(f"an object_string has at most {MAX_FILES} files")
    kinds = [item.get("type") for item in objects]
    if not kinds or not all(kind in ("text", "image", "file", "audio") for kind in kinds):
        raise ValueError("the items of an object_string have the type text, image, file or audio")
    if kinds.count("text") > 1 or kinds == ["text"]:
        raise ValueError("an object_string has at most one text, and a file beside it")
    for item in objects:
        _check_object(item)
    for fields in file_fields(content) if may_name_files(content) else ():
        if [name for name, _ in fields] not in ([], [FILE_ID]):
            raise ValueError("a file is named once, by a field file_id in no other spelling")


def _check_object(item: dict[str, Any]) -> None:
    url, file_id = item.get("file_url"), item.get("file_id")
    if url is not None and not (isinstance(url, str) and _HTTPS.fullmatch(url)):
        raise ValueError("file_url must be an https address")
    if file_id is not None and not (isinstance(file_id, str) and 1 <= len(file_id) <= _MAX_FILE_ID):
        raise ValueError("file_id must be the id of an uploaded file")
    if (item["type"] == "text") is not (url is None and file_id is None) or (url and file_id):
        raise ValueError("an image, file or audio has either a file_id or a file_url, a text neither")
    if item["type"] == "text" and not isinstance(item.get("text"), str):
        raise ValueError("a text item has a text")


AdditionalMessages = Annotated[list[EnterMessage], Field(max_length=99)]


class CreateSession(_WithMetaData):
    """A session to be opened."""

    model_config = example({"user_id": "u-1", "meta_data": {"app": "web"}})

    user_id: UserId
    """Whose session it is, as the caller names his users."""
    bot_id: BotId | None = None
    """The bot at Coze that is to answer; without it, the bot of COZE_BOT_ID."""
    conversation_id: ConversationId | None = None
    """Coze's conversation to go on with: one that this user has had before."""
    additional_messages: AdditionalMessages | None = None
    """The conversation so far, which goes along with the first message. Files only by `file_url`."""
    auto_save_history: bool = True
    """Whether Coze keeps the conversation's messages."""

    @model_validator(mode="after")
    def _links_files(self) -> "CreateSession":
        """Whose an uploaded file is at Coze is only decided with the session's conversation."""
        for message in self.additional_messages or ():
            objects = orjson.loads(message.content) if message.content_type == "object_string" else []
            if any(item.get("file_id") for item in objects):
                raise ValueError("a session's opening messages link to files by file_url")
        return self


FileType = Literal["image", "file", "audio"]


class Attachment(Body):
    """What goes along with a message: a file uploaded here, or an https address that Coze fetches."""

    file_id: Annotated[str, StringConstraints(min_length=1, max_length=_MAX_FILE_ID)] | None = None
    """Id of a file uploaded here; either this or `file_url`."""
    file_url: Annotated[str, StringConstraints(max_length=2048)] | None = None
    """https address that Coze fetches."""
    type: FileType | None = None
    """What it is: required with `file_url`, and else what the upload was found to be."""

    @model_validator(mode="after")
    def _is_one_thing(self) -> "Attachment":
        if (self.file_id is None) == (self.file_url is None):
            raise ValueError("give either file_id or file_url")
        if self.file_url is not None and not _HTTPS.fullmatch(self.file_url):
            raise ValueError("file_url must be an https address")
        if self.file_url is not None and self.type is None:
            raise ValueError("type is required with file_url")
        return self


class _WithParameters(Body):
    """Whose values may name files."""

    _files_in_parameters: list[str] = PrivateAttr(default_factory=list)

    @property
    def files_in_parameters(self) -> list[str]:
        """The ids of files that ``parameters`` and ``custom_variables`` name, as they stand there."""
        return self._files_in_parameters

    def _look_into(self, parameters: Parameters | None, variables: CustomVariables | None) -> None:
        check_json(parameters)
        values = [*(parameters or {}).values(), *(variables or {}).values()]
        self._files_in_parameters = files_named(values)


class SendMessage(_WithMetaData, _WithParameters):
    """A message to be sent."""

    model_config = example({"message": "你好，介绍一下你自己", "stream": False})

    message: str
    """What the user says; at most COZE_MAX_MESSAGE_LENGTH characters. Blank only with speech, or after a
    text of the user's at the end of `additional_messages`."""
    attachments: Annotated[list[Attachment], Field(max_length=MAX_ATTACHMENTS)] | None = None
    """What goes along with it."""
    stream: bool = False
    """Whether the answer is to come as server-sent events."""
    additional_messages: AdditionalMessages | None = None
    """Messages that stand before it, for Coze."""
    custom_variables: CustomVariables | None = None
    """Values of the variables in the bot's prompt."""
    parameters: Parameters | None = None
    """Values of the input parameters of a bot that is a dialogue flow."""
    on_busy: Literal["reject", "interrupt", "enqueue"] = "reject"
    """What is done while the session has a chat under way: refuse with 409, cancel that chat, or wait behind
    it."""

    @model_validator(mode="after")
    def _says_something(self) -> "SendMessage":
        if not self.message.strip() and not self.says_it_without_words(
            {attachment.type for attachment in self.attachments or []}
        ):
            raise ValueError("message must not be blank")
        self._look_into(self.parameters, self.custom_variables)
        return self

    def take_parameters(self, given: "Regenerate") -> None:
        """Those that were looked into already: with large ones that takes long, and is not done twice."""
        self.parameters, self.custom_variables = given.parameters, given.custom_variables
        self._files_in_parameters = given.files_in_parameters

    def says_it_without_words(self, types: Collection[FileType | None]) -> bool:
        """Whether attachments of these types do without a text of their own: as speech, or right after a text
        of the user's. Coze refuses an image alone. None: a type that is not known yet."""
        before = self.additional_messages[-1] if self.additional_messages else None
        asked = before is not None and before.role == "user" and before.content_type == "text"
        if asked and before is not None and before.content.strip():
            return bool(types)
        return "audio" in types or None in types


class Regenerate(_WithParameters):
    """The last message is asked once more. These of its own fields are not kept, so they are given again."""

    model_config = example({"stream": False})

    stream: bool = False
    """Whether the answer is to come as server-sent events."""
    custom_variables: CustomVariables | None = None
    """Values of the variables in the bot's prompt."""
    parameters: Parameters | None = None
    """Values of the input parameters of a bot that is a dialogue flow."""

    @model_validator(mode="after")
    def _parameters_are_json(self) -> "Regenerate":
        self._look_into(self.parameters, self.custom_variables)
        return self


class UpdateSession(_WithMetaData):
    """What is to change; what is left out stays, `metadata` is replaced as a whole."""

    model_config = example({"title": "周末去杭州"})

    title: Title | None = None
    """What the session, and the conversation behind it, is called."""

    @model_validator(mode="after")
    def _changes_something(self) -> "UpdateSession":
        if self.title is None and self.meta_data is None:
            raise ValueError("give title or metadata")
        return self


class RenameConversation(Body):
    """A conversation's new title."""

    model_config = example({"title": "周末去杭州"})

    title: Title
    """What the conversation, and the sessions that go on with it, is called."""


class GiveFeedback(Body):
    """What a user thinks of an answer, in Coze's words."""

    model_config = example({"feedback_type": "like", "reason_types": [], "comment": "说得清楚"})

    feedback_type: Literal["like", "unlike"]
    """Whether the answer is liked."""
    reason_types: Annotated[list[_Reason], Field(max_length=20)] = Field(default_factory=list)
    """Why, as the app names its reasons."""
    comment: Annotated[str, StringConstraints(max_length=2000)] = ""
    """Why, in the user's words."""


class ToolOutput(Body):
    """What one tool has returned."""

    tool_call_id: Annotated[str, StringConstraints(min_length=1, max_length=1000)]
    """The `id` of the call, from `required_action`."""
    output: Annotated[str, StringConstraints(max_length=500_000)]
    """What it has returned: JSON or any other text."""


class SubmitToolOutputs(Body):
    """All outputs that the chat asks for, in one call."""

    model_config = example(
        {"tool_outputs": [{"tool_call_id": "Q0Q=", "output": '{"t":21}'}], "stream": False}
    )

    tool_outputs: Annotated[list[ToolOutput], Field(min_length=1, max_length=100)]
    """One for each call."""
    stream: bool = False
    """Whether the rest of the answer is to come as server-sent events."""
