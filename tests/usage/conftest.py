"""Two replicas that may be killed, as the fault tests have them."""

from tests.faults.conftest import _shared_cluster, clients, pair

__all__ = ["_shared_cluster", "clients", "pair"]
