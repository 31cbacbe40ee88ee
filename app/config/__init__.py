"""Settings: environment first, then ``.env``; validated once at start, nothing read at import."""

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AliasChoices,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.config.faults import SettingsError, explain, near_misses, read_env_file
from app.config.redis_url import parse_redis_url
from app.config.values import (
    base_address,
    chat_address,
    checked_origins,
    checked_token,
    checked_tokens,
    collector_address,
    proxy_address,
    unquoted,
    web_address,
)

REMOTE_CHAT_URL: Final = "https://api.coze.cn/v3/chat"
LOCAL_CHAT_URL: Final = "http://localhost:5000/coze/v3/chat"

EX_CONFIG: Final = 78
ENV_FILE: Final = Path(".env")
_MAY_BE_BLANK: Final = frozenset({"COZE_ADMIN_ROLES"})
"""Where nothing means nobody, and not the default."""
_NAMES_OF_SCRIPTS: Final = frozenset({"HOST_PORT", "SIMULATOR_PORT"})

Seconds = Annotated[float, Field(gt=0, le=86_400)]
Host = Annotated[
    str,
    Field(
        max_length=253,
        pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$",
        description="must be a host name: letters, digits, dots and hyphens, without scheme and port",
    ),
]


def _env(name: str, default: Any = ..., **rule: Any) -> Any:
    """A field that is read from the variable ``name`` alone."""
    return Field(default, validation_alias=AliasChoices(name), **rule)


_MIN_KEY_LENGTH: Final = 16
_NAME: Final = re.compile(r"[^\s,:\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]{1,64}")
_BOT_ID: Final = re.compile(r"[0-9A-Za-z_-]{1,64}")
_KEY_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_KEY: Final = re.compile(r"[!-+\--~]{16,512}")
"""Printable ASCII without a comma: it has to fit into a header."""


def parse_bots(listed: str) -> dict[str, str]:
    """``name:bot_id,name:bot_id``: bot ids by the model name that OpenAI's clients use. Raises ValueError."""
    bots: dict[str, str] = {}
    for number, entry in enumerate(filter(None, (part.strip() for part in listed.split(","))), 1):
        name, colon, bot_id = (part.strip() for part in entry.partition(":"))
        if not colon or not _NAME.fullmatch(name) or not _BOT_ID.fullmatch(bot_id):
            raise ValueError(f"entry {number} is not name:bot_id (entries are separated by commas)")
        if name in bots:
            raise ValueError(f"entry {number} repeats a name")
        bots[name] = bot_id
    return bots


def parse_api_keys(listed: str) -> dict[str, str]:
    """``name:key``, separated by commas or white space: names by key. Raises ValueError."""
    names: dict[str, str] = {}
    for number, entry in enumerate(filter(None, re.split(r"[\s,]+", listed)), 1):
        name, colon, key = entry.partition(":")
        if not colon or not _KEY_NAME.fullmatch(name) or not _KEY.fullmatch(key):
            raise ValueError(
                f"entry {number} is not name:key with a name of letters, digits, _ or - and a key of "
                f"{_MIN_KEY_LENGTH} to 512 printable characters"
            )
        if name in names.values() or key in names:
            raise ValueError(f"entry {number} repeats a name or a key")
        names[key] = name
    return names


def _checked(parse: Callable[[str], object]) -> Callable[[str], str]:
    """For what stays as it is written, once ``parse`` has understood it."""

    def check(text: str) -> str:
        parse(text)
        return text

    return check


_CLEANED: Final[dict[str, Callable[[str], str]]] = {
    "api_token": checked_token,
    "authorization": checked_token,
    "api_tokens": lambda listed: ",".join(checked_tokens(listed)),
    "base_url": base_address,
    "verify_url": partial(web_address, query=True),
    "otel_endpoint": collector_address,
    "proxy": proxy_address,
    "cors_allow_origins": lambda listed: ",".join(checked_origins(listed)),
    "host": lambda name: name[1:-1] if name.startswith("[") and name.endswith("]") else name,
    "log_level": str.upper,
    "redis_url": _checked(parse_redis_url),
    "openai_bots": _checked(parse_bots),
    "api_keys": _checked(parse_api_keys),
    "openai_api_keys": _checked(parse_api_keys),
}
"""What is made of a setting as it is written. Each raises ``ValueError`` for what it does not understand."""


