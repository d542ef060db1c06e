"""Bounded reading of a header."""

from typing import BinaryIO

MAX_BOXES = 20_000
"""The most boxes, elements or chunks that are read in one file."""


class EndOfFileError(Exception):
    """A read went past the end of the file."""


class HeaderReader:
    """A reader of exact byte ranges that limits the number of boxes read."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream = stream
        self.size = size
        self._boxes = 0

    def read(self, start: int, count: int) -> bytes:
        """
        Read exactly *count* bytes at *start*.

        Raises:
            EndOfFileError: The file ends before that.
        """
        if start < 0 or start + count > self.size:
            raise EndOfFileError
        self._stream.seek(start)
        data = self._stream.read(count)
        if len(data) < count:
            raise EndOfFileError
        return data

    def peek(self, start: int, count: int) -> bytes:
        """Read up to *count* bytes at *start*."""
        self._stream.seek(start)
        return self._stream.read(max(0, min(count, self.size - start)))

    def count_box(self) -> None:
        """Count a box. Raises ValueError if there were MAX_BOXES before it."""
        self._boxes += 1
        if self._boxes > MAX_BOXES:
            raise ValueError("too many boxes")

    @property
    def is_exhausted(self) -> bool:
        """Whether MAX_BOXES boxes were read, so that no further one may be."""
        return self._boxes >= MAX_BOXES
