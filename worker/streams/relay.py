"""
The worker's side of a conversation with a streaming server: a relay of bytes to one checked address.

ffmpeg is in a network namespace without a way out. Whatever it connects to there arrives here, and goes to the one
server that was resolved and checked, over TLS where the scheme asks for it.
"""

import asyncio
import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from ipaddress import IPv4Address, IPv6Address
from types import TracebackType
from typing import Any, Final, Self

from shared.errors import SourceError, SourceRefusedError, SourceUnreachableError

BLOCK_BYTES: Final = 64 * 1024
MAX_CONNECTIONS: Final = 4
"""Connections in a conversation: RTMP connects again to answer a challenge."""
POLL_S: Final = 0.1
JOIN_S: Final = 2.0

_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Relay:
    """
    Context manager with the connections to one server; they are served by a thread.

    Args:
        address: Checked address of the server.
        kind: ``tcp`` or ``udp``.
        tls_name: Name for SNI and the certificate; None for a connection without TLS.
        max_bytes_per_s: Rate at which the server is read.
    """

    def __init__(
        self,
        address: IPv4Address | IPv6Address,
        port: int,
        *,
        kind: str,
        tls_name: str | None,
        timeout_s: float,
        max_bytes_per_s: int,
    ) -> None:
        self._address = str(address)
        self._port = port
        self._kind = kind
        self._tls_name = tls_name
        self._timeout_s = timeout_s
        self._max_bytes_per_s = max_bytes_per_s
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="stream-relay", daemon=True)
        self._first: _Streams | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(JOIN_S)

    def connect(self, should_stop: Callable[[], bool]) -> bool:
        """
        Connect to the server; return whether it happened before *should_stop*.

        Raises:
            SourceUnreachableError: There is no connection in time.
            SourceRefusedError: The server has no valid certificate for its name.
        """
        if self._kind == "udp":
            return True
        future = self._submit(self._connect_first())
        while not future.done():
            if should_stop():
                return False
            with contextlib.suppress(TimeoutError):
                future.exception(POLL_S)
        future.result()
        return True

    def serve(self, listener: socket.socket) -> None:
        """Relay what arrives at *listener*, from now on."""
        listener.setblocking(False)
        self._submit(self._serve_datagrams(listener) if self._kind == "udp" else self._serve_streams(listener))

    def _submit(self, work: Coroutine[Any, Any, None]) -> Future[None]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        # Also those whose task was cancelled before it began, and those with data that nobody reads.
        for writer in self._writers:
            writer.transport.abort()
        # Closed transports free their sockets in the next round of the loop.
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _connect_first(self) -> None:
        self._first = await self._connect()

    async def _connect(self) -> _Streams:
        context = ssl.create_default_context() if self._tls_name is not None else None
        try:
            async with asyncio.timeout(self._timeout_s):
                streams = await asyncio.open_connection(
                    self._address, self._port, ssl=context, server_hostname=self._tls_name, limit=BLOCK_BYTES
                )
        except ssl.SSLCertVerificationError as error:
            raise SourceRefusedError("the source has no valid certificate for its name") from error
        except ssl.SSLError as error:
            raise SourceRefusedError("the source does not speak TLS at this port") from error
        except TimeoutError as error:
            raise SourceUnreachableError("the source did not answer in time") from error
        except OSError as error:
            raise SourceUnreachableError("the source could not be reached (no connection)") from error
        self._writers.append(streams[1])
        return streams

    async def _serve_streams(self, listener: socket.socket) -> None:
        for _ in range(MAX_CONNECTIONS):
            accepted, _ = await self._loop.sock_accept(listener)
            accepted.setblocking(False)
            local = await asyncio.open_connection(sock=accepted, limit=BLOCK_BYTES)
            self._writers.append(local[1])
            task = self._loop.create_task(self._bridge(local))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _bridge(self, local: _Streams) -> None:
        remote: _Streams | None = None
        pumps: list[asyncio.Task[None]] = []
        try:
            remote, self._first = self._first, None
            remote = remote or await self._connect()
            pumps = [
                self._loop.create_task(self._pump(remote[0], local[1], self._max_bytes_per_s)),
                self._loop.create_task(self._pump(local[0], remote[1], self._max_bytes_per_s)),
            ]
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            # What the server sent last may still be on its way to ffmpeg.
            with contextlib.suppress(OSError):
                local[1].write_eof()
        except (SourceError, OSError):
            pass  # ffmpeg sees that the connection ends, which is all there is to know.
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            local[1].close()
            if remote is not None:
                remote[1].transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, max_bytes_per_s: int) -> None:
        free_at = time.monotonic()
        with contextlib.suppress(OSError):
            while block := await reader.read(BLOCK_BYTES):
                writer.write(block)
                await writer.drain()
                # One second of the rate may come at once.
                free_at = max(free_at, time.monotonic() - 1.0) + len(block) / max_bytes_per_s
                if (wait_s := free_at - time.monotonic()) > 0:
                    await asyncio.sleep(wait_s)

    async def _serve_datagrams(self, listener: socket.socket) -> None:
        family = socket.AF_INET6 if ":" in self._address else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as remote:
            remote.setblocking(False)
            remote.connect((self._address, self._port))
            peer: Any = None
            count, since = 0, time.monotonic()

            async def send() -> None:
                nonlocal peer
                while True:
                    data, peer = await self._loop.sock_recvfrom(listener, BLOCK_BYTES)
                    # A network that loses datagrams is what the protocol expects.
                    with contextlib.suppress(OSError):
                        remote.send(data)

            async def receive() -> None:
                nonlocal count, since
                while True:
                    try:
                        data = await self._loop.sock_recv(remote, BLOCK_BYTES)
                    except OSError:
                        await asyncio.sleep(POLL_S)  # Nobody listens at the port.
                        continue
                    now = time.monotonic()
                    if now - since > 1.0:
                        count, since = 0, now
                    count += len(data)
                    if peer is not None and count <= self._max_bytes_per_s:
                        with contextlib.suppress(OSError):
                            listener.sendto(data, peer)

            await asyncio.gather(send(), receive())
