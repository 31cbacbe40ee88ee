"""Coze's OAuth JWT flow, from server to server: a JWT signed with the app's key is exchanged for a token.

Each JWT counts once, so every request signs a new one. There is no refresh token. ``expires_in`` of the
answer is an instant (unix seconds by Coze's clock), not a duration. Source: Coze's page "OAuth JWT".
"""

import asyncio
import re
import secrets
import time
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final

import httpx
import jwt
import orjson
from loguru import logger

from app.coze.credentials.sources import Kind, TokenSource
from app.coze.transport import NETWORK_ERRORS
from app.exceptions import CozeApiError, CozeRateLimited, UpstreamError
from app.utils.signals import Portions
from app.utils.stopping import end_tasks

TOKEN_PATH: Final = "/api/permission/oauth2/token"  # noqa: S105  # a path
_GRANT_TYPE: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_MOST_BYTES: Final = 64 * 1024
"""Of an answer, which has a few hundred."""
_TOKEN_SECONDS: Final = 900
"""Seconds that a token is asked for: Coze's own default."""
_JWT_SECONDS: Final = 600
_RENEW_EARLY_SECONDS: Final = 60.0
"""Seconds before its end in which a token is replaced (a tenth of its life, where that is less)."""
_RETRY_PAUSE: Final = 5.0
"""Seconds between two tries while the old token still works."""
_FORCED_PAUSE: Final = 1.0
"""Seconds between two replacements of tokens that Coze refused: one may be refused for another reason."""
_LONGEST_ATTEMPT: Final = 15.0
"""For one replacement with all that it tries: nobody waits for a token longer than that."""
_FAILURE_SHARED_FOR: Final = 2.0
"""Seconds for which a failure that may pass is everybody's answer, so that not each caller waits anew."""
_SMALLEST_INSTANT: Final = 100_000_000
"""A larger ``expires_in`` is an instant, a smaller one a duration."""
_CLOCK_TOLERANCE: Final = 5.0
_TRIES: Final = 2
_ERROR_CODE: Final = re.compile(r"[a-z_]{1,40}")
_HINTS: Final = {
    "invalid_client": "Check COZE_OAUTH_APP_ID, COZE_OAUTH_KEY_ID and COZE_OAUTH_PRIVATE_KEY_FILE.",
    "access_deny": "The OAuth app belongs to the other region, or may not do this: check COZE_API_URL.",
}


@dataclass(frozen=True, slots=True)
class OAuthApp:
    """``key_id``: the public key's fingerprint on the app's page. The private key is read each time."""

    app_id: str
    key_id: str
    private_key_file: Path
    token_url: str

    def sign(self, now: float) -> str:
        """A JWT for one use. Raises ``CozeApiError`` where the key cannot be used."""
        claims: dict[str, str | int] = {
            "iss": self.app_id,
            "aud": httpx.URL(self.token_url).netloc.decode(),
            "iat": int(now),
            "exp": int(now) + _JWT_SECONDS,
            "jti": secrets.token_hex(32),
        }
        try:
            key = self.private_key_file.read_bytes()
            return jwt.encode(claims, key, algorithm="RS256", headers={"kid": self.key_id})
        except (OSError, ValueError, TypeError, jwt.PyJWTError) as exc:
            # Without its cause: a library's text could quote the key.
            raise CozeApiError(
                f"The private key of the Coze OAuth app cannot be used ({type(exc).__name__})",
                hint="COZE_OAUTH_PRIVATE_KEY_FILE must be a readable RSA key in PEM form.",
                maybe_started=False,
            ) from None


def _unreachable(why: str) -> CozeApiError:
    return CozeApiError(
        f"Coze's token endpoint cannot be reached ({why})",
        hint="Check COZE_API_URL and COZE_BASE_URL, the network and the name service.",
        maybe_started=False,
        retryable=True,
    )


