"""What can be seen without asking anybody: ``.env``, the files it names, and how clocks compare."""

import os
from pathlib import Path
from typing import Final

from app.check.lines import Line, Severity
from app.config import unknown_names

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
        text = f"it cannot be read ({type(error).__name__})"
        fix = f"chown {os.geteuid()} {path.name} && chmod 600 {path.name}"
        return Line("fail", ".env", text, fix, "无法读取 .env")
    if stat.st_mode & 0o077:
        mode = f"{stat.st_mode & 0o777:03o}"
        text = f"others on this machine may read it (mode {mode}), and it holds secrets"
        return Line("warn", ".env", text, "chmod 600 .env", "其他用户可读取 .env，请收紧权限")
    return Line("ok", ".env", "readable by its owner alone", "", "权限正确")


def check_names(path: Path) -> list[Line]:
    """Names in ``path`` or the environment that are close to a setting's, and none."""
    return [
        Line("warn", "settings", text.rstrip("?"), "correct the name", "配置项名称可能写错")
        for text in unknown_names(path)
    ]


def check_clock(offsets: dict[str, float]) -> Line:
    """``offsets``: by whose clock it is, the seconds by which that one is ahead of ours."""
    if not offsets:
        return Line("skip", "clock", "nobody told the time to compare with", "", "无法比较时钟")
    who, worst = max(offsets.items(), key=lambda item: abs(item[1]))
    if abs(worst) < _CLOCK_WARN_SECONDS:
        return Line("ok", "clock", f"within {abs(worst):.0f} s of {' and '.join(offsets)}", "", "时钟正常")
    severity: Severity = "fail" if abs(worst) > _CLOCK_FAIL_SECONDS else "warn"
    text = f"this machine is {abs(worst):.0f} s {'behind' if worst > 0 else 'ahead of'} {who}"
    fix = "synchronise it (chrony, systemd-timesyncd): signed tokens depend on it"
    return Line(severity, "clock", text, fix, "本机时间不准，请同步时钟")
