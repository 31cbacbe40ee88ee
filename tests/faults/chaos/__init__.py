"""Random faults under load through all doors, for as long as one likes: ``python -m tests.faults.chaos``."""

from .run import chaos
from .visits import Report

__all__ = ["Report", "chaos"]
