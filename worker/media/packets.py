"""The times of a video track's packets, as ffmpeg's framecrc format lists them."""

import re
import statistics
from collections import deque
from itertools import pairwise
from typing import Final

from shared.errors import TruncatedError

MAX_FRAME_SECONDS = 3600.0
"""A last frame that claims to last longer than this is not believed."""
DISCARD_FLAG: Final = 0x4
"""ffmpeg's flag of packets that are decoded for the sake of others: what an edit list cuts away."""

_TIMEBASE_LINE = re.compile(rb"^#tb 0: (\d+)/(\d+)")
_DEFAULT_FRAME_DURATION_S = 0.04
"""What a single frame without a duration lasts: one frame at 25 frames a second."""


class PacketScan:
    """The span of presentation times of what is shown, in constant memory however long the file is."""

    def __init__(self) -> None:
        self.count = 0
        """Of the packets that are shown."""
        self.size_bytes = 0
        self._tick_s = 0.0
        self._first: int | None = None
        self._last: int | None = None
        self._last_duration = 0
        self._previous: deque[int] = deque(maxlen=16)

    def read(self, line: bytes) -> None:
        """Take one line of the framecrc format: stream, dts, pts, duration, size, checksum[, flags[, side data]]."""
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
        # AVI has no presentation times; demuxers then give the smallest number there is.
        at = pts if pts > -(2**62) else dts
        if at <= -(2**62):
            return
        self.count += 1
        self.size_bytes += size
        self._first = at if self._first is None else min(self._first, at)
        if self._last is None or at > self._last:
            self._last, self._last_duration = at, duration
        self._previous.append(at)

    def span(self) -> tuple[float, float]:
        """Seconds of the first frame's begin and the last one's end, by the file's clock."""
        if self._first is None or self._last is None:
            raise TruncatedError("the file has no frame with a time")
        duration_s = self._last_duration * self._tick_s
        if not 0 < duration_s <= MAX_FRAME_SECONDS:
            duration_s = self._median_gap_s()
        return self._first * self._tick_s, self._last * self._tick_s + duration_s

    def _median_gap_s(self) -> float:
        times = sorted(self._previous)
        gaps = [later - earlier for earlier, later in pairwise(times) if later > earlier]
        return statistics.median(gaps) * self._tick_s if gaps else _DEFAULT_FRAME_DURATION_S


def _is_discarded(fields: list[bytes]) -> bool:
    """Whether the flags say that the packet is not shown. They stand in the line where there is more than a key."""
    if len(fields) < 7:
        return False
    flags = fields[6].strip()
    return flags.startswith(b"F=0x") and bool(int(flags[4:], 16) & DISCARD_FLAG)
