"""
The intake of live streams: one connection to a source becomes pieces of video that can be decoded on their own.

RTSP, RTMP and SRT are conversations, which ffmpeg has with one server, in a network namespace without a way out
(``launcher``, ``relay``). HLS and MPEG-TS over UDP are read by the worker, and ffmpeg has no network (``hls``,
``udp``). In both cases ffmpeg only takes the video out of its container, and the worker cuts it (``matroska``,
``cutting``). docs/streams.md describes it.
"""

import contextlib
import os
import selectors
import time
from collections.abc import Callable, Generator, Iterator
from typing import Final
from urllib.parse import SplitResult, parse_qsl, quote

from shared.errors import DeepfakeStreamError, ForbiddenURLError, SourceStalledError
from shared.outbound import check_source_url
from worker.media.sandbox import sandbox
from worker.outbound import resolve_host
from worker.streams.child import StreamChild
from worker.streams.commands import read_from_pipe, read_from_script, write_script
from worker.streams.cutting import Cutter
from worker.streams.feeds import Feed
from worker.streams.hls import HLSFeed
from worker.streams.matroska import Packet, Parser, Track
from worker.streams.relay import Relay
from worker.streams.rtmp.connection import Connection
from worker.streams.rtmp.feed import PushFeed
from worker.streams.udp import UDPFeed
from worker.streams.values import Piece, Position, Source, StreamLimits

__all__ = ["Piece", "Position", "Source", "StreamLimits", "read_pieces", "read_pushed"]

BLOCK_BYTES: Final = 64 * 1024
POLL_S: Final = 0.2
FEED_POLL_S: Final = 0.02
PORTS: Final = {"rtsp": 554, "rtsps": 322, "rtmp": 1935, "rtmps": 443, "srt": 0}
"""Scheme of a conversation → its usual port."""
SRT_OPTIONS: Final = frozenset({"streamid", "latency", "mode"})


class _StoppedError(Exception):
    """The caller wants no more pieces."""


def read_pieces(
    source: Source,
    *,
    segment_s: float,
    limits: StreamLimits,
    allow_insecure: bool,
    timeout_s: float,
    should_stop: Callable[[], bool],
    position: Position | None = None,
) -> Generator[Piece, None, None]:
    """
    Connect to *source* once and yield its video in pieces, until the source ends.

    Everything that belongs to the connection ends with the iterator: close it, or let it end. Take all pieces in one
    thread, with which the child process ends.

    Args:
        segment_s: Length of the pieces; the cuts are at the first picture after it.
        allow_insecure: Accept ``http:``, ``udp:`` and addresses that are not publicly reachable.
        timeout_s: Longest time without a picture, also at the beginning.
        should_stop: Asked several times a second; the iterator then ends within a second, after what has arrived.
        position: Where an earlier connection to an HLS source stopped reading; it is updated.

    Raises:
        ForbiddenURLError: The URL or its address is not allowed.
        SourceUnreachableError: There is no connection.
        SourceRefusedError: The server refused.
        SourceStalledError: No picture came for *timeout_s*.
        MediaError: What came is no video that is accepted, or exceeds a limit.
        DecodeError: ffmpeg was killed.
    """
    parts = check_source_url(source.url, allow_insecure=allow_insecure)
    reader = _Reader(Cutter(segment_s, limits), limits, timeout_s, should_stop)
    if parts.scheme in PORTS:
        pieces = _read_conversation(source, parts, reader, allow_insecure=allow_insecure)
    elif parts.scheme == "udp":
        pieces = _read_feed(UDPFeed(parts.hostname, parts.port or 0, limits.max_bytes_per_s), reader)
    else:
        feed = HLSFeed(source, limits, allow_insecure=allow_insecure, timeout_s=timeout_s, position=position)
        pieces = _read_feed(feed, reader)
    yield from _read_to_end(pieces, reader)


def read_pushed(
    connection: Connection,
    *,
    segment_s: float,
    limits: StreamLimits,
    timeout_s: float,
    should_stop: Callable[[], bool],
) -> Generator[Piece, None, None]:
    """
    Yield the video of a publisher in pieces, until it ends; see ``read_pieces``.

    Args:
        connection: A connection whose key was accepted. It is closed at the end.
    """
    reader = _Reader(Cutter(segment_s, limits), limits, timeout_s, should_stop)
    yield from _read_to_end(_read_feed(PushFeed(connection), reader), reader)


