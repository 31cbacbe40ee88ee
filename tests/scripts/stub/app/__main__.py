"""Stands in for the service where the scripts are tested: health, and what it was started with."""

from __future__ import annotations

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SHOWN = (
    "CORS_ALLOW_ORIGINS",
    "HOST",
    "PORT",
    "WORKERS",
    "REDIS_URL",
    "APP_MODE",
    "COZE_API_URL",
    "COZE_API_TOKEN",
    "ENABLE_AUTH",
)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status = os.environ.get("STUB_STATUS", "healthy")
        data = {
            "status": status,
            "service": "coze-api",
            "env": {name: os.environ.get(name) for name in SHOWN},
        }
        body = json.dumps({"success": True, "timestamp": "", "error": None, "data": data}).encode()
        self.send_response(200 if status == "healthy" else 503)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(ThreadingHTTPServer):
    allow_reuse_port = False


if __name__ == "__main__":
    if "STUB_FAILS" in os.environ:
        sys.exit("stub: the flux capacitor is missing")
    print("stub: listening", flush=True)
    Server((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
