"""
Sources that the worker reads itself and hands to ffmpeg block by block: a queue between two threads.

One run is what one ffmpeg can read: a container without a change of its header. A feed has one or more runs.
"""

import queue
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Final, Self

from shared.errors import DecodeError, DeepfakeStreamError, SourceUnreachableError
from shared.observability import get_logger
from worker.media.process import CancelToken

log = get_logger(__name__)

BLOCK_BYTES: Final = 64 * 1024
MAX_BLOCKS: Final = 64
POLL_S: Final = 0.1
JOIN_S: Final = 0.8


@dataclass(frozen=True, slots=True)
class Run:
    """The beginning of a run, which *demuxer* reads."""

    demuxer: str
    missed_s: float = 0.0
    """What the source had between this run and the one before it, and what is in neither."""


@dataclass(frozen=True, slots=True)
class Mark:
    """The beginning of a segment; ``Feed.note`` is called with it when the segment is about to be read."""

    number: int
    name: str
    duration_s: float
    end: datetime | None
    """By the server's clock, if the playlist says it."""


class Feed(ABC):
    """Context manager with a thread that reads a source into a bounded queue; see ``HLSFeed`` and ``UDPFeed``."""

    arrives_live = True
    """Whether the pictures arrive as time goes by, so that nothing was sent while nothing arrived."""

    def __init__(self) -> None:
        self.cancel_token = CancelToken()
        self._items: queue.Queue[Run | Mark | bytes | None] = queue.Queue(MAX_BLOCKS)
        self._stopped = threading.Event()
        self._error: DeepfakeStreamError | None = None
        self._next: Run | None = None
        self._thread = threading.Thread(target=self._run, name="stream-feed", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self.cancel_token.cancel()
        # A thread that waits for a name server or a connection ends by itself, at that time-out.
        self._thread.join(JOIN_S)

    def wait_for_run(self, should_stop: Callable[[], bool], timeout_s: float) -> Run | None:
        """
        Return the next run, or None after the last one or when *should_stop* says so.

        Raises:
            SourceUnreachableError: Nothing came in time.
            DeepfakeStreamError: The source failed.
        """
        deadline = time.monotonic() + timeout_s
        while self._next is None:
            if should_stop():
                return None
            try:
                item = self._items.get(timeout=POLL_S)
            except queue.Empty:
                if time.monotonic() > deadline:
                    raise SourceUnreachableError("the source sent nothing in time") from None
                continue
            if item is None:
                if self._error is not None:
                    raise self._error
                return None
            if isinstance(item, Mark):
                # The run before this one was ended early.
                self.note(item)
            self._next = item if isinstance(item, Run) else None
        run, self._next = self._next, None
        self.begin(run)
        return run

    def next_block(self) -> bytes | None:
        """Return the next block of the run: empty if there is none yet, None at its end."""
        if self._next is not None:
            return None
        try:
            item = self._items.get_nowait()
        except queue.Empty:
            return b""
        if isinstance(item, Mark):
            self.note(item)
            return b""
        if isinstance(item, bytes):
            return item
        if item is None:
            self._items.put_nowait(None)  # It ends the whole feed as well; nobody writes after it.
            return None
        self._next = item
        return None

    def begin(self, run: Run) -> None:  # noqa: B027 - only a feed with a position has something to note
        """Note that *run* is about to be read."""

    def note(self, mark: Mark) -> None:  # noqa: B027 - as above
        """Note that the segment of *mark* is about to be read."""

    def take_missed(self) -> float:
        """Return how much was missed before the picture that has just arrived, in seconds, and count anew."""
        return 0.0

    @abstractmethod
    def read(self) -> None:
        """Read the source to its end, with ``put``. Raises DeepfakeStreamError. Runs in the thread."""

    @property
    def error(self) -> DeepfakeStreamError | None:
        """The error that ended the source, if there was one."""
        return self._error

    @property
    def is_stopped(self) -> bool:
        """Whether nobody wants more."""
        return self._stopped.is_set()

    def sleep(self, duration_s: float) -> None:
        """Wait, unless nobody wants more."""
        self._stopped.wait(duration_s)

    def put(self, item: Run | Mark | bytes | None) -> bool:
        """Append *item*, when there is space; return False when nobody wants more."""
        while not self._stopped.is_set():
            try:
                self._items.put(item, timeout=POLL_S)
            except queue.Full:
                continue
            return True
        return False

    def offer(self, item: bytes) -> None:
        """Append *item* if there is space, or drop it."""
        try:
            self._items.put_nowait(item)
        except queue.Full:
            return

    def _run(self) -> None:
        try:
            self.read()
        except DeepfakeStreamError as error:
            self._error = error
        except Exception:
            # Not a clean end, which would end a stream for good.
            log.exception("feed of a stream failed")
            self._error = DecodeError("the source could not be read")
        finally:
            self.put(None)
