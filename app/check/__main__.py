"""``python -m app.check``: exit status 0 where all is well, 1 with warnings, 2 with failures."""

import asyncio
import os
import sys
from pathlib import Path

from loguru import logger

from app.check import Line, check, exit_code
from app.logging_config import write_stdout


async def find_lines() -> list[Line]:
    """What ``check`` finds. A fault of its own is a failure, too: a traceback may hold a secret."""
    [found] = await asyncio.gather(check(Path(".env")), return_exceptions=True)
    if not isinstance(found, BaseException):
        return found
    text = f"the check itself broke ({type(found).__name__})"
    return [Line("fail", "check", text, "look at the lines of the service's log instead", "检查程序出错")]


def main() -> int:
    logger.remove()  # what goes wrong is said in the lines
    try:
        lines = asyncio.run(find_lines())
        worst = exit_code(lines)
        ending = ("All is well. 一切正常。\n", "Warnings. 有警告。\n", "Failures. 有错误。\n")[worst]
        write_stdout("".join(f"{line}\n" for line in lines) + ending)
    except BrokenPipeError:  # who read it has gone; Python would complain at its end, too
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        return 2
    return worst


if __name__ == "__main__":
    sys.exit(main())
