"""The console of administrators; on unless ENABLE_CONSOLE says otherwise. All that it shows comes from
``/coze/admin``."""

from app.routes.static_files import page_router

router = page_router("console", "console.html", lambda settings: settings.enable_console)