class Settings(BaseSettings):
    """Everything that can be set. Units are in the comments of ``.env.example``."""

    model_config = SettingsConfigDict(
        env_file=".env", env_file_encoding="utf-8-sig", extra="ignore", frozen=True, case_sensitive=True
    )

    # Coze
    api_token: SecretStr | None = _env("COZE_API_TOKEN", None)
    api_token_file: Path | None = _env("COZE_API_TOKEN_FILE", None)
    authorization: SecretStr | None = _env("COZE_AUTHORIZATION", None)
    api_tokens: SecretStr | None = _env("COZE_API_TOKENS", None)
    oauth_app_id: str = _env("COZE_OAUTH_APP_ID", "", max_length=128)
    oauth_key_id: str = _env("COZE_OAUTH_KEY_ID", "", max_length=256)
    oauth_private_key_file: Path | None = _env("COZE_OAUTH_PRIVATE_KEY_FILE", None)
    bot_id: str = _env(
        "COZE_BOT_ID",
        pattern=r"^[0-9A-Za-z_-]{1,64}$",
        description="must be the bot's id alone, the number at the end of its address",
    )
    app_mode: Literal["remote", "local"] = _env("APP_MODE", "remote")
    base_url: str = _env("COZE_BASE_URL", "")
    api_url: str = _env("COZE_API_URL", "")
    proxy: SecretStr | None = _env("COZE_PROXY", None)
    use_stream: bool = _env("COZE_USE_STREAM", True)
    transport: Literal["aiohttp", "httpx"] = _env("COZE_HTTP_TRANSPORT", "aiohttp")
    timeout: Seconds = _env("COZE_TIMEOUT", 30.0)
    max_upstream_connections: int = _env("COZE_MAX_CONNECTIONS", 2000, ge=1, le=100_000)
    connect_timeout: Seconds = _env("COZE_CONNECT_TIMEOUT", 5.0)
    first_byte_timeout: Seconds = _env("COZE_FIRST_BYTE_TIMEOUT", 60.0)
    idle_timeout: Seconds = _env("COZE_IDLE_TIMEOUT", 120.0)
    chat_timeout: Seconds = _env("COZE_CHAT_TIMEOUT", 600.0)
    max_retries: int = _env("COZE_MAX_RETRIES", 3, ge=0, le=10)
    poll_interval: float = _env("COZE_POLL_INTERVAL", 1.0, ge=0.05, le=60)
    max_message_length: int = _env("COZE_MAX_MESSAGE_LENGTH", 4000, ge=1, le=1_000_000)

    # Redis and what is kept in it
    redis_url: SecretStr = _env("REDIS_URL", SecretStr("redis://localhost:6379/0"))
    redis_prefix: str = _env(
        "COZE_REDIS_PREFIX",
        "coze:",
        pattern=r"^[A-Za-z0-9_.:-]{1,64}$",
        description="must be 1 to 64 letters, digits or _ . : -",
    )
    redis_pool_size: int = _env("REDIS_POOL_SIZE", 64, ge=4, le=1000)
    redis_timeout: Seconds = _env("REDIS_TIMEOUT", 2.0)
    session_expire: int = _env("COZE_SESSION_EXPIRE", 3600, ge=1, le=30 * 86_400)
    result_expire: int = _env("COZE_RESULT_EXPIRE", 1800, ge=1, le=30 * 86_400)
    max_active_users: int = _env("COZE_MAX_ACTIVE_USERS", 1000, ge=1)
    max_sessions_per_user: int = _env("COZE_MAX_SESSIONS_PER_USER", 10, ge=1, le=1000)
    max_total_sessions: int = _env("COZE_MAX_TOTAL_SESSIONS", 5000, ge=1)
    max_opening_bytes: int = _env("COZE_MAX_OPENING_BYTES", 65_536, ge=1024, le=64 * 1024 * 1024)
    user_inactive_timeout: int = _env("COZE_USER_INACTIVE_TIMEOUT", 7200, ge=1)
    conversation_days: int = _env("COZE_CONVERSATION_DAYS", 180, ge=1, le=3650)
    usage_retention_days: int = _env("COZE_USAGE_RETENTION_DAYS", 35, ge=1, le=3650)
    usage_rows_per_day: int = _env("COZE_USAGE_ROWS_PER_DAY", 32_000, ge=32, le=10_000_000)
    daily_token_quota: int = _env("COZE_DAILY_TOKEN_QUOTA", 0, ge=0, le=10**15)
    total_daily_token_quota: int | None = _env("COZE_TOTAL_DAILY_TOKEN_QUOTA", None, ge=0, le=10**15)
    max_chat_log_bytes: int = _env("MAX_CHAT_LOG_BYTES", 16 * 1024 * 1024, ge=65_536)
    max_queued_per_session: int = _env("MAX_QUEUED_PER_SESSION", 3, ge=0, le=90)
    lease_seconds: float = _env("LEASE_SECONDS", 15.0, ge=1, le=600)

    # Callers
    enable_auth: bool = _env("ENABLE_AUTH", True)
    http_scheme: Literal["https://", "http://"] = _env("HTTP_SCHEME", "https://")
    alchemy_host: Host = _env("ALCHEMY_HOST", "alchemy-studio.cn")
    moicen_host: Host = _env("MOICEN_HOST", "moicen.com")
    huiwings_host: Host = _env("HUIWINGS_HOST", "huiwings.cn")
    local_host: Host = _env("LOCAL_HOST", "localhost")
    verify_url: str = _env("HTY_VERIFY_URL", "")
    jwt_key: SecretStr | None = _env("HTY_JWT_KEY", None)
    api_keys: SecretStr | None = _env("COZE_API_KEYS", None)
    api_keys_file: Path | None = _env("COZE_API_KEYS_FILE", None)
    auth_timeout: Seconds = _env("AUTH_TIMEOUT", 5.0)
    auth_cache_ttl: float = _env("AUTH_CACHE_TTL", 60.0, ge=0, le=3600)
    admin_roles: str = _env("COZE_ADMIN_ROLES", "ROOT,ADMIN")
    user_id_scope: Literal["root", "owner", "none"] = _env("COZE_USER_ID_SCOPE", "root")
    rate_messages_per_minute: int = _env("RATE_LIMIT_MESSAGES_PER_MINUTE", 60, ge=0, le=1_000_000)
    rate_sessions_per_minute: int = _env("RATE_LIMIT_SESSIONS_PER_MINUTE", 30, ge=0, le=1_000_000)
    rate_total_messages_per_minute: int | None = _env(
        "RATE_LIMIT_TOTAL_MESSAGES_PER_MINUTE", None, ge=0, le=100_000_000
    )
    rate_total_sessions_per_minute: int | None = _env(
        "RATE_LIMIT_TOTAL_SESSIONS_PER_MINUTE", None, ge=0, le=100_000_000
    )
    owner_share: float = _env("COZE_OWNER_SHARE", 0.2, gt=0, le=1)
    root_share: float = _env("COZE_ROOT_SHARE", 0.8, gt=0, le=1)
    max_concurrent_chats: int = _env("MAX_CONCURRENT_CHATS", 2000, ge=1, le=1_000_000)
    max_open_streams: int = _env("MAX_OPEN_STREAMS", 10_000, ge=1, le=1_000_000)
    max_open_streams_per_caller: int = _env("MAX_OPEN_STREAMS_PER_CALLER", 1000, ge=1, le=1_000_000)
    cors_allow_origins: str = _env("CORS_ALLOW_ORIGINS", "")
    allowed_hosts: str = _env("COZE_ALLOWED_HOSTS", "", max_length=10_000)
    enable_docs: bool = _env("ENABLE_DOCS", False)
    enable_playground: bool = _env("ENABLE_PLAYGROUND", False)
    enable_console: bool = _env("ENABLE_CONSOLE", True)
    max_body_bytes: int = _env("MAX_BODY_BYTES", 1024 * 1024, ge=1024, le=64 * 1024 * 1024)

    # OpenAI's clients
    openai_bots: str = _env("COZE_BOTS", "", max_length=100_000)
    openai_api_keys: SecretStr | None = _env("COZE_OPENAI_API_KEYS", None)
    openai_max_body_bytes: int = _env(
        "COZE_OPENAI_MAX_BODY_BYTES", 16 * 1024 * 1024, ge=1024, le=64 * 1024 * 1024
    )
    openai_api_keys_file: Path | None = _env("COZE_OPENAI_API_KEYS_FILE", None)
    openai_max_message_length: int = _env("COZE_OPENAI_MAX_MESSAGE_LENGTH", 100_000, ge=1, le=1_000_000)

    # Coze's own clients
    coze_max_body_bytes: int = _env("COZE_API_MAX_BODY_BYTES", 16 * 1024 * 1024, ge=1024, le=64 * 1024 * 1024)

    # Files
    max_file_bytes: int = _env("MAX_FILE_BYTES", 20 * 1024 * 1024, ge=1024, le=512 * 1024 * 1024)
    file_days: float = _env("COZE_FILE_DAYS", 90.0, gt=0, le=365, allow_inf_nan=False)
    upload_timeout: Seconds = _env("UPLOAD_TIMEOUT", 300.0)
    upload_idle_timeout: Seconds = _env("UPLOAD_IDLE_TIMEOUT", 30.0)

    # The process
    host: str = _env("HOST", "0.0.0.0")
    port: int = _env("PORT", 6000, ge=1, le=65_535)
    workers: int = _env("WORKERS", 1, ge=1, le=64)
    drain_seconds: float = _env("DRAIN_SECONDS", 20.0, ge=0, le=3600)
    heartbeat_seconds: Seconds = _env("SSE_HEARTBEAT_SECONDS", 15.0)
    log_level: Literal["TRACE", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = _env(
        "COZE_LOG_LEVEL", "INFO"
    )
    log_format: Literal["json", "console"] = _env("COZE_LOG_FORMAT", "json")
    log_file: str = _env("COZE_LOG_FILE", "")
    log_rotation_mb: float = _env("COZE_LOG_ROTATION_MB", 100.0, gt=0, le=100_000, allow_inf_nan=False)
    log_retention_days: float = _env("COZE_LOG_RETENTION_DAYS", 7.0, gt=0, le=3650, allow_inf_nan=False)
    otel_endpoint: str = _env("OTEL_EXPORTER_OTLP_ENDPOINT", "")
    otel_service: str = _env("OTEL_SERVICE_NAME", "coze-fastapi", min_length=1, max_length=128)

    @model_validator(mode="before")
    @classmethod
    def _blank_is_the_default(cls, values: dict[str, object]) -> dict[str, object]:
        """``COZE_TIMEOUT=`` is as if it were not there, and hides what ``.env`` says."""
        cleaned = {
            name: unquoted(value) if isinstance(value, str) else value for name, value in values.items()
        }
        return {name: value for name, value in cleaned.items() if value != "" or name in _MAY_BE_BLANK}

    @field_validator(*_CLEANED, mode="before")
    @classmethod
    def _clean(cls, value: object, info: ValidationInfo) -> object:
        return _CLEANED[str(info.field_name)](value) if isinstance(value, str) and value else value

    @field_validator("api_url")
    @classmethod
    def _chat_address_is_understood(cls, value: str, info: ValidationInfo) -> str:
        # Where the base could not be read that is a fault of its own, and not one of this setting.
        return chat_address(value, has_base=info.data.get("base_url") != "") if value else ""

    @model_validator(mode="after")
    def _belongs_together(self) -> "Settings":
        oauth = [bool(part) for part in (self.oauth_app_id, self.oauth_key_id, self.oauth_private_key_file)]
        if any(oauth) and not all(oauth):
            raise ValueError(
                "COZE_OAUTH_APP_ID, COZE_OAUTH_KEY_ID and COZE_OAUTH_PRIVATE_KEY_FILE belong together"
            )
        tokens = self.api_token_file or self.api_token or self.api_tokens or self.authorization
        if tokens is None and not any(oauth):
            raise ValueError(
                "COZE_API_TOKEN must be set (or COZE_API_TOKEN_FILE, COZE_AUTHORIZATION, COZE_API_TOKENS, "
                "or COZE_OAUTH_APP_ID with its key)"
            )
        if self.embedded_redis and self.workers > 1:
            raise ValueError("WORKERS must be 1 with REDIS_URL=memory://, which lives inside one process")
        return self

    @property
    def chat_url(self) -> str:
        """The address that chats are POSTed to."""
        return self.api_url or (REMOTE_CHAT_URL if self.app_mode == "remote" else LOCAL_CHAT_URL)

    @property
    def embedded_redis(self) -> bool:
        return self.redis_url.get_secret_value().startswith("memory://")

    @cached_property
    def bots(self) -> dict[str, str]:
        """Bot ids by model name; COZE_BOT_ID alone, as ``coze``, where no others are named."""
        return parse_bots(self.openai_bots) or {"coze": self.bot_id}

    @property
    def bot_ids(self) -> list[str]:
        """All configured bots, the default first."""
        return list(dict.fromkeys((self.bot_id, *self.bots.values())))

    def several_tokens(self) -> list[str]:
        """The tokens of COZE_API_TOKENS, in their order."""
        return self.api_tokens.get_secret_value().split(",") if self.api_tokens is not None else []


def load_settings(**values: Any) -> Settings:
    """Settings from ``values`` (by variable name), the environment and ``.env``, in that order.

    Raises:
        SettingsError: naming each variable that is missing or wrong.
    """
    env_file = values.get("_env_file", ENV_FILE)
    if env_file is not None:
        read_env_file(Path(env_file))  # pydantic's reader would end in a traceback
    try:
        return Settings(**values)
    except ValidationError as exc:
        faults = exc.errors(include_input=False, include_url=False)
        raise SettingsError(*(explain(fault, _described(fault)) for fault in faults)) from None


def _names() -> dict[str, str | None]:
    """The variables, and how each describes the form that its value must have."""
    found = {}
    for info in Settings.model_fields.values():
        alias = info.validation_alias
        if isinstance(alias, AliasChoices):
            found[str(alias.choices[0])] = info.description
    return found


def _described(fault: ErrorDetails) -> str | None:
    return _names().get(str(fault["loc"][0])) if fault["loc"] else None


def unknown_names(env_file: Path = ENV_FILE) -> list[str]:
    """A sentence for each name in ``env_file`` or the environment that is none of ours and close to one."""
    ours = list(_names())
    known = {*ours, *_NAMES_OF_SCRIPTS}
    in_file = set(read_env_file(env_file)) - known
    # The environment is full of other programs' names, OpenTelemetry's own among them.
    around = {name for name in os.environ if not name.startswith("OTEL_")} - known - in_file
    return [*near_misses(in_file, ours, 0.75), *near_misses(around, ours, 0.88)]


def get_coze_config() -> Settings:
    """The settings as the environment and ``.env`` have them now; raises ``SettingsError``."""
    return load_settings()


@contextlib.contextmanager
def exiting_if_wrong() -> Iterator[None]:
    """A wrong setting ends the process with one readable line and status 78 (EX_CONFIG)."""
    try:
        yield
    except SettingsError as exc:
        sys.stderr.write(f"{exc}\n")
        raise SystemExit(EX_CONFIG) from None
