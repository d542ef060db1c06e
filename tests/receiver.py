"""A real webhook receiver on loopback, and a real file server, for tests."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Received:
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """Answers with *answers* in turn, then 204, and keeps what came."""

    url: str = ""
    requests: list[Received] = field(default_factory=list)
    answers: list[tuple[int, dict[str, str], bytes]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)


@contextmanager
def running_receiver() -> Iterator[Receiver]:
    """Serve on a free loopback port while the context lasts."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            receiver.requests.append(Received(self.command, self.path, dict(self.headers), body))
            self.answer(*(receiver.answers.pop(0) if receiver.answers else (204, {}, b"")))

        def do_PUT(self) -> None:
            self.do_POST()

        def do_GET(self) -> None:
            receiver.requests.append(Received("GET", self.path, dict(self.headers), b""))
            if receiver.answers:
                self.answer(*receiver.answers.pop(0))
            elif self.path in receiver.files:
                self.answer(200, {}, receiver.files[self.path])
            else:
                self.answer(404, {}, b"")

        def do_DELETE(self) -> None:
            receiver.requests.append(Received("DELETE", self.path, dict(self.headers), b""))
            self.answer(*(receiver.answers.pop(0) if receiver.answers else (204, {}, b"")))

        def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if "Content-Length" not in headers:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
