"""What tests of the running service stand on: a real Redis, the service itself, a client, golden files."""

from .client import Client, Event, EventReader, data_of, error_of, open_client, wait_until
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

__all__ = [
    "BASE_VALUES",
    "Client",
    "Event",
    "EventReader",
    "Golden",
    "RedisServer",
    "RunningApp",
    "ServiceProcess",
    "SimControl",
    "bind_free",
    "data_of",
    "error_of",
    "free_port",
    "make_settings",
    "mask",
    "open_client",
    "redis_server",
    "running_app",
    "service_process",
    "settings_names",
    "wait_until",
]
