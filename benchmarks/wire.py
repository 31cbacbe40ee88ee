"""What the upstream says, byte for byte, and how the driver recognises it.

Every delta's content is a mark ``#<number>@<microseconds of time.monotonic when it was sent>``: all three
processes are on one machine and share that clock.
"""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any, Final

BOT_ID: Final = "7380000000000000009"
CHAT: Final = b"7000000000000000001"
CONVERSATION: Final = b"7000000000000000002"
MESSAGE: Final = b"7000000000000000003"
STAMP: Final = b"@9000000000000"
"""Stand-ins in the prepared bytes; each is replaced by one of the same length."""

_MARK: Final = rb'"content":\s?"#(\d{5})@(\d{13})'
DELTAS: Final = {
    "coze": re.compile(rb"event: ?conversation\.message\.delta\ndata: ?[^\n]*?" + _MARK),
    "openai": re.compile(rb"data: [^\n]*?" + _MARK),
    "text": re.compile(rb"#(\d{5})@(\d{13})"),  # one frame may hold several
}
"""The deltas in a piece of a stream that ends with a whole frame, by the dialect of the answer."""

MARKS: Final = re.compile(rb"#(\d{5})@(\d{13})")
"""The marks in an answer that was not streamed."""

STREAM_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nx-tt-logid: 20260101000000AB\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
LAST_CHUNK: Final = b"0\r\n\r\n"


def dumps(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def mark(number: int, stamp: bytes = STAMP) -> bytes:
    return b"#%05d" % number + stamp


@cache
def _prose() -> str:
    """Chinese as people write it: what compresses like an answer."""
    pages = sorted((Path(__file__).parents[1] / "docs" / "zh").glob("[a-b]*.md"))
    whole = "".join(page.read_text(encoding="utf-8") for page in pages)
    return "".join(re.findall("[\u4e00-\u9fff，。]", whole))


def texts(n: int, chars: int) -> list[bytes]:
    """What follows the mark of each of ``n`` deltas: ``chars`` characters of prose, UTF-8."""
    prose = _prose() if chars else ""
    count = n * chars // max(1, len(prose)) + 1
    whole = prose * count
    return [whole[i * chars : (i + 1) * chars].encode() for i in range(n)]


def stamp_of(moment: float) -> bytes:
    """Of a ``time.monotonic()``."""
    return b"@%013d" % int(moment * 1_000_000)


def chunk(data: bytes) -> bytes:
    """One chunk of HTTP's chunked encoding: what a server makes of one send."""
    return b"%x\r\n" % len(data) + data + b"\r\n"


def _frame(event: bytes, data: bytes) -> bytes:
    return b"event:" + event + b"\ndata:" + data + b"\n\n"


def coze_chat(status: str, n: int) -> dict[str, Any]:
    usage = {"token_count": n + 20, "output_count": n, "input_count": 20}
    done = status == "completed"
    return {
        "id": CHAT.decode(),
        "conversation_id": CONVERSATION.decode(),
        "bot_id": BOT_ID,
        "created_at": 1_735_700_000,
        **({"completed_at": 1_735_700_004} if done else {}),
        "last_error": {"code": 0, "msg": ""},
        "status": status,
        "usage": usage if done else {"token_count": 0, "output_count": 0, "input_count": 0},
    }


def coze_message(kind: str, content: bytes) -> dict[str, Any]:
    return {
        "id": MESSAGE.decode(),
        "conversation_id": CONVERSATION.decode(),
        "bot_id": BOT_ID,
        "role": "assistant",
        "type": kind,
        "content": content.decode(),
        "content_type": "text",
        "chat_id": CHAT.decode(),
        "section_id": CONVERSATION.decode(),
    }


def _finish() -> bytes:
    inner = dumps({"finish_reason": 0, "FinData": ""}).decode()
    return dumps({"msg_type": "generate_answer_finish", "data": inner, "from_module": None})


class CozeStream:
    """A chat's frames in Coze's order: ``head``, ``deltas``, and ``tail`` around the whole answer."""

    def __init__(self, n: int, chars: int = 0) -> None:
        event = b"conversation.chat."
        self.head = chunk(_frame(event + b"created", dumps(coze_chat("created", n)))) + chunk(
            _frame(event + b"in_progress", dumps(coze_chat("in_progress", n)))
        )
        self.deltas = [
            chunk(_frame(b"conversation.message.delta", dumps(coze_message("answer", mark(i) + text))))
            for i, text in enumerate(texts(n, chars))
        ]
        self._after = (
            chunk(_frame(b"conversation.message.completed", dumps(coze_message("verbose", _finish()))))
            + chunk(_frame(event + b"completed", dumps(coze_chat("completed", n))))
            + chunk(_frame(b"done", b'"[DONE]"'))
            + LAST_CHUNK
        )

    def tail(self, answer: bytes) -> bytes:
        whole = _frame(b"conversation.message.completed", dumps(coze_message("answer", answer)))
        return chunk(whole) + self._after


class OpenAIStream:
    """The same answer as an OpenAI-compatible server streams it."""

    def __init__(self, n: int) -> None:
        self.head = self._piece({"role": "assistant", "content": ""})
        self.deltas = [self._piece({"content": mark(i).decode()}) for i in range(n)]
        self._tail = self._piece({}, "stop") + chunk(b"data: [DONE]\n\n") + LAST_CHUNK

    def tail(self, _answer: bytes) -> bytes:
        return self._tail

    @staticmethod
    def _piece(delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        body = {
            "id": "chatcmpl-" + CHAT.decode(),
            "object": "chat.completion.chunk",
            "created": 1_735_700_000,
            "model": "bench",
            "choices": [choice],
        }
        return chunk(b"data: " + dumps(body) + b"\n\n")
