"""``python -m tests.hardening.flood PORT CONNECTIONS < REQUESTS``: sends requests, one after the other on
each of its connections, and writes how many answers had which status.

A process of its own, so that the service and who watches it do not wait for this one. REQUESTS: one a line, a
JSON text with the whole of it.
"""

from __future__ import annotations

import json
import re
import selectors
import socket
import sys
from collections import Counter

_HEAD = re.compile(rb"HTTP/1\.1 (\d{3}) ")
"""Wherever it stands: the end of a body may come in one piece with the head behind it."""


def main() -> None:
    port, connections = int(sys.argv[1]), int(sys.argv[2])
    waiting = [json.loads(line).encode("latin-1") for line in sys.stdin]
    found: Counter[str] = Counter()
    with selectors.DefaultSelector() as selector:
        for _ in range(min(connections, len(waiting))):
            link = socket.create_connection(("127.0.0.1", port), timeout=60)
            link.sendall(waiting.pop())
            selector.register(link, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select(60):
                link = key.fileobj  # type: ignore[assignment]  # sockets are all that was registered
                answer = link.recv(65536)
                statuses = _HEAD.findall(answer)
                if answer and not statuses:
                    continue  # the body of one whose head was read before
                found.update(status.decode() for status in statuses or [b"closed"])
                if waiting and answer:
                    link.sendall(waiting.pop())
                else:
                    selector.unregister(link)
                    link.close()
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
