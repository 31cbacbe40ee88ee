"""How routes answer with a stream."""

from fastapi import Response

from app.factory import Resources
from app.models import Identity
from app.sse import EventStream
from app.tasks import ChatFeed


def stream(feed: ChatFeed, chat_id: str, identity: Identity, resources: Resources) -> Response:
    return EventStream(
        feed,
        chat_id=chat_id,
        heartbeat=resources.settings.heartbeat_seconds,
        farewell=resources.tasks.farewell,
        on_close=resources.streams.take(identity.owner),
    )
