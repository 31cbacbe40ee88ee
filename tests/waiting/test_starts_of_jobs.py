"""What there is to do with a chat that was claimed: decided by the claim, before its task starts."""

from __future__ import annotations

import pytest

from app.exceptions import ChatState, InternalError, SessionExpired
from app.stores.leases import Claim, ClaimKind, RunState
from app.stores.sessions import SessionRecord
from app.tasks.job import Fresh, GiveUp, Recover, ToolOutputs, start_of

OUTPUTS = b'[{"tool_call_id":"c","output":"42"}]'
STORED = [b"tool_outputs", OUTPUTS]


def claim(before: RunState, kind: ClaimKind = "claimed", *, run: list[bytes] | None = None) -> Claim:
    return Claim(kind, "chat", 2, run or [], SessionRecord("session", []), b"", before)


@pytest.mark.parametrize("before", ["queued", "ready"])
def test_what_nobody_has_owned_is_sent(before: RunState) -> None:
    assert start_of(claim(before, "start")) == Fresh()


def test_what_somebody_may_have_sent_is_never_sent_again() -> None:
    assert start_of(claim("started")) == Recover()
    assert start_of(claim("started")).at_coze


def test_tool_outputs_are_handed_in_and_after_a_takeover_only_if_coze_still_asks() -> None:
    assert start_of(claim("waiting", run=STORED)) == ToolOutputs(OUTPUTS, at_coze=False)
    assert start_of(claim("started", run=STORED)) == ToolOutputs(OUTPUTS, at_coze=True)


def test_what_waits_and_has_no_outputs_is_not_sent_at_all() -> None:
    start = start_of(claim("waiting", run=[b"cancel", b"1"]))
    assert isinstance(start, GiveUp)
    assert isinstance(start.error, ChatState)
    assert not start.at_coze, "Coze has nothing to cancel"


@pytest.mark.parametrize(("kind", "error"), [("exhausted", InternalError), ("expired", SessionExpired)])
def test_what_cannot_go_on_is_given_up_even_with_outputs(kind: ClaimKind, error: type[Exception]) -> None:
    for before in ("started", "waiting"):
        start = start_of(claim(before, kind, run=STORED))  # type: ignore[arg-type]
        assert isinstance(start, GiveUp)
        assert isinstance(start.error, error)
        assert start.at_coze == (before == "started")
