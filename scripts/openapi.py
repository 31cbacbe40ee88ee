"""Writes docs/openapi.json: the published contract, for readers and code generators, from the code alone.

``python scripts/openapi.py`` writes it; ``--check`` says whether it is current. No settings are read.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "docs" / "openapi.json"
COMMAND = ".venv/bin/python scripts/openapi.py"


def document() -> str:
    """Sorted, so that a change of the code's order is no change of the document."""
    sys.path.insert(0, str(ROOT))
    from app.main import create_app

    return json.dumps(create_app().openapi(), ensure_ascii=False, indent=2, sort_keys=True) + "\n"


def main(arguments: list[str]) -> int:
    current = document()
    if arguments == ["--check"]:
        if TARGET.is_file() and TARGET.read_text(encoding="utf-8") == current:
            return 0
        print(f"docs/openapi.json is not current; run: {COMMAND}", file=sys.stderr)
        return 1
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(current, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
