"""Who is calling: the identity behind HtySudoerToken and HtyHost."""

from typing import Protocol

from app.exceptions import AuthUnavailable
from app.models import Identity

LOCAL_ADMIN = Identity(root="local", hty_id=None, admin=True)
"""Everyone, where authentication is switched off."""


class Verifier(Protocol):
    """Raises AuthMissing, AuthInvalid or AuthUnavailable."""

    async def identify(self, token: str | None, host: str | None) -> Identity: ...


class NoVerifier:
    """ENABLE_AUTH=false: everyone is the same local admin."""

    async def identify(self, token: str | None, host: str | None) -> Identity:
        return LOCAL_ADMIN


class ClosedVerifier:
    """Nobody can be checked, so nobody gets in."""

    async def identify(self, token: str | None, host: str | None) -> Identity:
        raise AuthUnavailable
