"""The async task layer: run, follow, cancel, take over, drain. It never sees a request or a status code."""

from app.tasks.feed import Batch, Ending, LocalFeed, ends_reading
from app.tasks.frames import error_of
from app.tasks.runner import Runner
from app.tasks.service import TaskOptions, TaskService

__all__ = ["Batch", "Ending", "LocalFeed", "Runner", "TaskOptions", "TaskService", "ends_reading", "error_of"]
