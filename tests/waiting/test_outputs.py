"""Tool outputs are written as JSON once, in short steps, and are the same bytes from there to Coze."""

from __future__ import annotations

import hashlib
import json
import threading

import orjson
import pytest

from app.models.bodies import SubmitToolOutputs, ToolOutput
from app.stores.leases import Claim
from app.stores.sessions import SessionRecord
from app.tasks.job import ToolOutputs, start_of
from app.tasks.outputs import Outputs
from app.tasks.sessions import idempotency_of

TEXTS = ["", '{"t":21}', '\x00\x1f\x7f"\\/\n\u2028', "天气 \U0001f600", "x" * 100_000]


def body_of(*texts: str) -> SubmitToolOutputs:
    given = [{"tool_call_id": f"call {n}", "output": text} for n, text in enumerate(texts)]
    return SubmitToolOutputs.model_validate({"tool_outputs": given, "stream": True})


def test_what_is_written_is_what_was_given() -> None:
    body = body_of(*TEXTS)
    outputs = Outputs.of(body)
    assert json.loads(outputs.written) == [each.model_dump() for each in body.tool_outputs]
    assert outputs.calls == [f"call {n}" for n in range(len(TEXTS))]
    assert outputs.key is None


def test_the_key_of_outputs_without_one_is_that_of_the_version_before() -> None:
    body = body_of(*TEXTS)
    before = hashlib.sha256(orjson.dumps(body.model_dump(mode="json", exclude={"stream"}))).hexdigest()
    key = Outputs.of(body, repeatable=True).key
    assert key is not None
    assert (key.fingerprint, key.digest("x")) == (before, idempotency_of(f"\0{before}", body).digest("x"))
    assert Outputs.of(body, "mine", repeatable=True).key == idempotency_of("mine", body)


def test_each_output_is_written_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the event loop a step keeps the processor's lock: all of 16 MB in one took 40 ms."""
    seen: list[int] = []
    dump = ToolOutput.model_dump

    def dumped(self: ToolOutput) -> dict[str, object]:
        seen.append(threading.get_ident())
        return dump(self)

    monkeypatch.setattr(ToolOutput, "model_dump", dumped)
    Outputs.of(body_of(*TEXTS), repeatable=True)
    assert len(seen) == len(TEXTS)


def test_a_chat_that_runs_has_its_outputs_once_as_redis_keeps_them() -> None:
    written = Outputs.of(body_of(*TEXTS)).written
    run = [b"tool_outputs", written]
    start = start_of(Claim("claimed", "chat", 2, run, SessionRecord("session", []), b"", "waiting"))
    assert isinstance(start, ToolOutputs)
    assert start.outputs is written
