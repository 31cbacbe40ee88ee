"""The playground; off unless ENABLE_PLAYGROUND asks for it."""

from app.routes.static_files import page_router

router = page_router("playground", "index.html", lambda settings: settings.enable_playground)
