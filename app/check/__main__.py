"""``python -m app.check``: exit status 0 where all is well, 1 with warnings, 2 with failures.

With ``--live`` Coze itself is asked; then 0 is only for a Coze on which no answer is lost.
"""

import argparse
import asyncio
import os
import sys
from pathlib import Path

from loguru import logger

from app.check import Line, check, exit_code
from app.check.live import COST, REPORT_NAME, Finding, Report, ask_coze, keep
from app.config import load_settings
from app.config.faults import SettingsError
from app.exceptions import UpstreamError
from app.logging_config import write_stdout

_ENV_FILE = Path(".env")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./run-service.sh check")
    parser.add_argument(
        "--live", action="store_true", help="ask the configured Coze itself; costs some tokens"
    )
    parser.add_argument("--yes", action="store_true", help="with --live: do not ask first")
    return parser.parse_args()


def report_path() -> Path:
    return Path(os.environ.get("COZE_RUN_DIR") or ".run") / REPORT_NAME


async def find_lines() -> list[Line]:
    """What ``check`` finds. A fault of its own is a failure, too: a traceback may hold a secret."""
    [found] = await asyncio.gather(check(_ENV_FILE, report_path()), return_exceptions=True)
    if not isinstance(found, BaseException):
        return found
    text = f"the check itself broke ({type(found).__name__})"
    return [Line("fail", "check", text, "look at the lines of the service's log instead", "检查程序出错")]


def look() -> int:
    lines = asyncio.run(find_lines())
    worst = exit_code(lines)
    ending = ("All is well. 一切正常。\n", "Warnings. 有警告。\n", "Failures. 有错误。\n")[worst]
    write_stdout("".join(f"{line}\n" for line in lines) + ending)
    return worst


def look_live(*, yes: bool) -> int:
    """Asks first, since it costs something."""
    try:
        settings = load_settings(_env_file=_ENV_FILE)
    except SettingsError as error:
        write_stdout("".join(f"{fault}\n" for fault in error.faults))
        return 2
    write_stdout(f"{COST}\n")
    if not yes and not _agreed():
        write_stdout("Nothing was asked. 未执行。\n")
        return 2
    try:
        report = asyncio.run(ask_coze(settings, _tell))
    except UpstreamError as error:
        write_stdout(f"There is no token to ask with: {error.message} {error.hint or ''}\n")
        return 2
    _conclude(report)
    return 0 if report.holds else 2


def _agreed() -> bool:
    if not sys.stdin.isatty():
        write_stdout("This is no terminal: say --yes to go on.\n")
        return False
    write_stdout("Go on? [y/N] ")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _tell(finding: Finding) -> None:
    write_stdout(f"{finding}\n")


def _conclude(report: Report) -> None:
    path = report_path()
    try:
        keep(report, path)
        kept = f"The report is in {path}: it holds no token, id or text, and may be sent to the project."
    except OSError as error:
        kept = f"The report could not be written to {path} ({type(error).__name__})."
    chinese = "不会丢失回答" if report.holds else "可能丢失回答，请按上面各行处理"
    write_stdout(f"On this Coze {report.summary}. {chinese}。\n{kept}\n")


def main() -> int:
    logger.remove()  # what goes wrong is said in the lines
    arguments = parse()
    try:
        return look_live(yes=arguments.yes) if arguments.live else look()
    except BrokenPipeError:  # who read it has gone; Python would complain at its end, too
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2
    except KeyboardInterrupt:
        return 2


if __name__ == "__main__":
    sys.exit(main())
