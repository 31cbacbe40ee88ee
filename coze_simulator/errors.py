"""Coze's error codes that the simulator raises, and the exceptions that carry them."""

from __future__ import annotations

CODE_MESSAGES: dict[int, str] = {
    4000: "Request parameter error",
    4001: "The chat does not exist",
    4002: "The conversation does not exist or belongs to another identity",
    4003: "meta_data exceeds the limit of 16 pairs",
    4004: "additional_messages exceeds the limit of 100",
    4005: "The message does not exist",
    4006: "The bot does not exist",
    4007: "auto_save_history must be true when stream is false",
    4008: "The daily quota of the bot is used up",
    4009: "The service is busy, please try again later",
    4010: "The prompt is longer than the model accepts",
    4011: "The token balance is insufficient",
    4013: "The model is rate limited, please try again later",
    4015: "The bot has not been published to the channel Agent As API",
    4016: "A chat is in progress in this conversation, please try again after it has ended",
    4020: "The purchased requests per minute are exceeded",
    4028: "The credits are used up",
    4100: "authentication is invalid",
    4101: "The token you entered is incorrect or has no permission",
    4104: "The chat cannot be canceled in its current state",
    4105: "The content is sensitive",
    4200: "The requested resource does not exist",
    4300: "The file is empty",
    4301: "Only one file can be uploaded at a time",
    4302: "The file is too large",
    4304: "The file is invalid",
    5000: "event interval error",
}

# The statuses the JS SDK maps to error classes; used only when real HTTP statuses are asked for.
HTTP_STATUS_OF_CODE: dict[int, int] = {4000: 400, 4100: 401, 4101: 403, 4200: 404, 4013: 429}


def message_of(code: int) -> str:
    """The message Coze would send with ``code``."""
    return CODE_MESSAGES.get(code, f"simulated error {code}")


class ApiError(Exception):
    """A refusal in Coze's envelope: ``code`` and ``msg``, HTTP 200 unless ``status`` says otherwise."""

    def __init__(self, code: int, msg: str | None = None, *, status: int | None = None) -> None:
        self.code = code
        self.msg = message_of(code) if msg is None else msg
        self.status = status
        super().__init__(f"{code}: {self.msg}")


class HttpFault(Exception):
    """A failure in front of Coze (gateway, rate limiter): an HTTP status with a body that is no envelope."""

    def __init__(self, status: int, body: str | None = None, retry_after: float | None = None) -> None:
        self.status = status
        self.body = body
        self.retry_after = retry_after
        super().__init__(f"HTTP {status}")


class DropConnection(Exception):
    """Close the connection without an answer."""