class OAuthToken(TokenSource):
    """A token that is replaced before it ends, once for all: who comes meanwhile shares the attempt and
    its failure. ``clock`` is unix seconds, ``ticks`` only goes forward. To be closed before ``http``."""

    kind: Kind = "oauth"

    def __init__(
        self,
        app: OAuthApp,
        http: httpx.AsyncClient,
        *,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._http = http
        self._clock = clock
        self._ticks = ticks
        self._token = ""
        self._portions = Portions()
        self._attempt: asyncio.Task[UpstreamError | None] | None = None
        self._failure: UpstreamError | None = None
        self._renew_at = self._ends_at = self._not_before = 0.0
        self._forced_at = float("-inf")
        self._offset = 0.0
        """Seconds by which Coze's clock is ahead of ours."""

    async def bearer(self) -> str:
        if self._ticks() < self._renew_at:
            return self._token
        if self._still_valid and (self._attempt is not None or self._ticks() < self._not_before):
            return self._token
        failure = await self._wait_for_token()
        if failure is not None and not self._still_valid:
            raise failure
        return self._token

    async def renew(self, refused: str) -> bool:
        if self._attempt is None:
            if self._token != refused:
                return bool(self._token)
            if self._ticks() < self._forced_at + _FORCED_PAUSE:
                return False
            self._forced_at = self._ticks()
            self._token, self._renew_at, self._ends_at = "", 0.0, 0.0
        await self._wait_for_token()
        return self._token not in ("", refused)

    async def aclose(self) -> None:
        """Ends an attempt under way; whoever waits for it is told that there is no token."""
        if self._attempt is not None:
            await end_tasks([self._attempt])

    @property
    def _still_valid(self) -> bool:
        return bool(self._token) and self._ticks() < self._ends_at

    async def _wait_for_token(self) -> UpstreamError | None:
        """Waits for the one attempt; its failure, for each caller an exception of its own."""
        if self._failure is not None and self._ticks() < self._not_before:
            return copy(self._failure)
        if self._attempt is None:
            self._attempt = asyncio.create_task(self._get_token(), name="oauth-token")
            self._attempt.add_done_callback(self._attempt_ended)
        attempt = self._attempt
        await self._portions.after(attempt)
        failure = _unreachable("closed") if attempt.cancelled() else attempt.result()
        return copy(failure) if failure is not None else None

    def _attempt_ended(self, _: object) -> None:
        self._attempt = None

    async def _get_token(self) -> UpstreamError | None:
        try:
            async with asyncio.timeout(_LONGEST_ATTEMPT):
                await self._fetch_token()
        except UpstreamError as error:
            failure = error
        except TimeoutError:
            failure = _unreachable(f"no answer within {_LONGEST_ATTEMPT:g} s")
        else:
            self._failure = None
            return None
        self._failure = failure if failure.retryable else None
        self._not_before = self._ticks() + (_RETRY_PAUSE if self._still_valid else _FAILURE_SHARED_FOR)
        logger.warning("no new Coze token: {}", failure.message)
        return failure

    async def _fetch_token(self) -> None:
        """Asks again once after a failure of the network, or where our clock was the reason."""
        for attempt in range(1, _TRIES + 1):
            offset = self._offset
            try:
                answer = await self._ask_once()
            except UpstreamError as error:
                clock_was_wrong = abs(self._offset - offset) > _CLOCK_TOLERANCE
                if attempt == _TRIES or not (error.retryable or clock_was_wrong):
                    raise
            else:
                self._store(answer)
                return

    async def _ask_once(self) -> dict[str, object]:
        assertion = self._app.sign(self._clock() + self._offset)
        headers = httpx.Headers({"authorization": f"Bearer {assertion}", "accept": "application/json"})
        headers["accept-encoding"] = "identity"  # what is packed may be a thousand times as long
        body = {"grant_type": _GRANT_TYPE, "duration_seconds": _TOKEN_SECONDS}
        try:
            async with self._http.stream("POST", self._app.token_url, json=body, headers=headers) as response:
                content = await _read(response)
        except NETWORK_ERRORS as error:
            raise _unreachable(type(error).__name__) from None
        self._compare_clocks(response)
        try:
            answer = orjson.loads(content)
        except orjson.JSONDecodeError:
            answer = None
        if response.is_success and isinstance(answer, dict) and isinstance(answer.get("access_token"), str):
            return answer
        raise self._refusal(response, answer)

    def _compare_clocks(self, response: httpx.Response) -> None:
        try:
            there = parsedate_to_datetime(response.headers.get("date", "")).timestamp()
        except (TypeError, ValueError):
            return
        offset = there - self._clock()
        offset = offset if abs(offset) > _CLOCK_TOLERANCE else 0.0
        if abs(offset - self._offset) > _CLOCK_TOLERANCE:
            logger.warning("this machine's clock differs from Coze's by {:.0f} s", offset)
            self._offset = offset

    def _refusal(self, response: httpx.Response, answer: object) -> UpstreamError:
        code = answer.get("error_code") if isinstance(answer, dict) else None
        code = (
            code if isinstance(code, str) and _ERROR_CODE.fullmatch(code) else f"HTTP {response.status_code}"
        )
        hint = _HINTS.get(code)
        if self._offset:
            hint = f"{hint or ''} This machine's clock differs from Coze's by {self._offset:.0f} s.".strip()
        kind = CozeRateLimited if response.status_code == httpx.codes.TOO_MANY_REQUESTS else CozeApiError
        return kind(
            f"Coze gave no OAuth token: {code}",
            logid=response.headers.get("x-tt-logid"),
            hint=hint,
            maybe_started=False,
            retryable=True if response.status_code >= 500 else None,
        )

    def _store(self, answer: dict[str, object]) -> None:
        expires = answer.get("expires_in")
        now = self._clock() + self._offset
        seconds = float(_TOKEN_SECONDS)
        if isinstance(expires, int | float) and not isinstance(expires, bool):
            left = expires - now if expires > _SMALLEST_INSTANT else float(expires)
            # Never longer than was asked for, whatever the clocks say.
            seconds = min(seconds, left) if left > 0 else min(seconds, _RENEW_EARLY_SECONDS)
        self._token = str(answer["access_token"])
        self._ends_at = self._ticks() + seconds
        self._renew_at = self._ends_at - min(_RENEW_EARLY_SECONDS, seconds / 10)
        self.expires_at = int(self._clock() + seconds)


async def _read(response: httpx.Response) -> bytes:
    """As much as an answer may have, and nothing of what is packed, though nobody asked for that."""
    content = b""
    if "content-encoding" not in response.headers:
        async for piece in response.aiter_bytes():
            content += piece
            if len(content) > _MOST_BYTES:
                break
    return content[:_MOST_BYTES]
