"""Reading ahead: frames are decoded while those before them are looked at."""

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
"""What one reader holds has about as many pixels, or is one frame: it bounds memory."""
MAX_FRAMES_AHEAD: Final = 32
POLL_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class _End:
    """After the last frame."""

    error: BaseException | None


class ReadAhead(Generic[Item]):
    """
    Takes frames in a thread of its own, which begins at once, until the context ends.

    Args:
        read: Makes the frames, as ``read_segments`` does, with a decoder on the cancel_token it is given.
        facts: Of the file they come from.
    """

    def __init__(self, read: Callable[[CancelToken], Iterator[Item]], facts: MediaFacts) -> None:
        self._cancel_token = CancelToken()
        self._frames = read(self._cancel_token)
        # Beside those in the queue there is one in the thread's hand.
        most = min(MAX_FRAMES_AHEAD, max(1, MAX_PIXELS_AHEAD // (facts.width_px * facts.height_px) - 1))
        self._read: queue.Queue[Item | _End] = queue.Queue(most)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="read-ahead", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the decoder, and the thread."""
        self._is_over.set()
        self._cancel_token.cut()
        self._thread.join()

    def __iter__(self) -> Iterator[Item]:
        """The frames, once. Raises what reading them raised."""
        while not isinstance(item := self._read.get(), _End):
            yield item
        if item.error is not None:
            raise item.error

    def _run(self) -> None:
        last = _End(None)
        try:
            for frame in self._frames:
                if not self._put(frame):
                    break
        except BaseException as error:  # noqa: BLE001 - whatever it was, it is raised where frames are taken
            last = _End(error)
        try:
            if isinstance(self._frames, Generator):
                # Otherwise its decoder stays a process until somebody collects it.
                self._frames.close()
        finally:
            self._put(last)

    def _put(self, item: Item | _End) -> bool:
        """Whether *item* was put, and not given up because the context ended."""
        while not self._is_over.is_set():
            with suppress(queue.Full):
                self._read.put(item, timeout=POLL_S)
                return True
        return False
