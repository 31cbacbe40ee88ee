"""The async task layer: run, follow, cancel, take over, drain. It never sees a request or a status code."""

from app.tasks.feed import Batch, ChatFeed, Ending
from app.tasks.frames import error_of
from app.tasks.runner import Runner
from app.tasks.running import RunningChats
from app.tasks.service import Started, TaskOptions, TaskService
from app.tasks.takeover import LeaseKeeper
from app.tasks.users import UserService

__all__ = [
    "Batch",
    "ChatFeed",
    "Ending",
    "LeaseKeeper",
    "Runner",
    "RunningChats",
    "Started",
    "TaskOptions",
    "TaskService",
    "UserService",
    "error_of",
]
