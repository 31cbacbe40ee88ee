"""The settings that the scripts need, as NAME=value lines: ``python scripts/settings.py ROOT``.

They are read, and refused, by the code of the service. Exit 78 with a line when a value cannot be used. Never
prints the Coze token.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(sys.argv[1])
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from app.config import EX_CONFIG, load_settings, unknown_names  # noqa: E402
from app.config.faults import SettingsError, read_env_file  # noqa: E402
from app.config.redis_url import RedisAddress, parse_redis_url  # noqa: E402
from app.config.values import unquoted  # noqa: E402

TOKENS = {
    "COZE_API_TOKEN",
    "COZE_AUTHORIZATION",
    "COZE_API_TOKEN_FILE",
    "COZE_API_TOKENS",
    "COZE_OAUTH_APP_ID",
}
REMEMBERED = ("HOST", "PORT", "WORKERS", "SIMULATOR_PORT", "REDIS_URL")
THIS_MACHINE = {"localhost", "::1", "0.0.0.0"}


def describe_redis(url: str) -> dict[str, str]:
    """What the scripts may do with this address: none, start one here (local), or only ask it (remote)."""
    address: RedisAddress = parse_redis_url(url)
    shown = {"REDIS_SHOWN": address.shown, "REDIS_PORT": "", "REDIS_BIND": ""}
    if address.kind != "single" or not address.nodes:
        return shown | {"REDIS_KIND": "memory" if address.kind == "memory" else "remote"}
    host, port = address.nodes[0]
    plain = url.startswith("redis://") and not address.has_login
    kind = "local" if plain and (host in THIS_MACHINE or host.startswith("127.")) else "remote"
    bind = host if host.startswith("127.") or host == "::1" else "127.0.0.1"
    return shown | {"REDIS_KIND": kind, "REDIS_PORT": str(port), "REDIS_BIND": bind}


def reachable_at(host: str) -> str:
    """The address under which this machine reaches a server that listens on ``host``."""
    if host in ("0.0.0.0", ""):
        return "127.0.0.1"
    if host == "::":
        return "[::1]"
    return f"[{host}]" if ":" in host else host


def source(name: str, in_file: dict[str, str], written: dict[str, str]) -> str:
    if name not in written:
        return "default"
    return ".env" if in_file.get(name) and name not in os.environ else "environment"


def simulator_port(written: dict[str, str]) -> str:
    port = written.get("SIMULATOR_PORT", "5000")
    if not (port.isascii() and port.isdecimal() and 1 <= int(port) <= 65535):
        raise SettingsError("SIMULATOR_PORT: must be a whole number from 1 to 65535")
    return port


def collect(env_file: Path) -> dict[str, str]:
    """Raises ``SettingsError``. That a token or a bot is missing is left to whoever needs them."""
    in_file = read_env_file(env_file)
    set_to = {name: unquoted(value) for name, value in (in_file | dict(os.environ)).items()}
    written = {name: value for name, value in set_to.items() if value}
    stand_ins = {} if TOKENS & set(written) else {"COZE_API_TOKEN": "none"}
    stand_ins |= {} if "COZE_BOT_ID" in written else {"COZE_BOT_ID": "0"}
    settings = load_settings(_env_file=env_file, **stand_ins)
    found = {
        "HOST": settings.host,
        "PORT": str(settings.port),
        "WORKERS": str(settings.workers),
        "SIMULATOR_PORT": simulator_port(written),
        "DRAIN_SECONDS": str(int(settings.drain_seconds)),
        "LOG_ROTATION_MB": str(settings.log_rotation_mb),
        "REDIS_URL": settings.redis_url.get_secret_value(),
        "APP_MODE": settings.app_mode,
        "AUTH": "on" if settings.enable_auth else "off",
        "HAS_TOKEN": "" if "COZE_API_TOKEN" in stand_ins else "yes",
        "HAS_BOT": "" if "COZE_BOT_ID" in stand_ins else "yes",
        "URL": f"http://{reachable_at(settings.host)}:{settings.port}",
    }
    sources = {f"{name}_FROM": source(name, in_file, written) for name in REMEMBERED}
    return found | sources | describe_redis(found["REDIS_URL"])


def main() -> int:
    env_file = ROOT / ".env"
    try:
        found = collect(env_file)
        unknown = unknown_names(env_file)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return EX_CONFIG
    for sentence in unknown:
        print(f"WARNING: {sentence}", file=sys.stderr)
    sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")  # type: ignore[union-attr]
    for name, value in found.items():
        print(f"{name}={value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
