"""``python -m app.check``: exit status 0 where all is well, 1 with warnings, 2 with failures."""

import asyncio
import sys
from pathlib import Path

from loguru import logger

from app.check import check, exit_code


def main() -> int:
    logger.remove()  # what goes wrong is said in the lines
    lines = asyncio.run(check(Path(".env")))
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    worst = exit_code(lines)
    sys.stdout.write(("All is well. 一切正常。\n", "Warnings. 有警告。\n", "Failures. 有错误。\n")[worst])
    return worst


if __name__ == "__main__":
    sys.exit(main())
