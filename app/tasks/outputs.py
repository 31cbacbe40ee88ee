"""Tool outputs as callers hand them in: written as JSON once, which is what Redis keeps and Coze is sent."""

import hashlib
from collections.abc import Sequence
from typing import Self

import orjson
from attrs import frozen

from app.models.bodies import SubmitToolOutputs
from app.stores.sessions import IdempotencyKey
from app.tasks.sessions import idempotency_of


@frozen
class Outputs:
    """All outputs that a chat asks for.

    Attributes:
        calls: the ids of the calls that are answered.
        written: ``[{"tool_call_id", "output"}, ...]``.
        key: what led to this call's chat before leads there again.
    """

    calls: Sequence[str]
    written: bytes
    key: IdempotencyKey | None

    @classmethod
    def of(
        cls, body: SubmitToolOutputs, key: str | IdempotencyKey | None = None, *, repeatable: bool = False
    ) -> Self:
        """Of a large body this takes long (``BigBodies``), in steps of one output.

        Args:
            key: the call's Idempotency-Key.
            repeatable: without one the outputs themselves are the key: they mean the same whenever they come
                again. No header can hold such a key.
        """
        written = b"[%b]" % b",".join(orjson.dumps(each.model_dump()) for each in body.tool_outputs)
        if not key and repeatable:
            fingerprint = hashlib.sha256(b'{"tool_outputs":%b}' % written).hexdigest()
            key = IdempotencyKey(f"\0{fingerprint}", fingerprint)
        return cls([each.tool_call_id for each in body.tool_outputs], written, idempotency_of(key, body))
