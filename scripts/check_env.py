"""Does this interpreter's environment hold exactly the versions that a lock file pins?

Run by the environment's own Python, standard library only: ``python scripts/check_env.py LOCK``.
Exit 0: every pinned package is there in its version (more may be there). Exit 1: says what is not.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from importlib import metadata
from pathlib import Path

PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)\s*(?:;\s*(.*?))?\s*\\?$")
ATOM = re.compile(r"([a-z_]+)\s*(==|!=|<=|>=|<|>)\s*'([^']*)'")


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def version_key(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text))


def compare(name: str, operator: str, wanted: str) -> bool:
    facts = {
        "python_full_version": platform.python_version(),
        "python_version": f"{sys.version_info[0]}.{sys.version_info[1]}",
        "sys_platform": sys.platform,
        "os_name": os.name,
        "platform_system": platform.system(),
        "platform_machine": platform.machine(),
        "platform_python_implementation": platform.python_implementation(),
        "implementation_name": sys.implementation.name,
    }
    have = facts[name]
    left, right = (version_key(have), version_key(wanted)) if name.startswith("python_") else (have, wanted)
    if operator in ("==", "!="):
        return (left == right) is (operator == "==")
    if operator in ("<", "<="):
        return left < right or (operator == "<=" and left == right)  # type: ignore[operator]
    return left > right or (operator == ">=" and left == right)  # type: ignore[operator]


def applies(marker: str | None) -> bool:
    """The markers that uv writes: comparisons joined by and, or and brackets."""
    if not marker:
        return True
    plain = ATOM.sub(lambda found: str(compare(*found.groups())), marker)
    if not re.fullmatch(r"(?:True|False|and|or|[\s()])+", plain):
        return True
    return bool(eval(plain, {"__builtins__": {}}))  # nosec B307 - nothing but True, False, and, or is left


def missing(lock: Path) -> list[str]:
    installed = {normal(dist.name): dist.version for dist in metadata.distributions() if dist.name}
    wrong = []
    for line in lock.read_text(encoding="utf-8").splitlines():
        pin = PIN.match(line)
        if pin and applies(pin[3]) and installed.get(normal(pin[1])) != pin[2]:
            wrong.append(f"{pin[1]}: {installed.get(normal(pin[1]), 'not installed')}, wanted {pin[2]}")
    return wrong


def main() -> int:
    wrong = missing(Path(sys.argv[1]))
    print("\n".join(wrong), end="")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
