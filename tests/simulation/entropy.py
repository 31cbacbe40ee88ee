"""All that is random comes from the seed: ids, jitter, secrets."""

from __future__ import annotations

import os
import random
from typing import Any


def seed_everything(seed: object) -> None:
    """For this process and from now on; to be called anew for each scenario."""
    source = random.Random(f"entropy {seed}")
    module: Any = random
    module._urandom = source.randbytes  # behind secrets and SystemRandom
    os.urandom = source.randbytes
    random.seed(f"shared {seed}")
