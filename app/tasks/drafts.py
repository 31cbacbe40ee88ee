"""What a message becomes: a chat, and what is sent to Coze for it, with its ids in place of ours. Settled
when the message comes, so that a queue or another replica needs nothing else."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

import msgspec
import orjson

from app.coze.wire import EnterMessage
from app.exceptions import FileNotFound, SessionNotFound, wrong_field
from app.models import Identity
from app.models.bodies import Attachment, SendMessage
from app.models.chats import Chat, SentAttachment, UserMessage
from app.models.named_files import MAX_FILES
from app.stores.chats import NewChat
from app.stores.files import FileRecord, FileStore, named_file_id
from app.stores.sessions import SessionRecord, SessionStore
from app.tasks.frames import chat_frame
from app.utils import is_session_id, iso, new_chat_id

_TITLE_CHARS: Final = 60
_TITLE_SOURCE: Final = 500
NO_NOTES: Final[Mapping[str, str]] = MappingProxyType({})


class Prompt(msgspec.Struct, omit_defaults=True):
    """A message as it is kept with the chat's run. ``content``: with attachments, the message as Coze's
    object_string, which then counts instead. ``credential``: whose the attachments are at Coze. ``passed``: a
    body of Coze's own API, which is sent as it is instead of all else: its fields as JSON, since to write or
    read megabytes takes long."""

    message: str
    content: str = ""
    credential: str = ""
    additional_messages: list[EnterMessage] = []
    custom_variables: dict[str, str] | None = None
    meta_data: dict[str, str] = {}
    parameters: dict[str, object] | None = None
    passed: dict[str, msgspec.Raw] | None = None

    @property
    def messages(self) -> list[EnterMessage]:
        """The conversation so far, and the message itself."""
        content_type = "object_string" if self.content else "text"
        return [*self.additional_messages, EnterMessage("user", self.content or self.message, content_type)]

    def field(self, name: str) -> object:
        """A field of ``passed``; None: it has none of that name."""
        text = (self.passed or {}).get(name)
        return None if text is None else msgspec.json.decode(text, type=object)


class Draft(NamedTuple):
    """A chat that is about to be created: for its task, and for the store."""

    chat: Chat
    prompt: Prompt
    new: NewChat


def draft_of(
    session_id: str,
    prompt: Prompt,
    attachments: Sequence[SentAttachment] = (),
    notes: Mapping[str, str] = NO_NOTES,
) -> Draft:
    """A chat of the session that asks for what the prompt says."""
    moment, chat_id = iso(), new_chat_id(session_id)
    chat = Chat(
        chat_id=chat_id,
        session_id=session_id,
        status="processing",
        user_message=UserMessage(
            content=prompt.message,
            timestamp=moment,
            message_id=f"msg_{chat_id[-20:]}",
            metadata=prompt.meta_data,
            attachments=list(attachments) or None,
        ),
        created_at=moment,
        updated_at=moment,
        metadata={**notes, **_passed_metadata(prompt)},
    )
    for model in (chat, chat.user_message):  # which fields were given nobody asks: half a kilobyte
        model.model_fields_set.clear()
    queued = chat.model_copy(update={"status": "pending"})
    record, frames = chat.model_dump_json().encode(), (chat_frame(chat), chat_frame(queued))
    request, title = msgspec.json.encode(prompt), _title(prompt.message, attachments)
    return Draft(chat, prompt, NewChat(chat_id, session_id, record, *frames, request, title))


def _title(message: str, attachments: Sequence[SentAttachment]) -> str:
    """What a session is called by its first message: the begin of it, as one line of plain characters."""
    names = (each.file_name or each.type for each in attachments)
    shown = "".join(c if c.isprintable() else " " for c in message[:_TITLE_SOURCE] or next(names, ""))
    line = " ".join(shown.split())
    return line if len(line) <= _TITLE_CHARS else line[: _TITLE_CHARS - 1].rstrip() + "…"


def _passed_metadata(prompt: Prompt) -> dict[str, str]:
    """What has to be known of a body that is passed on once the chat is over."""
    if prompt.passed is None:
        return {}
    unsaved = {"auto_save_history": "false"} if prompt.field("auto_save_history") is False else {}
    return {"bot_id": str(prompt.field("bot_id") or ""), **unsaved}


def keeps_history(chat: Chat) -> bool:
    """False: a body that is passed on asks Coze to keep nothing."""
    return chat.metadata.get("auto_save_history") != "false"


class Drafts:
    def __init__(self, files: FileStore, sessions: SessionStore) -> None:
        self._files = files
        self._sessions = sessions

    async def of(
        self,
        identity: Identity,
        session_id: str,
        body: SendMessage,
        notes: Mapping[str, str] = NO_NOTES,
    ) -> Draft:
        """What the message becomes; one of text alone costs nothing here. ``notes``: a door's, for the
        ``metadata`` of the chat's record.

        Raises ``SessionNotFound``, and ``FileNotFound`` and ``ValidationFailed``, so that Coze is not asked
        in vain.
        """
        if not is_session_id(session_id):
            raise SessionNotFound
        prompt = Prompt(
            message=body.message,
            additional_messages=[
                EnterMessage(each.role, each.content, each.content_type, each.type, each.meta_data)
                for each in body.additional_messages or ()
            ],
            custom_variables=body.custom_variables,
            meta_data=body.meta_data or {},
            parameters=dict(body.parameters) if body.parameters is not None else None,
        )
        sent = await self._attach(identity, session_id, body, prompt) if carries_files(body) else []
        return draft_of(session_id, prompt, sent, notes)

    async def _attach(
        self, identity: Identity, session_id: str, body: SendMessage, prompt: Prompt
    ) -> list[SentAttachment]:
        """Puts the files into the prompt; returns them as the chat's record tells of them, with our ids."""
        items = [
            orjson.loads(each.content) if each.content_type == "object_string" else []
            for each in prompt.additional_messages
        ]
        ids = [attachment.file_id for attachment in body.attachments or () if attachment.file_id is not None]
        ids += [item["file_id"] for several in items for item in several if item.get("file_id")]
        # What parameters are is the bot's to say: they stay as they are, but no file in them is another's.
        ids += [named_file_id(identity.owner, named) for named in body.files_in_parameters]
        if len(ids) > MAX_FILES:
            raise wrong_field("additional_messages", f"at most {MAX_FILES} files are named in one request")
        session, _, _ = await self._sessions.read(session_id, identity, history=0, touch=False)
        known = await self._known(identity, session, list(dict.fromkeys(ids)))
        sent = [_sent(place, each, known) for place, each in enumerate(body.attachments or ())]
        if sent:
            text = [{"type": "text", "text": body.message}] if body.message.strip() else []
            if not text and not body.says_it_without_words({each.type for each in sent}):
                raise wrong_field("message", "is needed with images and files; only speech does without")
            prompt.content = orjson.dumps([*text, *(_item(each, known) for each in sent)]).decode()
        prompt.additional_messages = [
            _with_coze_ids(message, several, known)
            for message, several in zip(prompt.additional_messages, items, strict=True)
        ]
        prompt.credential = next((record.credential for record in known.values()), "")
        return sent

    async def _known(
        self, identity: Identity, session: SessionRecord, ids: Sequence[str]
    ) -> dict[str, FileRecord]:
        if not ids:
            return {}
        records = await self._files.find(ids, identity)
        if any(record.user_id and record.user != session.text(b"user") for record in records):
            raise FileNotFound  # another end user's
        if len({record.credential for record in records} | ({session.credential} - {""})) > 1:
            # At Coze a file is only there for the identity that uploaded it.
            raise wrong_field(
                "attachments", "a file was uploaded for another session: upload it with this session_id"
            )
        return {record.file_id: record for record in records}


