"""What goes on to Coze for a caller, beside chats, new sessions and files: each call takes a token."""

from app.coze.client import CozeClient
from app.stores.rates import RateStore
from app.stores.sessions import SessionRecord


class CozeForCallers:
    """The way to Coze for services whose calls are not counted otherwise: they are given this, and no client
    of Coze's, so that no call of theirs can go without a token."""

    def __init__(self, coze: CozeClient, rates: RateStore) -> None:
        self._coze = coze
        self._rates = rates

    async def for_session(self, session: SessionRecord) -> CozeClient:
        """For one call about the session's conversation. Raises ``RateLimited``."""
        return await self.for_user(session.owner, session.text(b"user"), session.credential)

    async def for_user(self, owner: str, user: str, credential: str) -> CozeClient:
        """For one call about what the user has at Coze. ``user``: as the indexes name him. Raises
        ``RateLimited``."""
        await self._rates.take("calls", owner, user)
        return self._coze.using(credential, owner)
