"""A key that came to one version and is repeated at another: both must find the same request behind it."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from app.models.bodies import CreateSession, SendMessage, SubmitToolOutputs
from app.tasks.sessions import idempotency_of

EARLIER = {
    "message": (
        "2e7ff5a1bd8e1b4900a6cc747f611cf8c2d3ae07644aee41d7acd47fb8052b0a",
        SendMessage(message="hi"),
    ),
    "message with context": (
        "2327492d404bb53274d311441b18a9ed48502f37a312c2ade1c34f072e1d345f",
        SendMessage.model_validate(
            {
                "message": "hi",
                "meta_data": {"a": "b"},
                "additional_messages": [{"role": "user", "content": "x"}],
            }
        ),
    ),
    "session": (
        "7ccc90c98dd094f88ac9ec665b7eac8cbb024e067b18d6e0bf8ace12c33e2911",
        CreateSession(user_id="u-1"),
    ),
    "tool outputs": (
        "a806d1133e39f8d60b3761bb2ba6d7cc03ebddc616fcf771dc992a98e9a77b8a",
        SubmitToolOutputs.model_validate({"tool_outputs": [{"tool_call_id": "Q0Q=", "output": "21"}]}),
    ),
}
"""What versions in use have stored for such requests. It changes for none of them: a repetition that is told
from its first sending is refused with 409, and the answer that was paid for is not found."""


@pytest.mark.parametrize(("stored", "body"), EARLIER.values(), ids=list(EARLIER))
def test_a_request_has_the_fingerprint_that_earlier_versions_stored(stored: str, body: BaseModel) -> None:
    key = idempotency_of("a-key", body)
    assert key is not None
    assert key.fingerprint == stored


def test_both_names_of_the_same_thing_are_one_request() -> None:
    first = idempotency_of("k", SendMessage.model_validate({"message": "hi", "meta_data": {"a": "b"}}))
    second = idempotency_of("k", SendMessage.model_validate({"message": "hi", "metadata": {"a": "b"}}))
    assert first is not None
    assert second is not None
    assert first.fingerprint == second.fingerprint


def test_a_stream_of_it_is_the_same_request() -> None:
    first = idempotency_of("k", SendMessage(message="hi"))
    second = idempotency_of("k", SendMessage(message="hi", stream=True))
    assert first == second
