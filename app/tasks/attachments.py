"""What a message brings along, from our ids to Coze's: resolved when it is sent, so that a queue or another
replica needs nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import orjson

from app.coze import EnterMessage
from app.exceptions import FileNotFound, ValidationFailed
from app.models import Attachment, FileType, Identity, SendMessage, SentAttachment
from app.models import EnterMessage as SentMessage
from app.stores.files import FileRecord, FileStore
from app.stores.sessions import SessionRecord, SessionStore


@dataclass(frozen=True, slots=True)
class Resolved:
    """What goes along with a message, resolved.

    Attributes:
        content: the message as Coze's object_string; empty for plain text.
        messages: the ``additional_messages`` with Coze's ids; empty where they are as they were.
        credential: name of the identity at Coze that the files belong to.
    """

    content: str = ""
    messages: list[EnterMessage] = field(default_factory=list)
    credential: str = ""
    shown: list[SentAttachment] = field(default_factory=list)
    """The attachments as the chat's record tells of them, with our ids."""


PLAIN = Resolved()


class Attachments:
    def __init__(self, files: FileStore, sessions: SessionStore) -> None:
        self._files = files
        self._sessions = sessions

    async def of(self, identity: Identity, session_id: str, body: SendMessage) -> Resolved:
        """Resolves what ``body`` links to; a message of text alone costs nothing here.

        Raises:
            FileNotFound: a file is not the caller's, or another end user's.
            ValidationFailed: what Coze would refuse.
        """
        if body.attachments or any(m.content_type == "object_string" for m in body.additional_messages or ()):
            session, _, _ = await self._sessions.read(session_id, identity, history=0, touch=False)
            return await self._resolve(identity, session, body)
        return PLAIN

    async def _resolve(self, identity: Identity, session: SessionRecord, body: SendMessage) -> Resolved:
        attachments = body.attachments or []
        objects = [
            orjson.loads(message.content) if message.content_type == "object_string" else []
            for message in body.additional_messages or ()
        ]
        ids = [attachment.file_id for attachment in attachments if attachment.file_id is not None]
        ids += [item["file_id"] for items in objects for item in items if item.get("file_id")]
        known = await self._known(identity, session, list(dict.fromkeys(ids)))
        types = [_type(place, attachment, known) for place, attachment in enumerate(attachments)]
        items = [_item(kind, attachment, known) for kind, attachment in zip(types, attachments, strict=True)]
        if items and not body.message.strip() and not body.says_it_without_words({*types}):
            raise _fault("message", "is needed with images and files; only speech does without")
        content = ""
        if items:
            text = [{"type": "text", "text": body.message}] if body.message.strip() else []
            content = orjson.dumps([*text, *items]).decode()
        return Resolved(
            content,
            _with_coze_ids(body, objects, known) if any(objects) else [],
            next((record.credential for record in known.values()), ""),
            [_shown(kind, a, known) for kind, a in zip(types, attachments, strict=True)],
        )

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
            raise _fault(
                "attachments", "a file was uploaded for another session: upload it with this session_id"
            )
        return {record.file_id: record for record in records}


def _type(place: int, attachment: Attachment, known: dict[str, FileRecord]) -> FileType:
    if attachment.file_id is None:
        return attachment.type or "file"
    found = known[attachment.file_id].type
    if attachment.type not in (None, "file", found):
        raise _fault(f"attachments.{place}.type", f"the file is of the type {found}")
    return attachment.type or found


def _item(kind: FileType, attachment: Attachment, known: dict[str, FileRecord]) -> dict[str, str]:
    if attachment.file_id is None:
        return {"type": kind, "file_url": attachment.file_url or ""}
    return {"type": kind, "file_id": known[attachment.file_id].coze_id}


def _shown(kind: FileType, attachment: Attachment, known: dict[str, FileRecord]) -> SentAttachment:
    record = known.get(attachment.file_id or "")
    return SentAttachment(
        type=kind,
        file_id=attachment.file_id,
        file_url=attachment.file_url,
        file_name=record.name if record else None,
        mime=record.mime if record else None,
    )


def _with_coze_ids(
    body: SendMessage, objects: list[list[dict[str, str]]], known: dict[str, FileRecord]
) -> list[EnterMessage]:
    messages = []
    for message, items in zip(body.additional_messages or (), objects, strict=True):
        for item in items:
            if item.get("file_id"):
                item["file_id"] = known[item["file_id"]].coze_id
        messages.append(entered(message, orjson.dumps(items).decode() if items else ""))
    return messages


def entered(message: SentMessage, content: str = "") -> EnterMessage:
    """One of the ``additional_messages`` as it goes to Coze; ``content`` in place of its own."""
    return EnterMessage(
        message.role, content or message.content, message.content_type, message.type, message.meta_data
    )


def _fault(name: str, message: str) -> ValidationFailed:
    return ValidationFailed(details={"fields": [{"field": name, "message": message}]})
