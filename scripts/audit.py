"""Asks pip-audit for known vulnerabilities of the locked dependencies.

Exit status: 0 none are known, 1 some are (they are printed), 3 the advisory service did not answer.
"""

import json
import subprocess
import sys
from typing import Any

_SECONDS = 90


def main() -> int:
    command = [
        sys.executable,
        "-m",
        "pip_audit",
        "-r",
        "requirements.lock",
        "--require-hashes",
        "--disable-pip",
    ]
    options = ["--progress-spinner", "off", "--timeout", "10", "-f", "json"]
    try:
        run = subprocess.run(
            [*command, *options], capture_output=True, text=True, timeout=_SECONDS, check=False
        )
        dependencies: list[dict[str, Any]] = json.loads(run.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, json.JSONDecodeError, KeyError):
        return 3
    audited = [item for item in dependencies if "skip_reason" not in item]
    if not audited:
        return 3
    vulnerable = [item for item in audited if item["vulns"]]
    for item in vulnerable:
        ids = ", ".join(str(vulnerability["id"]) for vulnerability in item["vulns"])
        sys.stdout.write(f"{item['name']} {item['version']}: {ids}\n")
    sys.stdout.write(f"{len(audited)} dependencies audited, {len(vulnerable)} with known vulnerabilities\n")
    return 1 if vulnerable else 0


if __name__ == "__main__":
    raise SystemExit(main())
