"""coze-fastapi: an async gateway between an organisation's apps and the Coze v3 chat API."""

import tomllib
from pathlib import Path
from typing import Final

_PROJECT: Final = Path(__file__).resolve().parents[1] / "pyproject.toml"

__version__: Final[str] = tomllib.loads(_PROJECT.read_text(encoding="utf-8"))["project"]["version"]
"""As pyproject.toml has it: the one place where a release changes it."""
