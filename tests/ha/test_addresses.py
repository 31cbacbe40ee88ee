"""What REDIS_URL may be, and that what is said of a wrong one does not quote it."""

from __future__ import annotations

import pytest

from app.config import SettingsError
from app.config.redis_url import parse_redis_url
from tests.support import make_settings

SECRET = "s3cret"


@pytest.mark.parametrize(
    ("url", "kind", "nodes", "service", "plain"),
    [
        ("redis://h:1/2", "single", (("h", 1),), "", "redis://h:1/2"),
        ("redis://h", "single", (("h", 6379),), "", "redis://h:6379/0"),
        ("redis:///3", "single", (("localhost", 6379),), "", "redis://localhost:6379/3"),
        ("rediss://u:p@[::1]:1?ssl_cert_reqs=none", "single", (("::1", 1),), "", None),
        ("unix:///run/redis.sock?db=1", "single", (), "", "unix:///run/redis.sock?db=1"),
        ("redis+sentinel://a:1,b/main", "sentinel", (("a", 1), ("b", 26379)), "main", "redis://a:1/0"),
        ("redis+sentinel://a,[::1]:2/main/5", "sentinel", (("a", 26379), ("::1", 2)), "main", None),
        ("rediss+sentinel://a/main/5", "sentinel", (("a", 26379),), "main", "rediss://a:26379/5"),
        ("redis+cluster://a:1,b:2,c", "cluster", (("a", 1), ("b", 2), ("c", 6379)), "", "redis://a:1/0"),
        ("redis+cluster://a/0", "cluster", (("a", 6379),), "", "redis://a:6379/0"),
        ("memory://", "memory", (), "", "memory://"),
    ],
)
def test_an_address_is_understood(
    url: str, kind: str, nodes: tuple[tuple[str, int], ...], service: str, plain: str | None
) -> None:
    address = parse_redis_url(url)
    assert (address.kind, address.nodes, address.service) == (kind, nodes, service)
    assert plain is None or address.url == plain
    assert make_settings(REDIS_URL=url).redis_url.get_secret_value() == url


def test_sentinels_may_have_a_login_of_their_own() -> None:
    address = parse_redis_url(
        f"redis+sentinel://me:{SECRET}@a,b/main/1?sentinel_password=pw%21&health_check_interval=5"
    )
    assert address.sentinel_password == "pw!"
    assert address.url == f"redis://me:{SECRET}@a:26379/1?health_check_interval=5"
    assert SECRET not in address.shown


@pytest.mark.parametrize(
    "url",
    [
        "not-a-url",
        f"http://:{SECRET}@h",
        f"redis://:{SECRET}@h:x/0",
        f"redis://:{SECRET}@h:70000/0",
        f"redis://:{SECRET}@a,b/0",
        f"redis://:{SECRET}@h/zero",
        "unix://",
        f"redis+sentinel://:{SECRET}@a",
        f"redis+sentinel://:{SECRET}@a,,b/main",
        f"redis+sentinel://:{SECRET}@a/main/1/2",
        f"redis+cluster://:{SECRET}@a/3",
        f"redis+nonsense://:{SECRET}@a",
    ],
)
def test_a_wrong_address_is_refused_by_name(url: str) -> None:
    with pytest.raises(SettingsError) as refused:
        make_settings(REDIS_URL=url)
    assert "REDIS_URL" in str(refused.value)
    assert SECRET not in str(refused.value)
