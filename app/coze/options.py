"""What the Coze client is given: addresses, deadlines, bounds, and where its token comes from."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from app.coze.stream import DEFAULT_MAX_EVENT_BYTES, DEFAULT_MAX_STREAM_BYTES
from app.coze.wire import Endpoints
from app.exceptions import CozeApiError, UpstreamError


@dataclass(frozen=True, slots=True, kw_only=True)
class CozeOptions:
    """Deadlines and ``poll_interval`` are in seconds.

    ``first_byte_timeout``: from the request to the first byte of a stream, or to the whole of a JSON answer.
    ``idle_timeout``: between two reads of a stream. ``chat_timeout``: see ``CozeClient.chat_deadline``.
    ``max_retries``: how often one request is sent again at most. ``drain_timeout``: how long a finished
    stream is read on for its last bytes, so that its connection can be used again.
    """

    endpoints: Endpoints
    connect_timeout: float = 5.0
    first_byte_timeout: float = 60.0
    idle_timeout: float = 120.0
    chat_timeout: float = 600.0
    max_retries: int = 3
    poll_interval: float = 1.0
    drain_timeout: float = 0.2
    max_event_bytes: int = DEFAULT_MAX_EVENT_BYTES
    max_stream_bytes: int = DEFAULT_MAX_STREAM_BYTES
    max_json_bytes: int = 16 * 1024 * 1024
    max_error_bytes: int = 64 * 1024
    max_messages: int = 1_000


class Credentials(Protocol):
    """Where the token comes from."""

    async def bearer(self, conversation_id: str | None) -> str:
        """The token alone, without ``Bearer``, for a call about this conversation."""
        ...


@runtime_checkable
class RenewableCredentials(Credentials, Protocol):
    """Credentials that may have a newer token than the one Coze refused."""

    async def refused(self, bearer: str) -> bool:
        """Told once per call that Coze did not accept ``bearer``; True: ask ``bearer`` again, it differs."""
        ...


@runtime_checkable
class OwnedCredentials(RenewableCredentials, Protocol):
    """The credentials of one conversation, or of the one that is about to be made."""

    @property
    def name(self) -> str:
        """Whose the conversation is, as ``SharedCredentials.of`` takes it."""
        ...

    def failed(self, error: UpstreamError) -> bool:
        """Told of every failure; True: ask ``bearer`` again, it is another identity's turn."""
        ...


@runtime_checkable
class SharedCredentials(Credentials, Protocol):
    """Several identities at Coze. A conversation is only seen by the one that made it."""

    def of(self, name: str) -> OwnedCredentials:
        """Those of a conversation; ``""``: of one that is still to be made."""
        ...


class Bearer:
    """A token on its way into a header. Wherever it is shown, as in a traceback with variables, it hides."""

    __slots__ = ("_token",)

    def __init__(self, token: str) -> None:
        self._token = token

    def __repr__(self) -> str:
        return "Bearer(hidden)"

    def reveal(self) -> str:
        return self._token

    def header(self) -> str:
        """The value of ``Authorization``. Raises ``CozeApiError`` for what cannot be in a header."""
        if not self._token or not self._token.isascii() or not self._token.isprintable():
            # Said here without its value: the HTTP library's own error would quote it.
            raise CozeApiError(
                "The Coze token is empty or has characters that no token has",
                hint="Check COZE_API_TOKEN.",
                maybe_started=False,
            )
        return f"Bearer {self._token}"


class StaticCredentials:
    """One token that never changes. It does not show in ``repr``."""

    __slots__ = ("_token",)

    def __init__(self, token: str) -> None:
        self._token = token

    async def bearer(self, conversation_id: str | None) -> str:
        return self._token
