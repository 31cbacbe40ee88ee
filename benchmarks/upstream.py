"""The upstream: Coze's and OpenAI's wire from prepared bytes, on a bare asyncio protocol.

Not ASGI: under uvicorn it would be as slow as some that it is to measure. ``python -m benchmarks.upstream``
prints its port. ``POST /_bench {"n": 100, "gap": 0.02}`` sets how many deltas follow at how many seconds
(and with ``"chars": 4`` how many characters of text each has besides its mark); ``GET /_bench`` counts. Each
delta is written by itself, as Coze's server does with a token of the model: a reader is woken for each of
them, unless it is so slow that the next ones are there already. With a gap they come as ``PACE_VARIES`` has
it; with gap 0 one after the other, as fast as this process can write.
``/hty/verify`` says yes to every token.
"""

import argparse
import asyncio
import itertools
import json
import random
import re
import time
from typing import Final, cast
from urllib.parse import parse_qs, urlsplit

import uvloop

from benchmarks import wire
from benchmarks.processes import raise_file_limit

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_FIRST_ID: Final = 7_380_000_000_000_000_000
_CONVERSATION: Final = re.compile(rb"conversation_id=(\d{19})")

PACE_VARIES: Final = (0.5, 1.5)
"""Each gap is the one that was asked for, times a random number between these two. Without that, streams
which began together would stay together, and one wake-up of a server would do for the deltas of all."""


class Upstream:
    """What all connections share. ``gap`` in seconds."""

    def __init__(self) -> None:
        self.ids = itertools.count(_FIRST_ID)
        self.counts = {"chats": 0, "finished": 0, "conversations": 0, "verified": 0, "other": 0}
        self.finished: dict[str, tuple[float, bytes]] = {}
        """Chats that are polled: when each ends (``time.monotonic``), and its answer."""
        self._chance = random.Random(1)
        self.set(100, 0.0)

    def set(self, n: int, gap: float, chars: int = 0) -> None:
        self.n, self.gap, self.texts = n, gap, wire.texts(n, chars)
        self.coze, self.openai = wire.CozeStream(n, chars), wire.OpenAIStream(n)
        self.answer = b"".join(wire.mark(i) + text for i, text in enumerate(self.texts))

    def next_gap(self, gap: float) -> float:
        """Seconds until the next delta."""
        return gap * self._chance.uniform(*PACE_VARIES)

    def new_id(self) -> bytes:
        return b"%d" % next(self.ids)


