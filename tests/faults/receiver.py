"""A webhook receiver that often misbehaves and records what it receives."""

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook, WebhookVerificationError

HANG_S = 3.0
"""Longer than the service's timeout."""
MOODS = ("good",) * 6 + ("error", "hang", "redirect", "half")


@dataclass
class Memory:
    """Received events, by job."""

    ids: dict[str, set[str]] = field(default_factory=dict)
    """Job, or stream and number of an alert → webhook ids with which its event was received."""
    delivered: set[str] = field(default_factory=set)
    """Those of them whose event got a response of 2xx."""
    unsigned: int = 0
    moods: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextmanager
def moody_receiver(secret: str, seed: int) -> Iterator[tuple[str, Memory]]:
    """Serve on a free loopback port while the context lasts; yields the address and what was received."""
    memory, rng, signature = Memory(), random.Random(seed), Webhook(secret)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            with memory.lock:
                mood = rng.choice(MOODS)
                memory.moods[mood] += 1
                try:
                    event: Any = signature.verify(body, {name.lower(): value for name, value in self.headers.items()})
                except WebhookVerificationError:
                    memory.unsigned += 1
                    mood = "error"
                else:
                    data = event["data"]
                    # Alerts of a stream are told apart by the number of their event.
                    key = data["id"] if "id" in data else f"{data['stream_id']}/{data['seq']}"
                    memory.ids.setdefault(key, set()).add(self.headers["webhook-id"])
                    if mood == "good":
                        memory.delivered.add(key)
            if mood == "hang":
                time.sleep(HANG_S)
            elif mood == "half":
                self.wfile.write(b"HTTP/1.1 200 O")
                self.close_connection = True
            else:
                status = {"good": 204, "error": 500, "redirect": 302}[mood]
                self.send_response(status)
                if mood == "redirect":
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """Ignore connections that end because the service was killed during a delivery."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", memory
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
