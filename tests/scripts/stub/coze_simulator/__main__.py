"""Stands in for the simulator where the scripts are tested: it starts at once and answers like a Coze."""

from __future__ import annotations

import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

BODY = b'{"code":4002,"msg":"no such conversation","detail":{"logid":"20250101"}}'


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)


if __name__ == "__main__":
    HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
