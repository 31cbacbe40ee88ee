"""coze-fastapi: an async gateway between an organisation's apps and the Coze v3 chat API."""

__version__ = "0.1.0"
