"""Servers that take requests to S3 and answer badly, on loopback."""

import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from shared.config import StorageSettings


@contextmanager
def listening(serve: Callable[[socket.socket], None]) -> Iterator[tuple[StorageSettings, list[socket.socket]]]:
    """
    Settings of a server that gives every connection to *serve*, in a thread of its own; and these connections.

    Each is closed at the end, which ends calls that were given up and still wait for it.
    """
    arrived: list[socket.socket] = []
    threads: list[threading.Thread] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    arrived.append(server.accept()[0])
                    threads.append(threading.Thread(target=talk, args=[arrived[-1]]))
                    threads[-1].start()

        def talk(connection: socket.socket) -> None:
            with suppress(OSError):
                serve(connection)

        accepting = threading.Thread(target=accept)
        accepting.start()
        settings = StorageSettings(
            url="s3://bucket/prefix",
            endpoint_url=f"http://127.0.0.1:{server.getsockname()[1]}",
            region="us-east-1",
            access_key_id="id",
            secret_access_key="secret",
        )
        try:
            yield settings, arrived
        finally:
            server.shutdown(socket.SHUT_RDWR)
            accepting.join()
            for connection in arrived:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join()
            for connection in arrived:
                connection.close()


def say_nothing(connection: socket.socket) -> None:
    """Read, and never answer."""
    while connection.recv(65536):
        pass


def drip(connection: socket.socket) -> None:
    """Go on byte by byte until the other side hangs up."""
    while True:
        connection.sendall(b"x")
        time.sleep(0.05)


def drip_headers(connection: socket.socket) -> None:
    """Answer byte by byte, each soon enough for a timeout of a single wait."""
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    drip(connection)


def drip_body(connection: socket.socket) -> None:
    """Answer at once, with a body that comes byte by byte."""
    connection.recv(65536)
    connection.sendall(b'HTTP/1.1 200 OK\r\nETag: "a"\r\nContent-Length: 1000\r\n\r\n')
    drip(connection)


def never_continue(connection: socket.socket) -> None:
    """Take the head of a request, and neither allow its body nor read it."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    head = b""
    while b"\r\n\r\n" not in head and (received := connection.recv(1)):
        head += received
    hung_up = select.poll()
    hung_up.register(connection, select.POLLRDHUP)
    hung_up.poll()


def answering(*fields: bytes, body: bytes = b"") -> Callable[[socket.socket], None]:
    """Answer every request with these fields of a head and this body, and hang up."""

    def serve(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"\r\n".join([b"HTTP/1.1 200 OK", b"Connection: close", *fields, b"", body]))
        connection.shutdown(socket.SHUT_RDWR)

    return serve


class LosesItsAnswer:
    """
    Takes an upload in parts, hangs up without an answer when it is completed, and then knows of no such upload.

    Args:
        stored: Answer to HEAD, but for its first line's version.
    """

    def __init__(self, stored: bytes) -> None:
        self._stored = stored
        self._is_complete = False
        self.asked: list[bytes] = []

    def __call__(self, connection: socket.socket) -> None:
        """Answer all requests of one connection."""
        while head := self._request(connection):
            method, target = head.split(b" ", 2)[:2]
            self.asked.append(method)
            if method == b"POST" and b"uploadId" in target and not self._is_complete:
                self._is_complete = True
                connection.shutdown(socket.SHUT_RDWR)
                return
            status, body = b"200 OK", b""
            if method == b"HEAD":
                status = self._stored
            elif method == b"POST" and b"uploadId" in target:
                status, body = b"404 Not Found", b"<Error><Code>NoSuchUpload</Code></Error>"
            elif method == b"POST":
                body = b"<Begun><UploadId>u</UploadId></Begun>"
            length = b"" if method == b"HEAD" else b"Content-Length: %d\r\n" % len(body)
            connection.sendall(b'HTTP/1.1 %b\r\nETag: "a"\r\n%b\r\n%b' % (status, length, body))

    @staticmethod
    def _request(connection: socket.socket) -> bytes:
        """The head of the next request, of which the body is read as well; empty at the end."""
        head = b""
        while b"\r\n\r\n" not in head:
            if not (received := connection.recv(1)):
                return b""
            head += received
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if line)
        if fields.get(b"expect") == b"100-continue":
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        left = int(fields.get(b"content-length", 0))
        while left:
            left -= len(connection.recv(min(left, 65536)))
        return head


def break_off(connection: socket.socket) -> None:
    """Take what is written, promise a thousand bytes to a reader, send ten of them, and hang up."""
    while head := connection.recv(65536):
        length = 1000 if head.startswith((b"GET", b"HEAD")) else 0
        connection.sendall(b'HTTP/1.1 200 OK\r\nETag: "a"\r\nContent-Length: %d\r\n\r\n' % length)
        if head.startswith(b"GET"):
            connection.sendall(b"x" * 10)
            connection.shutdown(socket.SHUT_RDWR)
