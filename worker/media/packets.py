"""The packets of a video track, as ffmpeg's framecrc format lists them."""

import re
import statistics
from collections import deque
from itertools import pairwise
from typing import Final

from shared.errors import TruncatedError

MAX_FRAME_SECONDS = 3600.0
"""Longest believable duration of the last frame."""
DISCARD_FLAG: Final = 0x4
"""ffmpeg's flag of packets that are only decoded because others need them: those that an edit list removes."""

_TIMEBASE_LINE = re.compile(rb"^#tb 0: (\d+)/(\d+)")
_DEFAULT_FRAME_DURATION_S = 0.04
"""Assumed duration of a single frame that has none: 25 frames a second."""


class PacketScan:
    """Statistics of the displayed packets of a track, in constant memory for files of any length."""

    def __init__(self) -> None:
        self.count = 0
        """Number of displayed packets."""
        self.size_bytes = 0
        self._tick_s = 0.0
        self._first: int | None = None
        self._last: int | None = None
        self._last_duration = 0
        self._previous: deque[int] = deque(maxlen=16)

    def read(self, line: bytes) -> None:
        """Parse one line of the framecrc format: stream, dts, pts, duration, size, checksum[, flags[, side data]]."""
        if line.startswith(b"#"):
            if match := _TIMEBASE_LINE.match(line):
                self._tick_s = int(match[1]) / int(match[2])
            return
        fields = line.split(b",")
        try:
            dts, pts, duration, size = (int(value) for value in fields[1:5])
        except ValueError:
            return
        if size == 0 or _is_discarded(fields):
            return
        # AVI has no presentation times; ffmpeg then writes the smallest 64-bit number.
        timestamp = pts if pts > -(2**62) else dts
        if timestamp <= -(2**62):
            return
        self.count += 1
        self.size_bytes += size
        self._first = timestamp if self._first is None else min(self._first, timestamp)
        if self._last is None or timestamp > self._last:
            self._last, self._last_duration = timestamp, duration
        self._previous.append(timestamp)

    def span(self) -> tuple[float, float]:
        """
        Return when the first frame begins and the last one ends, in seconds by the file's clock.

        Raises:
            TruncatedError: No packet has a timestamp.
        """
        if self._first is None or self._last is None:
            raise TruncatedError("no frame of the file has a timestamp")
        duration_s = self._last_duration * self._tick_s
        if not 0 < duration_s <= MAX_FRAME_SECONDS:
            duration_s = self._median_gap_s()
        return self._first * self._tick_s, self._last * self._tick_s + duration_s

    def _median_gap_s(self) -> float:
        times = sorted(self._previous)
        gaps = [later - earlier for earlier, later in pairwise(times) if later > earlier]
        return statistics.median(gaps) * self._tick_s if gaps else _DEFAULT_FRAME_DURATION_S


def _is_discarded(fields: list[bytes]) -> bool:
    """Return whether the packet is flagged as not displayed; only packets with unusual flags list them."""
    if len(fields) < 7:
        return False
    flags = fields[6].strip()
    return flags.startswith(b"F=0x") and bool(int(flags[4:], 16) & DISCARD_FLAG)