def _read_to_end(pieces: Iterator[Piece], reader: "_Reader") -> Generator[Piece, None, None]:
    try:
        yield from pieces
    except _StoppedError:
        pass
    except DeepfakeStreamError:
        # The pictures before the failure are worth as much as any others.
        with contextlib.suppress(DeepfakeStreamError):
            yield from reader.cutter.finish()
        raise
    yield from reader.cutter.finish()


class _Reader:
    """Reads the output of ffmpeg into a cutter, and the input from a feed, if there is one."""

    def __init__(self, cutter: Cutter, limits: StreamLimits, timeout_s: float, should_stop: Callable[[], bool]) -> None:
        self.cutter = cutter
        self.limits = limits
        self.timeout_s = timeout_s
        self.should_stop = should_stop
        self._began: float | None = None

    def read(self, child: StreamChild, feed: Feed | None, pending: bytes = b"") -> Iterator[Piece]:
        """Yield the pieces of what *child* writes, to its end. *pending* is written to it first."""
        parser = Parser(self.limits.max_picture_bytes)
        pictures = self.cutter.pictures
        heard = time.monotonic()
        is_open = True
        with selectors.DefaultSelector() as selector:
            selector.register(child.stdout, selectors.EVENT_READ)
            while True:
                self.check_stop()
                child.check_processor_time()
                if is_open and not pending:
                    pending, is_open = _next_blocks(feed)
                    if not is_open:
                        child.stdin.close()
                if pending:
                    pending = _write(child, pending)
                ready = selector.select(FEED_POLL_S if is_open else POLL_S)
                if ready:
                    block = os.read(child.stdout.fileno(), BLOCK_BYTES)
                    if not block:
                        break
                    for event in parser.feed(block):
                        yield from self._take(event, feed, time.monotonic() - heard)
                        # The time in which the caller worked is not the source's.
                        heard = time.monotonic()
                    self._wait_for_clock()
                if time.monotonic() - heard > self.timeout_s:
                    raise SourceStalledError(f"the source sent no picture for {self.timeout_s:g} s")
        if self.cutter.pictures == pictures:
            # A source that failed says more than ffmpeg, which only sees that nothing more comes.
            raise (feed.error if feed is not None else None) or child.explain()

    def _take(self, event: Track | Packet, feed: Feed | None, silent_s: float) -> Iterator[Piece]:
        if isinstance(event, Track):
            yield from self.cutter.start(event)
            return
        if feed is not None and (missed_s := feed.take_missed()):
            yield from self.cutter.miss(missed_s)
        yield from self.cutter.add(event, silent_s if feed is None or feed.arrives_live else 0.0)

    def check_stop(self) -> None:
        """Raise _StoppedError if the caller wants no more."""
        if self.should_stop():
            raise _StoppedError

    def _wait_for_clock(self) -> None:
        """Slow a source down to real time, if it is too far ahead: ffmpeg, and then the source, wait for the pipe."""
        now = time.monotonic()
        self._began = self._began or now
        resume = self._began + self.cutter.running_s - self.limits.max_ahead_s
        while (wait_s := resume - time.monotonic()) > 0:
            self.check_stop()
            time.sleep(min(wait_s, POLL_S))


def _next_blocks(feed: Feed | None) -> tuple[bytes, bool]:
    """Return what *feed* has, at least ``BLOCK_BYTES`` if it has so much, and False at the end of its run."""
    blocks: list[bytes] = []
    block = None if feed is None else feed.next_block()
    while feed is not None and block:
        blocks.append(block)
        # One picture may be a block, and each turn of the reader may wait for a while.
        block = feed.next_block() if sum(map(len, blocks)) < BLOCK_BYTES else b""
    return b"".join(blocks), block is not None or bool(blocks)


def _write(child: StreamChild, pending: bytes) -> bytes:
    try:
        return pending[os.write(child.stdin.fileno(), pending) :]
    except BlockingIOError:
        return pending
    except BrokenPipeError:
        # It has ended, which its output will say.
        return b""


