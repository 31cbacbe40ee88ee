"""What can be chosen when a simulator is made, and the well-known tokens and bots."""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

_PROJECT: Final = Path(__file__).resolve().parents[1] / "pyproject.toml"
VERSION: Final[str] = tomllib.loads(_PROJECT.read_text(encoding="utf-8"))["project"]["version"]

SIMULATOR_TOKEN = "pat_simulator"  # noqa: S105 - a public stand-in, no secret
WRONG_TOKEN = "pat_wrong"  # noqa: S105 - the one personal token that is refused (4100)
SIMULATOR_BOT_ID = "7380000000000000009"
UNPUBLISHED_BOT_ID = "7380000000000004015"  # the one bot that is "not published" (4015)

# Seconds between two deltas at speed 1: about twenty tokens a second, as chat models type.
TYPING_GAP = 0.05
# Seconds a bot "thinks" before its first delta at speed 1.
THINKING_TIME = 0.4

DialectName = Literal["cloud", "studio", "spaced"]
DisconnectPolicy = Literal["continue", "stop"]


@dataclass(frozen=True, slots=True)
class SimulatorOptions:
    """Choices for one simulator.

    ``dialect``: bytes of the cloud, of a self-hosted coze-studio, or of the docs (space after colons).
    ``speed``: multiplier of the typing speed; ``math.inf`` means no pauses at all.
    ``on_disconnect``: whether a chat goes on when its stream's connection drops (not known of the cloud).
    ``http_errors``: send 400/401/403/404/429 for the codes the JS SDK maps so, instead of 200 for everything.
    ``seed``: changes the wording of the answers; equal seeds give equal answers.
    ``id_seed``: with the same seed and clock the ids are the same, too; None: other ones each time.
    ``keeps_meta_data``: whether a chat tells the meta_data it was given.
    ``busy_as_event``: 4016 as the first event of a stream, where one was asked for.
    ``has_feedback``: whether there is an endpoint for feedback.
    ``max_conversations``: the oldest idle conversations are forgotten beyond this number.
    """

    dialect: DialectName = "cloud"
    speed: float = 1.0
    on_disconnect: DisconnectPolicy = "continue"
    http_errors: bool = False
    seed: int = 0
    max_conversations: int = 50_000
    keeps_meta_data: bool = True
    busy_as_event: bool = False
    has_feedback: bool = True
    id_seed: int | None = None

    def pace(self, seconds: float) -> float:
        """``seconds`` at speed 1, as seconds at this speed."""
        return 0.0 if math.isinf(self.speed) else seconds / self.speed


def parse_speed(text: str) -> float:
    """``max`` and ``0`` mean no pauses; otherwise a positive multiplier. Raises ValueError."""
    if text.strip().lower() == "max":
        return math.inf
    speed = float(text)
    if speed < 0 or math.isnan(speed):
        raise ValueError("the speed must be `max`, 0 or a positive number")
    return speed or math.inf
