"""How routes answer with a stream."""

from fastapi import Response

from app.dependencies import Resources
from app.sse import EventStream
from app.tasks import ChatFeed


def stream(feed: ChatFeed, chat_id: str, resources: Resources) -> Response:
    return EventStream(
        feed,
        chat_id=chat_id,
        heartbeat=resources.settings.heartbeat_seconds,
        farewell=resources.tasks.farewell,
    )
