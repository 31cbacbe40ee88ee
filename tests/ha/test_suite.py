"""The suite of the event log and of takeover once more, on a Redis Cluster and behind Sentinels.

The tests are the very same; ``pair`` and ``clients`` of this directory are what differs.
"""

from __future__ import annotations

import pytest

from tests.faults.test_client_cuts import *  # noqa: F403
from tests.faults.test_cursors import *  # noqa: F403
from tests.faults.test_races import *  # noqa: F403
from tests.faults.test_takeover import *  # noqa: F403

pytestmark = pytest.mark.ha
