"""What a token looks like, and what its payload says. Nothing here decides whether a token is genuine."""

import base64
import re
from dataclasses import dataclass
from typing import Any, Final

import orjson

ALGORITHMS: Final = ("HS256", "HS384", "HS512")
"""All that the auth service signs with or accepts; ``none`` and the asymmetric ones are not among them."""
_SIGNATURE_LENGTHS: Final = dict(zip(ALGORITHMS, (43, 64, 86), strict=True))
"""Characters of base64url: 32, 48 and 64 bytes."""

MAX_TOKEN: Final = 16 * 1024
_MAX_HTY_ID: Final = 128
_PART: Final = "[A-Za-z0-9_-]+"
_COMPACT: Final = re.compile(rf"({_PART})\.({_PART})\.({_PART})")


def is_acceptable(token: str) -> bool:
    """Whether ``token`` is worth a check: an HMAC-signed JWS in compact form (RFC 7515, 7.1) of sane length,
    with a signature as long as its algorithm makes them.

    The auth service could accept nothing else, so nothing else is sent to it. The alphabet leaves no room
    for white space, control characters, a comma of joined header lines or a ``Bearer`` in front.
    """
    if len(token) > MAX_TOKEN:
        return False
    match = _COMPACT.fullmatch(token)
    header = _json_of(match[1]) if match else None
    algorithm = header.get("alg") if isinstance(header, dict) else None
    if match is None or not isinstance(algorithm, str):
        return False
    return len(match[3]) == _SIGNATURE_LENGTHS.get(algorithm)


@dataclass(frozen=True, slots=True)
class Claims:
    """The part of a token's payload that we use. ``exp`` in seconds since the epoch (RFC 7519, 4.1.4)."""

    hty_id: str | None
    roles: frozenset[str]
    exp: float


def read_claims(token: str) -> Claims | None:
    """The claims of a token that has been found genuine; None if it does not say who its bearer is and for
    how long.

    Without a readable ``sub`` no owner can be determined, and taking the root for the owner would hand one
    person's sessions to another. ``exp`` is required: the auth service always sets it, and without it an
    identity would never end. Roles that cannot be read are left out, which gives fewer rights.
    """
    payload = _json_of(token.split(".")[1])
    if not isinstance(payload, dict) or not isinstance(payload.get("sub"), str):
        return None
    exp = payload.get("exp")
    sub = _json(payload["sub"])
    if not isinstance(sub, dict) or not isinstance(exp, int | float) or isinstance(exp, bool):
        return None
    hty_id = sub.get("hty_id")
    if hty_id is not None and not _is_id(hty_id):
        return None
    return Claims(hty_id, _roles(sub.get("roles")), float(exp))


def _is_id(value: object) -> bool:
    """An empty id would make its bearer the owner of all that belongs to the root itself."""
    return isinstance(value, str) and 0 < len(value) <= _MAX_HTY_ID and value.isprintable()


def _roles(value: object) -> frozenset[str]:
    entries = value if isinstance(value, list) else []
    keys = [entry.get("role_key") for entry in entries if isinstance(entry, dict)]
    return frozenset(key for key in keys if isinstance(key, str))


def _json_of(part: str) -> Any:
    """The JSON in a base64url part (RFC 7515, 2: no padding); None if there is none."""
    try:
        return _json(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except ValueError:
        return None


def _json(text: str | bytes) -> Any:
    """None where ``text`` is no JSON. orjson bounds the depth and refuses NaN and broken UTF-8."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