def bytes_of(body: SendMessage) -> int:
    """Of what is asked, with what was said before. Other letters than ASCII's count as three."""
    texts = [body.message, *(message.content for message in body.additional_messages or ())]
    return sum(len(text) * (1 if text.isascii() else 3) for text in texts)


def carries_files(body: SendMessage) -> bool:
    """Whether the message has attachments, or may have files in its ``additional_messages``, or names some in
    its parameters."""
    return bool(body.attachments or body.files_in_parameters) or any(
        message.content_type == "object_string" for message in body.additional_messages or ()
    )


def _sent(place: int, attachment: Attachment, known: dict[str, FileRecord]) -> SentAttachment:
    if attachment.file_id is None:
        return SentAttachment(type=attachment.type or "file", file_url=attachment.file_url)
    record = known[attachment.file_id]
    if attachment.type not in (None, "file", record.type):
        raise wrong_field(f"attachments.{place}.type", f"the file is of the type {record.type}")
    return SentAttachment(
        type=attachment.type or record.type, file_id=record.file_id, file_name=record.name, mime=record.mime
    )


def _item(sent: SentAttachment, known: dict[str, FileRecord]) -> dict[str, str]:
    if sent.file_id is None:
        return {"type": sent.type, "file_url": sent.file_url or ""}
    return {"type": sent.type, "file_id": known[sent.file_id].coze_id}


def _with_coze_ids(
    message: EnterMessage, items: list[dict[str, str]], known: dict[str, FileRecord]
) -> EnterMessage:
    if not items:
        return message
    for item in items:
        if item.get("file_id"):
            item["file_id"] = known[item["file_id"]].coze_id
    return msgspec.structs.replace(message, content=orjson.dumps(items).decode())
