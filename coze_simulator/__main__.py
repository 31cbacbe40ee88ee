"""``python -m coze_simulator``: serves a simulator until SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import logging
import math
import sys
from collections.abc import Sequence
from contextlib import ExitStack

from coze_simulator.app import create_simulator
from coze_simulator.auth_server import running_auth
from coze_simulator.core import PREFIX
from coze_simulator.options import SIMULATOR_BOT_ID, SIMULATOR_TOKEN, VERSION, SimulatorOptions, parse_speed
from coze_simulator.server import SimulatorServer, bind, root_url


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="coze_simulator",
        description="A local Coze (v3 chat API), at the root and under /coze.",
        epilog="Faults: write [[sim:key=value;key=value]] into a message, or POST rules to /_sim/knobs; keys "
        "are the fields of coze_simulator.knobs.Knobs. Also /_sim/log, /_sim/state, /_sim/upstream. On the "
        "auth port: GET or POST /_sim/tokens, POST /_sim/mode, /_sim/revoke; /_sim/log.",
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=5000, help="0 picks a free port (default: %(default)s)")
    parser.add_argument("--dialect", choices=["cloud", "studio", "spaced"], default="cloud")
    parser.add_argument(
        "--speed",
        type=_speed,
        default=1.0,
        help="multiplier of the typing speed; 0 or max: no pauses (default: 1)",
    )
    parser.add_argument(
        "--on-disconnect",
        choices=["continue", "stop"],
        default="continue",
        help="what a chat does when its stream's connection drops (default: %(default)s)",
    )
    parser.add_argument(
        "--http-errors", action="store_true", help="errors with HTTP 400/401/403/404/429, not 200"
    )
    parser.add_argument("--seed", type=int, default=0, help="changes the wording of the answers")
    parser.add_argument(
        "--auth-port", type=int, help="also serve a stand-in for the auth service; 0 picks a free port"
    )
    parser.add_argument(
        "--auth-key", help="what the stand-in signs tokens with, for HTY_JWT_KEY (default: random)"
    )
    parser.add_argument("--log-level", choices=["debug", "info", "warning", "error"], default="info")
    parser.add_argument("--version", action="version", version=VERSION)
    return parser


def _speed(text: str) -> float:
    try:
        return parse_speed(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 1 when the address is taken."""
    chosen = build_parser().parse_args(arguments)
    logging.basicConfig(
        level=chosen.log_level.upper(),
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    logging.getLogger("uvicorn").setLevel(
        "WARNING" if chosen.log_level == "info" else chosen.log_level.upper()
    )
    options = SimulatorOptions(
        dialect=chosen.dialect,
        speed=chosen.speed,
        on_disconnect=chosen.on_disconnect,
        http_errors=chosen.http_errors,
        seed=chosen.seed,
    )
    with ExitStack() as stack:
        try:
            listener = stack.enter_context(bind(chosen.host, chosen.port))
        except OSError as error:
            return _cannot_listen(chosen.host, chosen.port, error)
        auth = None
        if chosen.auth_port is not None:
            try:
                auth = stack.enter_context(
                    running_auth(chosen.auth_key, host=chosen.host, port=chosen.auth_port)
                )
            except OSError as error:
                return _cannot_listen(chosen.host, chosen.auth_port, error)
        _announce(chosen.host, listener.getsockname()[1], options)
        if auth is not None:
            print(
                f"auth stand-in listening on {auth.root_url} (HTY_VERIFY_URL={auth.verify_url})", flush=True
            )
        server = SimulatorServer(create_simulator(options))
        try:
            server.run(sockets=[listener])
        except KeyboardInterrupt:
            return 130
    return 0


def _cannot_listen(host: str, port: int, error: OSError) -> int:
    print(f"coze-simulator: cannot listen on {host}:{port}: {error}", file=sys.stderr)
    return 1


def _announce(host: str, port: int, options: SimulatorOptions) -> None:
    address = root_url(host, port)
    speed = "max" if math.isinf(options.speed) else f"{options.speed:g}"
    print(
        f"coze-simulator {VERSION} listening on {address} (Coze at {address}{PREFIX}/v3/chat); "
        f"dialect {options.dialect}, speed {speed}, on-disconnect {options.on_disconnect}; "
        f"token {SIMULATOR_TOKEN}, bot {SIMULATOR_BOT_ID}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
