"""The only code that knows Coze's wire.

``CozeClient`` makes the calls, ``Fold`` makes an answer of a stream's events, ``frame`` makes bytes of an
event. All failures are ``app.exceptions.UpstreamError``.
"""

from app.coze.api import CozeApi
from app.coze.client import CozeClient, Section
from app.coze.codes import coze_error
from app.coze.files import CozeFile
from app.coze.fold import ANSWER_SEPARATOR, DELTA, Fold
from app.coze.options import CozeOptions, Credentials
from app.coze.stream import CozeStream, SSEDecoder, SSEEvent, StreamTooLarge, frame
from app.coze.transport import PooledClient, TransportName, build_http_client
from app.coze.wire import (
    ENDED,
    TERMINAL,
    ChatRequest,
    ChatState,
    Endpoints,
    EnterMessage,
    Message,
    MessagePage,
    Status,
    Usage,
)

__all__ = [
    "ANSWER_SEPARATOR",
    "DELTA",
    "ENDED",
    "TERMINAL",
    "ChatRequest",
    "ChatState",
    "CozeApi",
    "CozeClient",
    "CozeFile",
    "CozeOptions",
    "CozeStream",
    "Credentials",
    "Endpoints",
    "EnterMessage",
    "Fold",
    "Message",
    "MessagePage",
    "PooledClient",
    "SSEDecoder",
    "SSEEvent",
    "Section",
    "Status",
    "StreamTooLarge",
    "TransportName",
    "Usage",
    "build_http_client",
    "coze_error",
    "frame",
]