def _read_feed(feed: Feed, reader: _Reader) -> Iterator[Piece]:
    with feed:
        while (run := feed.wait_for_run(reader.should_stop, reader.timeout_s)) is not None:
            with StreamChild(read_from_pipe(run.demuxer)) as child:
                yield from reader.read(child, feed)
    reader.check_stop()


def _read_conversation(source: Source, parts: SplitResult, reader: _Reader, *, allow_insecure: bool) -> Iterator[Piece]:
    is_private = sandbox().has_no_network
    if not is_private and not reader.limits.allow_shared_network:
        raise ForbiddenURLError(
            f"{parts.scheme}: sources cannot be read safely on this system, which allows no network namespaces;"
            " give the source's HLS address, or allow namespaces"
        )
    port = parts.port or PORTS[parts.scheme]
    hostname = parts.hostname or ""
    address = resolve_host(hostname, port, allow_insecure=allow_insecure)
    has_tls = parts.scheme in ("rtsps", "rtmps")
    scheme = parts.scheme.removesuffix("s") if has_tls else parts.scheme
    kind = "udp" if scheme == "srt" else "tcp"
    relay = Relay(
        address,
        port,
        kind=kind,
        tls_name=hostname if has_tls else None,
        timeout_s=reader.limits.connect_timeout_s,
        max_bytes_per_s=reader.limits.max_bytes_per_s,
    )
    with relay:
        if not relay.connect(reader.should_stop):
            raise _StoppedError
        command = read_from_script(scheme)
        with StreamChild(command, server=(address, port), kind=kind, is_private=is_private) as child:
            if child.listener is None:
                raise RuntimeError("the child has no listener")
            script = _make_script(source, parts, scheme, child.listener.getsockname()[:2])
            relay.serve(child.listener)
            yield from reader.read(child, None, script)


def _make_script(source: Source, parts: SplitResult, scheme: str, local: tuple[str, int]) -> bytes:
    """Write the script for ffmpeg: the address in its namespace, with the path and the credentials of *source*."""
    address = f"[{local[0]}]:{local[1]}" if ":" in local[0] else f"{local[0]}:{local[1]}"
    if any(not text.isprintable() for text in (source.username or "", source.password or "")):
        raise ForbiddenURLError("the credentials contain control characters")
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    login = ""
    if source.username is not None and scheme != "srt":
        login = f"{quote(source.username, safe='')}:{quote(source.password or '', safe='')}@"
    if scheme == "rtsp":
        return write_script(f"rtsp://{login}{address}{path}", {"rtsp_transport": "tcp"})
    if scheme == "rtmp":
        options = {
            "rtmp_live": "live",
            "rtmp_tcurl": f"{parts.scheme}://{parts.netloc}/{_rtmp_application(parts.path)}",
        }
        return write_script(f"rtmp://{login}{address}{path}", options)
    return write_script(f"srt://{address}", _srt_options(source, parts))


def _rtmp_application(path: str) -> str:
    """Return the part of *path* that ffmpeg takes for the application: all but the last of at most three names."""
    names = path.lstrip("/").split("/")
    return "/".join(names[: 2 if len(names) > 2 else 1])


def _srt_options(source: Source, parts: SplitResult) -> dict[str, str]:
    given = dict(parse_qsl(parts.query))
    if unknown := set(given) - SRT_OPTIONS:
        raise ForbiddenURLError(f"the SRT URL has the unknown option {min(unknown)}; streamid and latency are known")
    if given.get("mode", "caller") != "caller":
        raise ForbiddenURLError("SRT sources are called; the URL's mode must be caller")
    if source.username is not None:
        raise ForbiddenURLError("SRT has no user names; put them into streamid as the server expects them")
    options = {"mode": "caller", "transtype": "live"}
    if streamid := given.get("streamid"):
        if not streamid.isprintable():
            raise ForbiddenURLError("the SRT URL's streamid contains control characters")
        options["streamid"] = streamid
    if latency := given.get("latency"):
        if not latency.isdecimal() or len(latency) > 8:
            raise ForbiddenURLError("the SRT URL's latency must be a number of microseconds")
        options["latency"] = latency
    if source.password is not None:
        if not 10 <= len(source.password.encode()) <= 79:
            raise ForbiddenURLError("the passphrase of SRT must have 10 to 79 characters")
        options["passphrase"] = source.password
    return options
