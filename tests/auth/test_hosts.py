"""Which root a host name belongs to."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.auth.hosts import host_name, root_of

from .helpers import ROOTS
from .hostile import HOSTILE_HOSTS

LONGEST = ".".join(["a" * 60] * 3 + ["a" * 59, "moicen.com"])


@pytest.mark.parametrize(
    ("host", "root"),
    [
        ("moicen.com", "moicen.com"),
        ("music.moicen.com", "moicen.com"),
        ("MUSIC.Moicen.COM", "moicen.com"),
        ("a.b.c.huiwings.cn", "huiwings.cn"),
        ("admin.alchemy-studio.cn", "alchemy-studio.cn"),
        ("music.moicen.com:1", "moicen.com"),
        ("music.moicen.com:65535", "moicen.com"),
        ("localhost", "localhost"),
        ("localhost:3000", "localhost"),
        ("app.localhost:3000", "localhost"),
        ("1.2-3.moicen.com", "moicen.com"),
        ("xn--fiq228c.moicen.com", "moicen.com"),
        ("moicen.com.huiwings.cn", "huiwings.cn"),
        (f"{'a' * 63}.moicen.com", "moicen.com"),
        (LONGEST[-253:].lstrip("."), "moicen.com"),
    ],
)
def test_a_host_belongs_to_the_root_it_equals_or_is_below(host: str, root: str) -> None:
    assert root_of(host, ROOTS) == root


@pytest.mark.parametrize("name", HOSTILE_HOSTS)
def test_a_hostile_host_belongs_to_no_root(name: str) -> None:
    raw = HOSTILE_HOSTS[name]
    assert root_of(raw.decode("latin-1"), ROOTS) is None
    assert root_of(raw.decode("utf-8", "replace"), ROOTS) is None


@pytest.mark.parametrize("name", ["", "\u212a.moicen.com", "ſ.moicen.com", "moıcen.com", "a" * 300])
def test_what_only_becomes_a_name_by_changing_case_is_none(name: str) -> None:
    assert host_name(name) is None


def test_names_are_at_most_253_long() -> None:
    assert len(LONGEST) == 253
    assert host_name(LONGEST) == LONGEST
    assert host_name("a" + LONGEST) is None


def test_the_longest_of_nested_roots_counts() -> None:
    roots = ("moicen.com", "music.moicen.com")
    assert root_of("a.music.moicen.com", roots) == "music.moicen.com"
    assert root_of("amusic.moicen.com", roots) == "moicen.com"


@given(
    st.one_of(
        st.text(max_size=60),
        st.lists(st.sampled_from([*"ab-.:@/#?\\ \n\0%0é", "moicen", ".com", "moicen.com"]), max_size=8).map(
            "".join
        ),
    )
)
def test_whatever_belongs_to_a_root_is_a_plain_name_that_ends_in_it(host: str) -> None:
    root = root_of(host, ROOTS)
    if root is not None:
        name = host.lower().partition(":")[0]
        assert re.fullmatch(r"[A-Za-z0-9.-]+(:[0-9]+)?", host)
        assert name.endswith(root)
        assert name.removesuffix(root)[-1:] in ("", ".")
