"""Tokens of the auth stand-in: HMAC-signed JWTs (RFC 7519, RFC 7515), written and read by hand.

On purpose without a JWT library: the service under test uses one, and a misreading of it must not hide.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

EXPIRES_IN = 10_000 * 3600  # seconds; the auth service issues for 10,000 hours
_DIGESTS = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}
ALGORITHMS = tuple(_DIGESTS)


def sub_of(hty_id: str | None, roles: Sequence[str] | None, *, token_id: str | None = None) -> dict[str, Any]:
    """What the ``sub`` claim holds, as JSON in a string."""
    return {
        "token_id": token_id or secrets.token_hex(16),
        "hty_id": hty_id,
        "app_id": None,
        "ts": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S"),
        "roles": None if roles is None else [{"role_key": role} for role in roles],
        "tags": None,
        "current_org_id": None,
        "current_department_id": None,
    }


def claims_of(
    hty_id: str | None, roles: Sequence[str] | None = None, *, expires_in: float = EXPIRES_IN
) -> dict[str, Any]:
    """``sub``, ``exp``, ``iat``; a negative ``expires_in`` makes a token that has expired."""
    now = int(time.time())
    return {"sub": json.dumps(sub_of(hty_id, roles)), "exp": now + int(expires_in), "iat": now}


def sign(claims: Any, key: str, *, algorithm: str = "HS256") -> str:
    """A JWT. Raises ValueError for an algorithm that is not an HMAC."""
    if algorithm not in _DIGESTS:
        raise ValueError("the algorithm must be one of " + ", ".join(ALGORITHMS))
    signed = f"{_part({'typ': 'JWT', 'alg': algorithm})}.{_part(claims)}"
    return f"{signed}.{_encode(_signature(signed, key, algorithm))}"


def is_valid(token: str, key: str) -> bool:
    """As the auth service checks: signature and a readable ``sub``; ``exp`` is not looked at."""
    parts = token.split(".")
    if len(parts) != 3:
        return False
    try:
        header, claims = json.loads(_decode(parts[0])), json.loads(_decode(parts[1]))
        given = _decode(parts[2])
        if header["alg"] not in _DIGESTS:
            return False
        expected = _signature(f"{parts[0]}.{parts[1]}", key, header["alg"])
        return hmac.compare_digest(expected, given) and isinstance(json.loads(claims["sub"]), dict)
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def _signature(signed: str, key: str, algorithm: str) -> bytes:
    return hmac.new(key.encode(), signed.encode(), _DIGESTS[algorithm]).digest()


def _part(value: Any) -> str:
    return _encode(json.dumps(value, separators=(",", ":")).encode())


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _decode(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
