"""Services with authentication, as the tests of security have them."""

from tests.security.conftest import auth, secured, shared_auth, shared_secured, start_secured

__all__ = ["auth", "secured", "shared_auth", "shared_secured", "start_secured"]
