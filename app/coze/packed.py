"""Answers of Coze's that come compressed: unpacked in pieces of a bounded size, since a kilobyte may hold a
megabyte."""

import asyncio
import zlib
from collections.abc import AsyncIterable, AsyncIterator
from typing import Final

import httpx

_MOST_AT_ONCE: Final = 256 * 1024
_PLAIN: Final = frozenset({"", "identity"})
_KNOWN: Final = frozenset({"gzip", "x-gzip", "deflate"})
_GZIP_OR_ZLIB: Final = 32 + zlib.MAX_WBITS


async def unpacked(stream: AsyncIterable[bytes], encoding: str) -> AsyncIterator[bytes]:
    """What is in ``stream``.

    Args:
        stream: as it arrives.
        encoding: the header Content-Encoding.

    Raises:
        httpx.DecodingError: it is packed twice, in another way than we have asked for, or broken.
    """
    kind = encoding.strip().lower()
    if kind not in _KNOWN | _PLAIN:
        raise httpx.DecodingError("the answer is compressed in a way that was not asked for")
    unpack = zlib.decompressobj(_GZIP_OR_ZLIB)
    async for chunk in stream:
        if kind in _PLAIN:
            yield chunk
            continue
        left = chunk
        try:
            while piece := unpack.decompress(left, _MOST_AT_ONCE):
                yield piece
                left = unpack.unconsumed_tail
                await asyncio.sleep(0)  # what one read has brought may hold a thousand of them
        except zlib.error as error:
            raise httpx.DecodingError("the answer is not what its Content-Encoding says") from error
