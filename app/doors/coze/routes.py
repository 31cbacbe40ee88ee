"""Coze's routes under /coze/api."""

from app.doors.coze import chats, conversations, things

ROUTES = (*chats.router.routes, *conversations.router.routes, *things.router.routes)
