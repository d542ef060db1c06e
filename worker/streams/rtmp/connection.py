"""A connection of a publisher: the conversation on a socket, with a rate."""

import contextlib
import socket
import time
from collections.abc import Iterator
from typing import Final

from worker.streams.rtmp.errors import ProtocolError
from worker.streams.rtmp.session import Event, Session

RECEIVE_BYTES: Final = 64 * 1024
CHUNK_COST_BYTES: Final = 512
"""What a chunk counts towards the rate beside its bytes: very small ones cost far more time than their bytes."""
SEND_TIMEOUT_S: Final = 2.0
GOODBYE_S: Final = 0.5


class ConnectionLostError(Exception):
    """The connection has ended without a word."""


class Connection:
    """
    A publisher's connection. It is used by one thread at a time.

    Args:
        peer: The socket, which belongs to the connection from now on.
        max_bytes_per_s: What is read faster is slowed down, by not reading it.
    """

    def __init__(self, peer: socket.socket, *, max_picture_bytes: int, max_bytes_per_s: int) -> None:
        self._peer = peer
        self._max_bytes_per_s = max_bytes_per_s
        self._free_at = time.monotonic()
        self._chunks = 0
        self.session = Session(max_picture_bytes)

    @property
    def pause_s(self) -> float:
        """How long to wait before the next bytes are read, for the rate."""
        return max(0.0, self._free_at - time.monotonic())

    def events(self, timeout_s: float) -> Iterator[Event]:
        """
        Read once, for at most *timeout_s*, and answer; yield what came.

        An iteration that is left early goes on with the next call.

        Raises:
            ConnectionLostError: The connection has ended.
            ProtocolError: The publisher does not keep to RTMP, or exceeds a limit.
        """
        yield from self.session.receive(b"")
        data = self._read(timeout_s)
        if data is None:
            return
        try:
            yield from self.session.receive(data)
        finally:
            chunks = self.session.chunks - self._chunks
            self._chunks += chunks
            cost = len(data) + chunks * CHUNK_COST_BYTES
            # One second of the rate may come at once.
            self._free_at = max(self._free_at, time.monotonic() - 1.0) + cost / self._max_bytes_per_s
        self.flush()

    def flush(self) -> None:
        """Send the answers. Raises ConnectionLostError if they cannot be sent."""
        replies = self.session.take_replies()
        if not replies:
            return
        try:
            self._peer.settimeout(SEND_TIMEOUT_S)
            self._peer.sendall(replies)
        except (OSError, ValueError) as error:
            raise ConnectionLostError from error

    def close(self) -> None:
        """Send what is left to say, and close the connection."""
        with self._peer, contextlib.suppress(OSError, ValueError, ProtocolError, ConnectionLostError):
            self.flush()
            self._peer.shutdown(socket.SHUT_WR)
            # Closing with unread bytes resets the connection, and the last answer would be lost.
            deadline = time.monotonic() + GOODBYE_S
            while (left_s := deadline - time.monotonic()) > 0:
                self._peer.settimeout(left_s)
                if not self._peer.recv(RECEIVE_BYTES):
                    return

    def _read(self, timeout_s: float) -> bytes | None:
        """Read what is there; None if nothing came in time."""
        try:
            self._peer.settimeout(timeout_s)
            data = self._peer.recv(RECEIVE_BYTES)
        except TimeoutError:
            return None
        except (OSError, ValueError) as error:
            raise ConnectionLostError from error
        if not data:
            raise ConnectionLostError
        return data
