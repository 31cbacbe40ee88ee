"""The async task layer: run, follow, cancel, take over, drain. It never sees a request or a status code."""

from app.tasks.attachments import Attachments
from app.tasks.chats import ChatLimits, ChatService, Started
from app.tasks.conversations import ConversationService
from app.tasks.files import FileOptions, FileService, file_view
from app.tasks.frames import error_of
from app.tasks.reader import Batch, Ending, Reader
from app.tasks.runner import Runner
from app.tasks.running import RunningChats
from app.tasks.sessions import SessionService, idempotency_of
from app.tasks.shutdown import Shutdown
from app.tasks.takeover import LeaseKeeper, scan_seconds
from app.tasks.usage import UsageService
from app.tasks.users import UserService

__all__ = [
    "Attachments",
    "Batch",
    "ChatLimits",
    "ChatService",
    "ConversationService",
    "Ending",
    "FileOptions",
    "FileService",
    "LeaseKeeper",
    "Reader",
    "Runner",
    "RunningChats",
    "SessionService",
    "Shutdown",
    "Started",
    "UsageService",
    "UserService",
    "error_of",
    "file_view",
    "idempotency_of",
    "scan_seconds",
]
