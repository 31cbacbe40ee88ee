"""What the Coze client is given: addresses, deadlines, bounds, and a token on its way into a header."""

from dataclasses import dataclass
from typing import Final

from app.coze.wire import Endpoints
from app.exceptions import CozeApiError

MAX_EVENT_BYTES: Final = 4 * 1024 * 1024
MAX_STREAM_BYTES: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class CozeOptions:
    """Timeouts and ``poll_interval`` are in seconds.

    Attributes:
        endpoints: Coze's addresses.
        connect_timeout: until there is a connection, the wait for a free one in the pool included.
        first_byte_timeout: from the request to the first byte of a stream, or to the whole of a JSON answer.
        idle_timeout: between two reads of a stream.
        max_retries: how often one request is sent again at most.
        poll_interval: between two looks at a chat that is not streamed; see ``CozeClient.poll_chat``.
        drain_timeout: how long a finished stream is read on for its last bytes, so that its connection can
            be used again.
        max_event_bytes: of one event of a stream.
        max_stream_bytes: of a whole stream.
        max_json_bytes: of a JSON answer.
        max_error_bytes: how much is read of an error's body.
        max_messages: in one list of messages.
    """

    endpoints: Endpoints
    connect_timeout: float = 5.0
    first_byte_timeout: float = 60.0
    idle_timeout: float = 120.0
    max_retries: int = 3
    poll_interval: float = 1.0
    drain_timeout: float = 0.2
    max_event_bytes: int = MAX_EVENT_BYTES
    max_stream_bytes: int = MAX_STREAM_BYTES
    max_json_bytes: int = 16 * 1024 * 1024
    max_error_bytes: int = 64 * 1024
    max_messages: int = 1_000


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
        """The value of ``Authorization``.

        Raises:
            CozeApiError: the token cannot be in a header.
        """
        if not self._token or not self._token.isascii() or not self._token.isprintable():
            # Said here without its value: the HTTP library's own error would quote it.
            raise CozeApiError(
                "The Coze token is empty or has characters that no token has",
                hint="Check COZE_API_TOKEN.",
                maybe_started=False,
            )
        return f"Bearer {self._token}"
