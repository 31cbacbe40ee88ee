"""What can be seen without asking anybody: ``.env``, the files it names, and how clocks compare."""

import os
from pathlib import Path
from typing import Final

from app.check.lines import Line
from app.config import Settings

_CLOCK_WARN_SECONDS: Final = 30.0
_CLOCK_FAIL_SECONDS: Final = 300.0
"""Seconds. A signed request that is further off is refused by most."""


def check_env_file(path: Path) -> Line:
    try:
        stat = path.stat()
        path.read_bytes()
    except FileNotFoundError:
        return Line("ok", ".env", "there is none: all settings come from the environment", "", "未使用 .env")
    except OSError as error:
        return Line(
            "fail",
            ".env",
            f"it cannot be read ({type(error).__name__})",
            f"chown {os.geteuid()} {path.name} && chmod 600 {path.name}",
            "无法读取 .env",
        )
    if stat.st_mode & 0o077:
        mode = f"{stat.st_mode & 0o777:03o}"
        return Line(
            "warn",
            ".env",
            f"others on this machine may read it (mode {mode}), and it holds secrets",
            "chmod 600 .env",
            "其他用户可读取 .env，请收紧权限",
        )
    return Line("ok", ".env", "readable by its owner alone", "", "权限正确")


def check_secret_files(settings: Settings) -> list[Line]:
    named = {
        "COZE_API_TOKEN_FILE": settings.api_token_file,
        "COZE_OAUTH_PRIVATE_KEY_FILE": settings.oauth_private_key_file,
    }
    lines = []
    for name, path in named.items():
        if path is None:
            continue
        try:
            empty = not path.read_bytes().strip()
        except OSError as error:
            text = f"{name}: the file cannot be read ({type(error).__name__})"
            fix = "correct the path, or let the service's user read it"
            lines.append(Line("fail", "secret file", text, fix, "密钥文件无法读取"))
        else:
            if empty:
                text, fix = f"{name}: the file is empty", "write the secret into it"
                lines.append(Line("fail", "secret file", text, fix, "密钥文件为空"))
    return lines


def check_clock(offsets: dict[str, float]) -> Line:
    """``offsets``: by whose clock it is, the seconds by which that one is ahead of ours."""
    if not offsets:
        return Line("skip", "clock", "nobody told the time to compare with", "", "无法比较时钟")
    who, worst = max(offsets.items(), key=lambda item: abs(item[1]))
    if abs(worst) < _CLOCK_WARN_SECONDS:
        return Line("ok", "clock", f"within {abs(worst):.0f} s of {' and '.join(offsets)}", "", "时钟正常")
    return Line(
        "fail" if abs(worst) > _CLOCK_FAIL_SECONDS else "warn",
        "clock",
        f"this machine is {abs(worst):.0f} s {'behind' if worst > 0 else 'ahead of'} {who}",
        "synchronise it (chrony, systemd-timesyncd): signed tokens depend on it",
        "本机时间不准，请同步时钟",
    )
