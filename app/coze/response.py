"""One answer of Coze, from its headers on: bytes as they come, or JSON within its time and size."""

import asyncio
import contextlib

from app.coze.arriving import Answer, Take
from app.coze.deadline import Deadline
from app.coze.options import CozeOptions
from app.coze.replies import Head, Reply, read_reply
from app.coze.transport import NETWORK_ERRORS, network_error
from app.exceptions import CozeApiError, CozeTimeout


class CozeResponse:
    """The answer to one request, from its headers on. Always ``close`` it.

    ``late_at`` is the loop's time at which the first byte of a stream, or the end of a JSON answer, is late.
    """

    def __init__(self, answer: Answer, options: CozeOptions, late_at: float) -> None:
        self.head = Head.of(answer.status, answer.headers)
        self.options = options
        self.late_at = late_at
        self._answer = answer

    async def read(self) -> bytes:
        """The next bytes of the body, none at its end; whoever reads holds the deadline.

        Raises:
            CozeApiError: the connection broke.
        """
        try:
            return await self._answer.read()
        except NETWORK_ERRORS as error:
            raise network_error(error, self.options.connect_timeout, self.head) from error

    async def push(self, take: Take) -> None:
        """As ``Answer.push``."""
        await self._answer.push(take)

    async def read_json(self, before: bytes = b"") -> Reply:
        """The answer of a JSON call, of which ``before`` was read already.

        An error's body is read as far as ``max_error_bytes`` and no further.

        Raises:
            CozeTimeout: it was not complete before ``late_at``.
            CozeApiError: the connection broke, or a success is larger than ``max_json_bytes``.
            UpstreamError: what ``read_reply`` raises.
        """
        success = self.head.is_success
        limit = self.options.max_json_bytes if success else self.options.max_error_bytes
        body: bytes | bytearray = bytearray(before)
        async with Deadline(self.late_at, self._incomplete):
            while len(body) <= limit and (chunk := await self.read()):
                body += chunk
        if len(body) > limit and success:
            raise CozeApiError(f"Coze's answer is larger than {limit} bytes", logid=self.head.logid)
        return read_reply(self.head, bytes(body[:limit]))

    def _incomplete(self) -> CozeTimeout:
        seconds = self.options.first_byte_timeout
        text = f"Coze's answer was not complete within {seconds:g} s (COZE_FIRST_BYTE_TIMEOUT)"
        return CozeTimeout(text, logid=self.head.logid, maybe_started=True)

    def no_first_byte(self) -> CozeTimeout:
        return no_first_byte(self.options, self.head.logid)

    async def drain(self) -> None:
        """Reads on after a stream's own end, so that its connection goes back to the pool: what is missing
        is mostly just the last, empty chunk."""
        try:
            async with asyncio.timeout(self.options.drain_timeout):
                while await self._answer.read():
                    pass
        except NETWORK_ERRORS:
            return  # the answer is complete; only the connection is lost

    async def close(self) -> None:
        """Gives the connection back to the pool where the answer was read to its end; else drops it."""
        with contextlib.suppress(*NETWORK_ERRORS):
            await self._answer.close()


def no_first_byte(options: CozeOptions, logid: str | None = None) -> CozeTimeout:
    """The error of an answer that does not begin."""
    text = f"Coze sent nothing within {options.first_byte_timeout:g} s (COZE_FIRST_BYTE_TIMEOUT)"
    return CozeTimeout(text, logid=logid, maybe_started=True)
