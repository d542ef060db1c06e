"""Read-ahead: frames are decoded in a thread while the caller processes earlier ones."""

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Generic, Self, TypeVar

from worker.media.probe import MediaFacts
from worker.media.process import CancelToken

Item = TypeVar("Item")

MAX_PIXELS_AHEAD: Final = 8 * 1920 * 1080
"""Limit on the pixels that one reader holds, to bound memory; a single larger frame is always held."""
MAX_FRAMES_AHEAD: Final = 32
POLL_S: Final = 0.1
"""Longest time until the thread notices that the reader was closed."""


@dataclass(frozen=True, slots=True)
class _End:
    """Marker after the last frame, with the error that ended reading, if any."""

    error: BaseException | None


class ReadAhead(Generic[Item]):
    """
    Iterable of frames that a background thread reads ahead, from construction until the context ends.

    Args:
        read: Returns the frames, as ``read_segments`` does; its decoder is cancelled by the given token.
        facts: Facts of the file that the frames come from.
    """

    def __init__(self, read: Callable[[CancelToken], Iterator[Item]], facts: MediaFacts) -> None:
        self._cancel_token = CancelToken()
        self._frames = read(self._cancel_token)
        # The thread holds one more frame than the queue.
        capacity = min(MAX_FRAMES_AHEAD, max(1, MAX_PIXELS_AHEAD // (facts.width_px * facts.height_px) - 1))
        self._queue: queue.Queue[Item | _End] = queue.Queue(capacity)
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="read-ahead", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the decoder and the thread."""
        self._is_closed.set()
        self._cancel_token.cancel()
        self._thread.join()

    def __iter__(self) -> Iterator[Item]:
        """Iterate over the frames, once; raise what reading them raised."""
        while not isinstance(item := self._queue.get(), _End):
            yield item
        if item.error is not None:
            raise item.error

    def _run(self) -> None:
        last = _End(None)
        try:
            for frame in self._frames:
                if not self._enqueue(frame):
                    break
        except BaseException as error:  # noqa: BLE001 - every error is raised again in the consuming thread
            last = _End(error)
        try:
            if isinstance(self._frames, Generator):
                # Otherwise the decoder process would stay until the generator is garbage-collected.
                self._frames.close()
        finally:
            self._enqueue(last)

    def _enqueue(self, item: Item | _End) -> bool:
        """Wait for capacity and add *item*; return False if the reader was closed meanwhile."""
        while not self._is_closed.is_set():
            with suppress(queue.Full):
                self._queue.put(item, timeout=POLL_S)
                return True
        return False
