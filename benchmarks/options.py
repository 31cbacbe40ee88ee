"""What the command line has asked for."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """``seconds`` that a round is to take; ``minutes`` of churn; ``stall`` seconds without reading;
    ``streams`` open at once, ``messages`` of one session, ``sessions`` alive."""

    rounds: int = 5
    seconds: float = 3.0
    minutes: float = 1.0
    stall: float = 28.0
    streams: int = 5000
    messages: int = 10_000
    sessions: int = 100_000
