"""A local, faithful Coze: the v3 chat API on 127.0.0.1, with knobs for everything that can go wrong.

For people: ``python -m coze_simulator --port 5000``. For tests: :func:`running_simulator`, or
:func:`create_simulator` under a server of your own. It imports nothing of the service it is used to test,
so that a shared misreading of Coze cannot hide.
"""

from coze_simulator.app import Simulator, create_simulator
from coze_simulator.options import (
    SIMULATOR_BOT_ID,
    SIMULATOR_TOKEN,
    UNPUBLISHED_BOT_ID,
    VERSION,
    WRONG_TOKEN,
    SimulatorOptions,
)
from coze_simulator.server import RunningSimulator, running_simulator

__all__ = [
    "SIMULATOR_BOT_ID",
    "SIMULATOR_TOKEN",
    "UNPUBLISHED_BOT_ID",
    "VERSION",
    "WRONG_TOKEN",
    "RunningSimulator",
    "Simulator",
    "SimulatorOptions",
    "create_simulator",
    "running_simulator",
]
