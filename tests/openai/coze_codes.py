"""What OpenAI's clients are told for each of Coze's codes, and how often we ask Coze for a call of theirs."""

from __future__ import annotations

import pytest

from app.coze.codes import CODES, rule_for

QUOTA = (429, "insufficient_quota", "insufficient_quota", "false", None)
PASSES = (502, "server_error", "coze_api_error", "false", None)
STAYS = (400, "server_error", "coze_api_error", "false", None)
TOLD: dict[int, tuple[int, str, str, str, int | None]] = {
    4008: QUOTA,
    4009: (503, "server_error", "overloaded", "false", 5),
    4010: (400, "invalid_request_error", "context_length_exceeded", "false", None),
    4011: QUOTA,
    4013: (429, "rate_limit_error", "rate_limit_exceeded", "false", 5),
    4016: (409, "invalid_request_error", "coze_session_busy", "false", 2),
    4019: QUOTA,
    4020: (429, "rate_limit_error", "rate_limit_exceeded", "true", 60),
    4022: QUOTA,
    4027: QUOTA,
    4028: QUOTA,
    4105: (400, "invalid_request_error", "content_policy_violation", "false", None),
    788788103: QUOTA,
} | dict.fromkeys(
    (500, 5000, 6006, 702042078, 720701004, 720702085, 720702222, 777777776, 103200002, 720700801, 5999),
    PASSES,
)
"""Status, type, code, x-should-retry, Retry-After; of every other code ``STAYS``."""
UNLISTED = (720700801, 5999, 4018, 123456789)
EVERY_CODE = sorted({*CODES, *UNLISTED})
SDK_TRIES = 3
"""The first and two more, by default."""


def ours(code: int) -> int:
    """How often we ask for one call: we alone, since we know what is safe."""
    return 1 + min(3, rule_for(code).retries)


def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service in this process does not wait between its tries."""
    monkeypatch.setattr("app.coze.retry._FIRST_PAUSE", 0.0)
    monkeypatch.setattr("app.coze.retry.MAX_HONOURED_RETRY_AFTER", 0)
    monkeypatch.setattr("app.tasks.runner._BUSY_SECONDS", 0.0)
    monkeypatch.setattr("app.coze.retry.RetryBudget.take", lambda _self, _owner: True)
