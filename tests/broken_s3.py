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


def drip_headers(connection: socket.socket) -> None:
    """Answer byte by byte, each soon enough for a timeout of a single wait."""
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while True:
        connection.sendall(b"x")
        time.sleep(0.05)


def drip_body(connection: socket.socket) -> None:
    """Answer at once, with a body that comes byte by byte."""
    connection.recv(65536)
    connection.sendall(b'HTTP/1.1 200 OK\r\nETag: "a"\r\nContent-Length: 1000\r\n\r\n')
    while True:
        connection.sendall(b"x")
        time.sleep(0.05)


def never_continue(connection: socket.socket) -> None:
    """Take the head of a request, and neither allow its body nor read it."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    head = b""
    while b"\r\n\r\n" not in head and (received := connection.recv(1)):
        head += received
    hung_up = select.poll()
    hung_up.register(connection, select.POLLRDHUP)
    hung_up.poll()


def break_off(connection: socket.socket) -> None:
    """Take what is written, promise a thousand bytes to a reader, send ten of them, and hang up."""
    while head := connection.recv(65536):
        length = 1000 if head.startswith((b"GET", b"HEAD")) else 0
        connection.sendall(b'HTTP/1.1 200 OK\r\nETag: "a"\r\nContent-Length: %d\r\n\r\n' % length)
        if head.startswith(b"GET"):
            connection.sendall(b"x" * 10)
            connection.shutdown(socket.SHUT_RDWR)
