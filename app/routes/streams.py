"""How routes answer with a stream."""

from fastapi import Response

from app.dependencies import Resources
from app.models import Identity
from app.sse import EventStream
from app.tasks.reader import Reader


def stream(reader: Reader, chat_id: str, identity: Identity, resources: Resources) -> Response:
    return EventStream(
        reader,
        chat_id=chat_id,
        heartbeat=resources.settings.heartbeat_seconds,
        shutdown=resources.shutdown,
        on_close=resources.streams.take(identity.owner),
    )
