"""What tests of the running service stand on: a real Redis, the service itself, a client, golden files."""

from .client import Client, Event, EventReader, data_of, error_of, open_client, outputs_for
from .fake_clock import FakeClock, fake_clock, find_faketime
from .masking import Golden, mask
from .ports import bind_free, free_port
from .redis_server import RedisServer, redis_server
from .service import (
    BASE_VALUES,
    RunningApp,
    ServiceProcess,
    make_settings,
    running_app,
    service_process,
    settings_names,
)
from .simulator import SimControl
from .waiting import block_until, wait_until

__all__ = [
    "BASE_VALUES",
    "Client",
    "Event",
    "EventReader",
    "FakeClock",
    "Golden",
    "RedisServer",
    "RunningApp",
    "ServiceProcess",
    "SimControl",
    "bind_free",
    "block_until",
    "data_of",
    "error_of",
    "fake_clock",
    "find_faketime",
    "free_port",
    "make_settings",
    "mask",
    "open_client",
    "outputs_for",
    "redis_server",
    "running_app",
    "service_process",
    "settings_names",
    "wait_until",
]
