"""The call to the auth service: yes, no, or no answer at all."""

import asyncio
from typing import Final

import httpx
import orjson

from app.auth.bounds import CannotAsk, NoAnswerInTime
from app.auth.options import AuthOptions
from app.utils.certificates import certificate_fault

_MAX_ANSWER: Final = 64 * 1024
_CONNECTION_ERRORS: Final = (httpx.NetworkError, httpx.RemoteProtocolError)
"""Nothing, or nothing whole, came back. A kept connection that the server just closed is the usual case."""


class AuthService:
    """``http`` is the client of ``build_auth_client`` and stays the caller's to close."""

    def __init__(self, http: httpx.AsyncClient, options: AuthOptions) -> None:
        self._http = http
        self._options = options

    async def accepts(self, token: str, root: str) -> bool:
        """The service's yes or no to ``token``, within ``options.timeout``.

        Raises:
            NoAnswerInTime: that is over.
            CannotAsk: no connection, or an answer that is neither yes nor no.
        """
        try:
            async with asyncio.timeout(self._options.timeout):
                return await self._ask(token, root)
        except (TimeoutError, httpx.TimeoutException):
            raise NoAnswerInTime(f"no answer within {self._options.timeout:g} s (AUTH_TIMEOUT)") from None
        except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL) as error:
            # Only its kind: texts of the HTTP library can quote headers, and so the token.
            raise CannotAsk(certificate_fault(error) or type(error).__name__) from None

    async def _ask(self, token: str, root: str) -> bool:
        try:
            return await self._post(token, root)
        except _CONNECTION_ERRORS:
            return await self._post(token, root)  # asking twice changes nothing at the service

    async def _post(self, token: str, root: str) -> bool:
        headers = {
            "Authorization": token,  # as it came: the service knows no "Bearer"
            "HtyHost": f"admin.{root}",
            "Accept": "application/json",
            "Accept-Encoding": "identity",  # a few bytes of gzip may be gigabytes
        }
        async with self._http.stream("POST", self._options.url_of(root), headers=headers) as response:
            if response.status_code == httpx.codes.UNAUTHORIZED:
                return False
            if response.status_code != httpx.codes.OK:
                raise CannotAsk(f"HTTP {response.status_code}")
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise CannotAsk("the answer is compressed, which was not asked for")
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > _MAX_ANSWER:
                    raise CannotAsk("the answer is too long")
        return _verdict(bytes(body))


def _verdict(body: bytes) -> bool:
    """``r`` of the envelope. Raises CannotAsk unless it is a boolean."""
    try:
        envelope = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise CannotAsk("the answer is not JSON") from None
    verdict = envelope.get("r") if isinstance(envelope, dict) else None
    if not isinstance(verdict, bool):
        raise CannotAsk("the answer says neither yes nor no")
    return verdict
