"""The settings that the scripts need, as NAME=value lines: ``python scripts/settings.py ROOT MODE``.

Environment first, then ROOT/.env by python-dotenv's rules, then the defaults. Run by the service's own
Python. Exit 2 with a sentence when a value cannot be used. Never prints the Coze token.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from dotenv import dotenv_values

DEFAULTS = {
    "HOST": "0.0.0.0",
    "PORT": "6000",
    "WORKERS": "1",
    "REDIS_URL": "redis://localhost:6379/0",
    "SIMULATOR_PORT": "5000",
    "APP_MODE": "remote",
    "ENABLE_AUTH": "true",
    "DRAIN_SECONDS": "20",
}
TOKENS = (
    "COZE_API_TOKEN",
    "COZE_AUTHORIZATION",
    "COZE_API_TOKEN_FILE",
    "COZE_API_TOKENS",
    "COZE_OAUTH_APP_ID",
)
GROUPS = ("redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")
THIS_MACHINE = {"localhost", "127.0.0.1", "::1", "0.0.0.0", ""}


class Unusable(ValueError):
    """A setting that cannot be used, with its name and its rule."""


class Settings:
    def __init__(self, environ: Mapping[str, str], dotenv: Mapping[str, str | None]) -> None:
        self.environ = environ
        self.dotenv = {name: value for name, value in dotenv.items() if value}

    def source(self, name: str) -> str:
        if self.environ.get(name):
            return "environment"
        return ".env" if name in self.dotenv else "default"

    def get(self, name: str) -> str:
        value = self.environ.get(name) or self.dotenv.get(name) or DEFAULTS.get(name, "")
        value = value.strip()
        if any(ord(char) < 32 for char in value):
            raise Unusable(f"{name} holds a control character or a line break")
        return value

    def number(self, name: str, low: int, high: int) -> int:
        value = self.get(name)
        try:
            number = float(value) if name == "DRAIN_SECONDS" else int(value)
        except ValueError:
            number = low - 1
        if not low <= number <= high:
            raise Unusable(f"{name}={value!r} is not a number from {low} to {high}")
        return int(number)

    def has(self, *names: str) -> bool:
        return any(self.get(name) for name in names)


def describe_redis(url: str) -> dict[str, str]:
    """What the scripts may do with this address: none, start one here (local), or only ask it (remote)."""
    if url.startswith("memory:"):
        return {"REDIS_KIND": "memory", "REDIS_SHOWN": "memory://", "REDIS_PORT": "", "REDIS_BIND": ""}
    parts = urlsplit(url)
    if parts.scheme in GROUPS:
        shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        return {"REDIS_KIND": "remote", "REDIS_SHOWN": shown, "REDIS_PORT": "", "REDIS_BIND": ""}
    try:
        port = parts.port or 6379
    except ValueError:
        raise Unusable("REDIS_URL has a port that is not a number from 1 to 65535") from None
    if parts.scheme not in ("redis", "rediss", "unix"):
        raise Unusable(
            "REDIS_URL must begin with redis://, rediss://, unix://, redis+sentinel://, redis+cluster:// "
            "or memory://"
        )
    host = unquote(parts.hostname or "")
    shown = f"{parts.scheme}://{host or 'localhost'}:{port}{parts.path}"
    if parts.scheme == "unix":
        shown = f"unix://{parts.path}"
    plain = parts.scheme == "redis" and not parts.password
    kind = "local" if plain and (host in THIS_MACHINE or host.startswith("127.")) else "remote"
    bind = host if host.startswith("127.") or host == "::1" else "127.0.0.1"
    return {"REDIS_KIND": kind, "REDIS_SHOWN": shown, "REDIS_PORT": str(port), "REDIS_BIND": bind}


def reachable_at(host: str) -> str:
    """The address under which this machine reaches a server that listens on ``host``."""
    if host in ("0.0.0.0", ""):
        return "127.0.0.1"
    if host == "::":
        return "[::1]"
    return f"[{host}]" if ":" in host else host


def collect(settings: Settings) -> dict[str, str]:
    found = {
        "HOST": settings.get("HOST"),
        "PORT": str(settings.number("PORT", 1, 65535)),
        "WORKERS": str(settings.number("WORKERS", 1, 64)),
        "SIMULATOR_PORT": str(settings.number("SIMULATOR_PORT", 1, 65535)),
        "DRAIN_SECONDS": str(settings.number("DRAIN_SECONDS", 0, 3600)),
        "REDIS_URL": settings.get("REDIS_URL"),
        "APP_MODE": settings.get("APP_MODE"),
        "AUTH": "on"
        if settings.get("ENABLE_AUTH").lower() in ("1", "true", "yes", "on", "t", "y")
        else "off",
        "HAS_TOKEN": "yes" if settings.has(*TOKENS) else "",
        "HAS_BOT": "yes" if settings.has("COZE_BOT_ID") else "",
    }
    found["URL"] = f"http://{reachable_at(found['HOST'])}:{found['PORT']}"
    for name in ("HOST", "PORT", "WORKERS", "SIMULATOR_PORT", "REDIS_URL"):
        found[f"{name}_FROM"] = settings.source(name)
    return found | describe_redis(found["REDIS_URL"])


def main() -> int:
    root = Path(sys.argv[1])
    try:
        settings = Settings(os.environ, dotenv_values(root / ".env", encoding="utf-8"))
        found = collect(settings)
    except UnicodeDecodeError:
        print(".env is not UTF-8 text", file=sys.stderr)
        return 2
    except Unusable as error:
        print(str(error), file=sys.stderr)
        return 2
    for name, value in found.items():
        print(f"{name}={value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
