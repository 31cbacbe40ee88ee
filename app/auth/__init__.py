"""Who is calling: the identity behind HtySudoerToken and HtyHost.

``HtyVerifier`` asks the organisation's auth service (or, with HTY_JWT_KEY, checks the signature here) and
fails closed: a caller gets in on a clear yes alone. ``NoVerifier`` is ENABLE_AUTH=false.
"""

from collections.abc import Sequence
from typing import Protocol

from app.auth.api_keys import ApiKeys, Door, KeySetting
from app.auth.options import AuthOptions, build_auth_client
from app.auth.verifier import HtyVerifier
from app.models import Identity

__all__ = [
    "LOCAL_ADMIN",
    "ApiKeys",
    "AuthOptions",
    "Door",
    "HtyVerifier",
    "KeySetting",
    "NoVerifier",
    "Verifier",
    "build_auth_client",
]

LOCAL_ADMIN = Identity(root="local", hty_id=None, admin=True)
"""Everyone, where authentication is switched off."""


class Verifier(Protocol):
    """``tokens`` and ``hosts`` are the values of all HtySudoerToken and HtyHost header lines, so that a
    header sent twice is seen as such.

    Raises: AuthMissing, AuthInvalid, AuthUnavailable.
    """

    async def identify(self, tokens: Sequence[str], hosts: Sequence[str]) -> Identity: ...


class NoVerifier:
    """ENABLE_AUTH=false: everyone is the same local admin."""

    async def identify(self, tokens: Sequence[str], hosts: Sequence[str]) -> Identity:
        return LOCAL_ADMIN
