"""The token endpoint of the JWT (service) flow: bare answers, no envelope. Signatures are not checked."""

from __future__ import annotations

import base64
import binascii
import json
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

JWT_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
DEFAULT_DURATION = 900
MAX_DURATION = 86_399
_MAX_KEPT = 10_000
_CLOUD_AUDIENCES = ("api.coze.cn", "api.coze.com")


class OAuthError(Exception):
    """``{"error_code", "error_message", "error"}`` with an HTTP status."""

    def __init__(self, status: int, code: str, message: str) -> None:
        self.status = status
        self.code = code
        self.message = message
        super().__init__(message)

    def view(self) -> dict[str, Any]:
        """As sent."""
        return {"error_code": self.code, "error_message": self.message, "error": self.code}


@dataclass(slots=True)
class TokenOffice:
    """Issues ``czs_`` tokens and remembers which JWTs were used. Times in unix seconds."""

    _tokens: OrderedDict[str, tuple[str, float]] = field(default_factory=OrderedDict)
    _used: OrderedDict[str, None] = field(default_factory=OrderedDict)

    def identity_of(self, token: str) -> str | None:
        """The identity a good token stands for: equal for all tokens of one app and session name."""
        identity, expiry = self._tokens.get(token, ("", 0.0))
        return identity if time.time() < expiry else None

    def revoke_all(self) -> None:
        """Makes every issued token invalid, as a change of the app's settings would."""
        for token in self._tokens:
            self._tokens[token] = ("", 0.0)

    def issue(self, assertion: str, body: dict[str, Any], host: str) -> dict[str, Any]:
        """The token response. ``expires_in`` is an instant, not a duration. Raises OAuthError."""
        if not assertion:
            raise OAuthError(401, "invalid_client", "verify jwt empty")
        claims = self._claims(assertion, host)
        if body.get("grant_type") != JWT_GRANT:
            raise OAuthError(400, "unsupported_grant_type", "the grant type is not supported")
        duration = body.get("duration_seconds")
        duration = DEFAULT_DURATION if duration is None else duration
        if isinstance(duration, bool) or not isinstance(duration, int) or not 0 < duration <= MAX_DURATION:
            raise OAuthError(400, "invalid_request", f"duration_seconds must be between 1 and {MAX_DURATION}")
        jti = str(claims["jti"])
        if jti in self._used:
            raise OAuthError(400, "invalid_request", "the jwt has been used: jti must be unique")
        self._used[jti] = None
        token, expiry = "czs_" + secrets.token_urlsafe(32), int(time.time()) + duration
        self._tokens[token] = (f"oauth:{claims['iss']}:{claims.get('session_name') or ''}", expiry)
        if len(self._used) > _MAX_KEPT:
            self._used.popitem(last=False)
            self._tokens.popitem(last=False)
        return {"access_token": token, "expires_in": expiry, "token_type": "Bearer"}

    def _claims(self, assertion: str, host: str) -> dict[str, Any]:
        parts = assertion.split(".")
        if len(parts) != 3:
            raise OAuthError(401, "invalid_client", "the jwt has not three parts")
        header, claims = _segment(parts[0]), _segment(parts[1])
        if header.get("alg") != "RS256" or not header.get("kid"):
            raise OAuthError(401, "invalid_client", "the jwt header needs alg RS256 and kid")
        for name in ("iss", "aud", "iat", "exp", "jti"):
            if not claims.get(name):
                raise OAuthError(400, "invalid_request", f"the jwt claim {name} is missing")
        if claims["aud"] not in (host, host.partition(":")[0], *_CLOUD_AUDIENCES):
            raise OAuthError(401, "access_deny", "the jwt audience is not this host")
        exp = claims["exp"]
        if not isinstance(exp, int | float) or exp <= time.time():
            raise OAuthError(401, "invalid_client", "the jwt has expired")
        return claims


def _segment(text: str) -> dict[str, Any]:
    try:
        value = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (binascii.Error, ValueError) as error:
        raise OAuthError(401, "invalid_client", "the jwt cannot be read") from error
    if not isinstance(value, dict):
        raise OAuthError(401, "invalid_client", "the jwt cannot be read")
    return value
