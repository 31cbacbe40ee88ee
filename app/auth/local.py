"""The check without a call: HTY_JWT_KEY is the key that the auth service signs with."""

import warnings
from typing import Final

import jwt
from loguru import logger
from pydantic import SecretStr

from app.auth.tokens import ALGORITHMS

_SAFE_KEY_BYTES: Final = 32


class LocalCheck:
    """Verifies signatures with one shared key.

    Raises:
        ValueError: the key is empty, or of a kind that is no HMAC secret (PEM, SSH, JWK).
    """

    def __init__(self, key: SecretStr) -> None:
        self._key = key.get_secret_value().encode()
        self._jws = jwt.PyJWS(algorithms=ALGORITHMS)
        try:
            self._jws.get_algorithm_by_name(ALGORITHMS[0]).prepare_key(self._key)
        except jwt.InvalidKeyError:
            raise ValueError(
                "HTY_JWT_KEY must be a non-empty shared secret, not a PEM, SSH or JWK key"
            ) from None
        if len(self._key) < _SAFE_KEY_BYTES:
            logger.warning("HTY_JWT_KEY is shorter than 32 bytes (RFC 7518, 3.2): it can be guessed offline")

    def is_genuine(self, token: str) -> bool:
        """Whether ``token`` was signed with the key. Reads no claim: that is done alike for both checks."""
        with warnings.catch_warnings():
            # Said once at start; on each request it would be noise.
            warnings.simplefilter("ignore", jwt.InsecureKeyLengthWarning)
            try:
                self._jws.decode(token, self._key, algorithms=ALGORITHMS)
            except jwt.InvalidTokenError:
                return False
        return True