class Connection(asyncio.Protocol):
    def __init__(self, upstream: Upstream) -> None:
        self._up = upstream
        self._loop = asyncio.get_running_loop()
        self._pending = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class

    def data_received(self, data: bytes) -> None:
        self._pending = self._pending + data if self._pending else data
        while True:
            end = self._pending.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self._pending[:end]
            length = _LENGTH.search(head)
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(self._pending) < whole:
                return
            body, self._pending = self._pending[end + 4 : whole], self._pending[whole:]
            method, target, _ = head.split(b" ", 2)
            self._request(method, target, body)

    def _request(self, method: bytes, target: bytes, body: bytes) -> None:
        path = target.partition(b"?")[0]
        if path == b"/v3/chat":
            self._chat(target, body)
        elif path == b"/v1/chat/completions":
            self._start(self._up.openai, self._up.new_id())
        elif path == b"/v1/conversation/create":
            self._up.counts["conversations"] += 1
            created = {"id": self._up.new_id().decode(), "created_at": 1_735_700_000, "meta_data": {}}
            self._json({"code": 0, "msg": "", "data": created})
        elif path == b"/hty/verify":
            self._up.counts["verified"] += 1
            self._json({"r": True, "d": None, "e": None, "hty_err": None})
        elif path == b"/_bench":
            if method == b"POST":
                self._up.set(**json.loads(body))
            self._json(self._up.counts)
        else:
            self._polled(path, target)

    # -- chats -------------------------------------------------------------------------------------------

    def _chat(self, target: bytes, body: bytes) -> None:
        given = _CONVERSATION.search(target)
        conversation = given[1] if given else self._up.new_id()
        if b'"stream":true' in body or b'"stream": true' in body:
            self._start(self._up.coze, conversation)
            return
        chat, ends = self._up.new_id(), time.monotonic() + self._up.n * self._up.gap
        answer = self._up.answer.replace(wire.STAMP, wire.stamp_of(ends))
        self._up.counts["chats"] += 1
        self._up.finished[chat.decode()] = (ends, answer)
        self._json({"code": 0, "msg": "", "data": self._chat_object("in_progress", chat, conversation)})

    def _chat_object(self, status: str, chat: bytes, conversation: bytes) -> dict[str, object]:
        ids = {"id": chat.decode(), "conversation_id": conversation.decode()}
        return wire.coze_chat(status, self._up.n) | ids

    def _polled(self, path: bytes, target: bytes) -> None:
        """Retrieve and message/list of a chat that is not streamed; anything else is a 404."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(target.decode()).query).items()}
        chat = query.get("chat_id", "")
        if chat not in self._up.finished:
            self._up.counts["other"] += 1
            self._json({"code": 4001, "msg": "no such chat " + target.decode()})
            return
        ends, answer = self._up.finished[chat]
        ids = (chat.encode(), query["conversation_id"].encode())
        if path == b"/v3/chat/retrieve":
            status = "completed" if time.monotonic() >= ends else "in_progress"
            self._json({"code": 0, "msg": "", "data": self._chat_object(status, *ids)})
        else:
            del self._up.finished[chat]
            self._json({"code": 0, "msg": "", "data": [wire.coze_message("answer", answer)]})

    def _start(self, stream: "wire.CozeStream | wire.OpenAIStream", conversation: bytes) -> None:
        self._up.counts["chats"] += 1
        ids = (
            (wire.CHAT, self._up.new_id()),
            (wire.CONVERSATION, conversation),
            (wire.MESSAGE, self._up.new_id()),
        )
        Answer(self._up, self._transport, stream, ids).begin()

    def _json(self, value: object) -> None:
        body = wire.dumps(value)
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-tt-logid: 20260101000000AB\r\n"
        self._transport.write(head + b"content-length: %d\r\n\r\n" % len(body) + body)


Ids = tuple[tuple[bytes, bytes], ...]


def _with_ids(data: bytes, ids: Ids) -> bytes:
    for stand_in, value in ids:
        data = data.replace(stand_in, value)
    return data


class Answer:
    """A streamed answer: its head, each delta and its tail are written in turns of the loop of their own.

    uvloop sends what is written in one turn together, and at once (TCP_NODELAY). The first delta follows its
    head at once, the tail the last delta; a delta that is late does not make the next ones hurry.
    """

    def __init__(
        self,
        upstream: Upstream,
        transport: asyncio.Transport,
        stream: "wire.CozeStream | wire.OpenAIStream",
        ids: Ids,
    ) -> None:
        self._up, self._gap, self._transport = upstream, upstream.gap, transport
        self._stream, self._ids = stream, ids
        self._texts = upstream.texts
        self._loop = asyncio.get_running_loop()
        self._marks: list[bytes] = []
        self._due = 0.0

    def begin(self) -> None:
        self._transport.write(wire.STREAM_HEAD + _with_ids(self._stream.head, self._ids))
        self._due = self._loop.time()
        self._loop.call_soon(self._delta)

    def _delta(self) -> None:
        if self._transport.is_closing():
            return
        number = len(self._marks)
        stamp = wire.stamp_of(time.monotonic())
        self._marks.append(wire.mark(number, stamp) + self._texts[number])
        piece = self._stream.deltas[number].replace(wire.STAMP, stamp)
        self._transport.write(_with_ids(piece, self._ids))
        if number + 1 == len(self._stream.deltas):
            self._loop.call_soon(self._tail)
        elif self._gap:
            self._due = max(self._due + self._up.next_gap(self._gap), self._loop.time())
            self._loop.call_at(self._due, self._delta)
        else:
            self._loop.call_soon(self._delta)

    def _tail(self) -> None:
        self._up.counts["finished"] += 1
        self._transport.write(_with_ids(self._stream.tail(b"".join(self._marks)), self._ids))


async def serve(port: int) -> None:
    upstream = Upstream()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(upstream), "127.0.0.1", port, backlog=8192)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    raise_file_limit()
    uvloop.run(serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
