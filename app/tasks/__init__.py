"""The async task layer: run, follow, cancel, take over, drain. It never sees a request or a status code."""

from app.tasks.attachments import Attachments
from app.tasks.conversations import ConversationService
from app.tasks.drafts import idempotency_of
from app.tasks.feed import Batch, ChatFeed, Ending
from app.tasks.files import FileOptions, FileService, file_view
from app.tasks.frames import error_of
from app.tasks.runner import Runner
from app.tasks.running import RunningChats
from app.tasks.service import Started, TaskOptions, TaskService
from app.tasks.single import SingleChats
from app.tasks.takeover import LeaseKeeper, scan_seconds
from app.tasks.usage import UsageService
from app.tasks.users import UserService

__all__ = [
    "Attachments",
    "Batch",
    "ChatFeed",
    "ConversationService",
    "Ending",
    "FileOptions",
    "FileService",
    "LeaseKeeper",
    "Runner",
    "RunningChats",
    "SingleChats",
    "Started",
    "TaskOptions",
    "TaskService",
    "UsageService",
    "UserService",
    "error_of",
    "file_view",
    "idempotency_of",
    "scan_seconds",
]
