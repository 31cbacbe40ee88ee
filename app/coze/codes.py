"""Coze's error codes: the one table from a code to our error, its retries and a hint for the operator.

Sources: Coze's error code page, the maps of its SDKs, and the constants of coze-studio (the self-hosted
server). Coze states no HTTP status per code, so the code decides and the status only fills in.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from app.exceptions import (
    CozeApiError,
    CozeBusy,
    CozeOverloaded,
    CozeQuotaExhausted,
    CozeRateLimited,
    UpstreamError,
)

UNLIMITED: Final = 1_000
"""As many retries as the settings allow."""

CANNOT_CANCEL: Final = frozenset({4104, 103200005})
"""The chat is not in a state that can be cancelled: ask what it is."""

TOKEN_REFUSED: Final = frozenset({4100, 700012006})

NOT_FOUND: Final = frozenset({4001, 4002, 4200, 103000002, 103200003})
"""The chat or conversation does not exist, or belongs to another identity."""

MESSAGE_NOT_FOUND: Final = frozenset({4005})
"""About a message that is named: the conversation has none of that id."""


class CodeRule(NamedTuple):
    """``retries``: how often a request may be repeated before a chat has begun.

    ``retryable``: whether the same message can succeed later without anybody changing something.
    ``retry_after``: seconds, where the class's default does not fit.
    """

    meaning: str
    error: type[UpstreamError] = CozeApiError
    retries: int = 0
    retryable: bool | None = None
    hint: str | None = None
    retry_after: int | None = None


_ACCESS_HINT: Final = (
    "Check COZE_API_TOKEN: it may have expired, or belong to the other region "
    "(coze.cn and coze.com have separate accounts; COZE_API_URL must match)."
)
_BALANCE_HINT: Final = "Top up or renew the Coze account's plan."

CODES: Final[Mapping[int, CodeRule]] = MappingProxyType(
    {
        400: CodeRule("request rejected", hint="Check COZE_BOT_ID (digits only) and the request's fields."),
        401: CodeRule("not authorized", hint=_ACCESS_HINT),
        500: CodeRule("internal error", retries=1, retryable=True),
        4000: CodeRule("parameters not valid", hint="Check COZE_BOT_ID and the request's fields."),
        4001: CodeRule("chat not found", hint="The chat belongs to another token, or Coze no longer has it."),
        4002: CodeRule(
            "conversation not found", hint="The conversation belongs to another token, or was deleted."
        ),
        4003: CodeRule("too much meta_data", hint="At most 16 pairs; keys of 64, values of 512 characters."),
        4004: CodeRule("too many additional_messages", hint="At most 100 messages."),
        4005: CodeRule("message not valid", hint="Check the content of additional_messages."),
        4006: CodeRule("bot not found", hint="Check COZE_BOT_ID, and that the token may use this bot."),
        4007: CodeRule("auto_save_history=false needs streaming", hint="Set COZE_USE_STREAM=true."),
        4008: CodeRule(
            "daily use of the bot spent",
            CozeRateLimited,
            hint="Raise the bot's daily limit.",
            retry_after=3600,
        ),
        4009: CodeRule("Coze is busy", CozeOverloaded, retries=UNLIMITED),
        4010: CodeRule(
            "prompt too long for the model", hint="Shorten the message, the history or the prompt."
        ),
        4011: CodeRule("token balance too low", CozeQuotaExhausted, hint=_BALANCE_HINT),
        4012: CodeRule("model not valid for the bot", hint="Choose another model in the bot's settings."),
        4013: CodeRule("model rate limit", CozeRateLimited, retries=UNLIMITED, retry_after=5),
        4014: CodeRule("the bot cannot answer this"),
        4015: CodeRule("bot not published as API", hint="Publish the bot to the API channel in Coze."),
        4016: CodeRule("the conversation has a running chat", CozeBusy),
        4019: CodeRule("pay-as-you-go balance empty", CozeQuotaExhausted, hint=_BALANCE_HINT),
        # Not repeated here: the window is a minute, longer than any backoff of ours.
        4020: CodeRule("requests per minute exceeded", CozeRateLimited, hint="Buy more RPM for the bot."),
        4021: CodeRule("workflow not configured", hint="Check the bot's workflow."),
        4022: CodeRule("model service overdue", CozeQuotaExhausted, hint=_BALANCE_HINT),
        4027: CodeRule("paid plan overdue", CozeQuotaExhausted, hint=_BALANCE_HINT),
        4028: CodeRule("credits used up", CozeQuotaExhausted, hint=_BALANCE_HINT),
        4100: CodeRule("token not accepted", hint=_ACCESS_HINT),
        4101: CodeRule(
            "no permission",
            hint="Give the token the permissions chat, getChat, cancelChat, listMessage, createConversation "
            "and uploadFile for the bot's workspace; check that region and token match.",
        ),
        4102: CodeRule("stopped by risk control", hint="Coze saw unusual activity on this account."),
        4104: CodeRule("the chat cannot be cancelled in its state"),
        4105: CodeRule("sensitive content", hint="Check the bot's own settings in Coze."),
        4200: CodeRule("resource not found", hint="Check the bot's workflow and resources."),
        4201: CodeRule("already exists"),
        4300: CodeRule("file is empty"),
        4301: CodeRule("more than one file"),
        4302: CodeRule("file too large"),
        4303: CodeRule("file type not supported"),
        4304: CodeRule("file not valid"),
        4314: CodeRule("workflow execution not found"),
        4315: CodeRule("workflow execution has ended"),
        5000: CodeRule(
            "internal error", retries=2, retryable=True, hint="If it stays: check COZE_BOT_ID and the bot."
        ),
        6006: CodeRule("a code node of the workflow ran too long", retries=1, retryable=True),
        701231: CodeRule("the chat failed"),
        702042018: CodeRule("workspace member limit"),
        702042078: CodeRule("publish server trouble", retries=1, retryable=True),
        702042162: CodeRule("not a member of the enterprise"),
        700012006: CodeRule("login state not valid", hint=_ACCESS_HINT),
        720701004: CodeRule("a plugin failed", retryable=True),
        720701013: CodeRule("the workflow failed"),
        720702001: CodeRule("workflow input not valid", hint="Check `parameters`."),
        720702002: CodeRule("workflow input missing", hint="Check `parameters`."),
        720702004: CodeRule("workflow not found", hint="Check the bot's workflow."),
        720702011: CodeRule("workflow not published", hint="Publish the bot's workflow."),
        720702078: CodeRule("the workflow cannot be interrupted"),
        720702085: CodeRule("the workflow ran too long", retries=1, retryable=True),
        720702200: CodeRule("conversation name taken"),
        720702201: CodeRule("conversation name not found"),
        720702204: CodeRule("conversation name not found"),
        720702222: CodeRule("server trouble", retries=2, retryable=True),
        777777775: CodeRule("the workflow failed"),
        777777776: CodeRule("a node of the workflow ran too long", retryable=True),
        777777777: CodeRule("the workflow was cancelled"),
        788788103: CodeRule("balance empty", CozeQuotaExhausted, hint=_BALANCE_HINT),
        103000000: CodeRule("parameters not valid", hint="Check COZE_BOT_ID and the request's fields."),
        103000001: CodeRule("not authorized", hint=_ACCESS_HINT),
        103000002: CodeRule("conversation not found"),
        103100001: CodeRule("the agent failed", hint="Look into the log of coze-studio."),
        103100002: CodeRule("bot not found", hint="Check COZE_BOT_ID."),
        103200002: CodeRule("internal error", retries=1, retryable=True, hint="Often the model's settings."),
        103200003: CodeRule("record not found"),
        103200004: CodeRule("workflow not configured", hint="Check the bot's workflow."),
        103200005: CodeRule("the chat cannot be cancelled in its state"),
    }
)

_STORE_TROUBLE: Final = CodeRule("server trouble", retries=1, retryable=True)
_SERVER_SIDE: Final = CodeRule("unknown error", retryable=True)
_UNKNOWN: Final = CodeRule("unknown error")
"""What a code that nobody knows means is not known either: a refusal for unusual traffic gets worse by each
repetition, so neither is repeated."""

_NOT_PROCESSED: Final = frozenset({500, 502, 503})
"""Statuses without a JSON code after which a chat cannot have begun. 504 is not among them: a gateway that
gave up waiting had passed the request on."""


def rule_for(code: int) -> CodeRule:
    """The rule of any code: a listed one, else that of its family."""
    if code in CODES:
        return CODES[code]
    if 720700800 <= code <= 720700899:
        return _STORE_TROUBLE
    if 5000 <= code <= 5999:
        return _SERVER_SIDE
    return _UNKNOWN


def coze_error(
    code: int | None,
    *,
    logid: str | None = None,
    http_status: int | None = None,
    maybe_started: bool,
    retry_after: int | None = None,
) -> UpstreamError:
    """The error for a Coze code, or for an HTTP status where Coze gave no code.

    The text is ours: Coze's ``msg`` can hold stack traces and prompts and is never passed on.

    ``maybe_started``: whether a chat may have begun all the same; ``retry_after``: seconds, from the answer's
    header.
    """
    if code is None:
        return _status_error(http_status, logid, maybe_started, retry_after)
    rule = rule_for(code)
    error = rule.error
    if http_status == 429 and error is CozeApiError:
        error = CozeRateLimited
    return error(
        f"Coze answered with code {code}: {rule.meaning}",
        coze_code=code,
        logid=logid,
        hint=rule.hint,
        maybe_started=maybe_started,
        retryable=rule.retryable,
        retry_after=retry_after if retry_after is not None else rule.retry_after,
    )


_WRONG_PATH: Final = "Check COZE_API_URL and COZE_BASE_URL: the server does not know this path."
_HINTS: Final = {401: _ACCESS_HINT, 403: CODES[4101].hint, 404: _WRONG_PATH, 405: _WRONG_PATH}
"""By HTTP status, where Coze gave no code."""


def _status_error(
    status: int | None, logid: str | None, maybe_started: bool, retry_after: int | None
) -> UpstreamError:
    if status is None:
        return CozeApiError(
            "Coze reported a failure without a code", logid=logid, maybe_started=maybe_started
        )
    hint = _HINTS.get(status)
    if 300 <= status < 400:
        hint = "The address redirects; set COZE_API_URL and COZE_BASE_URL to the final one."
    error = CozeRateLimited if status == 429 else CozeApiError
    return error(
        f"Coze answered with HTTP status {status}",
        logid=logid,
        hint=hint,
        maybe_started=maybe_started,
        retryable=True if status in (408, 429) or status >= 500 else None,
        retry_after=retry_after,
    )


def status_may_have_started(status: int) -> bool:
    """Whether a chat may exist after an answer with this status and without a JSON code."""
    return not (status == 429 or status in _NOT_PROCESSED or (300 <= status < 500 and status != 408))


def retries_before_start(error: UpstreamError) -> int:
    """How often the failed request may be sent again without the risk of a second chat."""
    return 0 if error.maybe_started else _retries(error)


def retries_when_safe(error: UpstreamError) -> int:
    """How often a request may be sent again that has no effect, or the same effect each time."""
    # A read timeout has already cost a whole deadline: once more is enough.
    return min(1, _retries(error)) if error.maybe_started and error.status == 504 else _retries(error)


def _retries(error: UpstreamError) -> int:
    code = error.coze_code
    if code is None or (code not in CODES and code <= 9999 and error.status == 429):
        return UNLIMITED if error.retryable else 0
    return rule_for(code).retries
