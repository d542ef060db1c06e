"""MPEG-TS over UDP: what somebody sends to a port of this machine, or to a multicast group."""

import ipaddress
import select
import socket
import struct
import time
from typing import Final

from shared.errors import SourceUnreachableError
from worker.streams.feeds import BLOCK_BYTES, POLL_S, Feed, Run

RECEIVE_BUFFER_BYTES: Final = 4 * 1024**2


class UDPFeed(Feed):
    """
    A feed from the first sender that is heard; datagrams of others are ignored.

    Args:
        host: Address to listen at, or multicast group to join; None for every address.
        max_bytes_per_s: What exceeds it is dropped.

    Raises:
        SourceUnreachableError: The port cannot be opened.
    """

    def __init__(self, host: str | None, port: int, max_bytes_per_s: int) -> None:
        super().__init__()
        self._max_bytes_per_s = max_bytes_per_s
        try:
            address = ipaddress.ip_address(host) if host else None
        except ValueError as error:
            raise SourceUnreachableError("the address after udp:// must be an IP address of this machine") from error
        family = socket.AF_INET6 if address is not None and address.version == 6 else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
            self._socket.bind((host or "", port))
            if address is not None and address.is_multicast:
                level, option = socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP
                if address.version == 6:
                    level, option = socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP
                self._socket.setsockopt(level, option, address.packed + struct.pack("I", 0))
        except OSError as error:
            self._socket.close()
            raise SourceUnreachableError(f"port {port} could not be opened for receiving") from error

    def read(self) -> None:
        """Collect datagrams into blocks, for at most ``POLL_S``."""
        with self._socket:
            self._socket.setblocking(False)
            # Not select(), which fails in a process with more than 1,024 open files.
            poll = select.poll()
            poll.register(self._socket, select.POLLIN)
            sender = None
            block = bytearray()
            flush_at = window = time.monotonic()
            count = 0
            if not self.put(Run("mpegts")):
                return
            while not self.is_stopped:
                now = time.monotonic()
                if block and (now >= flush_at or len(block) > BLOCK_BYTES):
                    self.offer(bytes(block))
                    block.clear()
                if not poll.poll(1000 * POLL_S / 2):
                    continue
                data, origin = self._socket.recvfrom(BLOCK_BYTES)
                sender = sender or origin
                if now - window > 1.0:
                    window, count = now, 0
                count += len(data)
                if origin != sender or count > self._max_bytes_per_s:
                    continue
                if not block:
                    flush_at = now + POLL_S / 2
                block += data
