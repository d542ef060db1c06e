"""Bounded reading of a header."""

from typing import BinaryIO

MAX_BOXES = 20_000
"""Boxes, elements or chunks looked at in one file."""


class EndOfFileError(Exception):
    """A read past the end."""


class HeaderReader:
    """Exact reads at positions, and a count of boxes that cannot run away."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream = stream
        self.size = size
        self._boxes = 0

    def read(self, start: int, count: int) -> bytes:
        """
        Exactly *count* bytes.

        Raises:
            EndOfFileError: The file ends before.
        """
        if start < 0 or start + count > self.size:
            raise EndOfFileError
        self._stream.seek(start)
        data = self._stream.read(count)
        if len(data) < count:
            raise EndOfFileError
        return data

    def peek(self, start: int, count: int) -> bytes:
        """Up to *count* bytes."""
        self._stream.seek(start)
        return self._stream.read(max(0, min(count, self.size - start)))

    def count_box(self) -> None:
        """Raise ValueError at the box after the last one that is looked at."""
        self._boxes += 1
        if self._boxes > MAX_BOXES:
            raise ValueError("too many boxes")

    @property
    def is_tired(self) -> bool:
        """Whether no further box is looked at."""
        return self._boxes >= MAX_BOXES
