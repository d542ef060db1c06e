"""What ffmpeg's filter ``showinfo`` says in the log of the frames that pass it: their times, sizes and colours."""

import math
import queue
import re
from typing import Final

from worker.media.filelog import VideoTrack
from worker.media.process import read_authentic
from worker.media.tonemap import DynamicRange

DECODED_FILTER: Final = "1"
"""The place in the graph of the filter that sees every decoded frame: ``ffmpeg.logged`` puts another before it."""
MAX_PIXEL_ASPECT: Final = 8.0
"""Pixels that claim to be more than so many times as wide as they are high, or high as wide, are taken for square."""

# Where the log tells levels they stand behind the filter's name.
_FILTER = r"^\[Parsed_showinfo_(\d+) @ [^\]]+\] (?:\[info\] )?"
_TIMEBASE_LINE = re.compile(_FILTER + r"config in time_base: (\d+)/(\d+)")
_FRAME_LINE = re.compile(_FILTER + r"n: *\d+ pts: *(-?\d+|NOPTS) .*? sar:(\d+)/(\d+) s:(\d+)x(\d+) ")
_COLOUR_LINE = re.compile(_FILTER + r"color_range:\S+ color_space:(\S+) color_primaries:(\S+) color_trc:(\S+)")
_SIDE_DATA_LINE = re.compile(_FILTER + r" +side data - (?:mastering display|content light level)\b", re.IGNORECASE)
_ERROR_LINE = re.compile(r"^(?:\[[^\]]+ @ [^\]]+\] )*\[(?:error|fatal|panic)\] ")
_DYNAMIC_RANGES: Final[dict[str, DynamicRange]] = {"smpte2084": "pq", "arib-std-b67": "hlg"}


def displayed_size(width_px: int, height_px: int, across: int, down: int) -> tuple[int, int]:
    """
    The size of a picture with square pixels, given how wide and high those that are stored are.

    Enlarged in one direction, never shrunk in the other, as players do.
    """
    if across <= 0 or down <= 0 or not 1 / MAX_PIXEL_ASPECT <= across / down <= MAX_PIXEL_ASPECT:
        return width_px, height_px
    if across >= down:
        return round(width_px * across / down), height_px
    return width_px, round(height_px * down / across)


def _size_px(frame: re.Match[str]) -> tuple[int, int]:
    across, down, width_px, height_px = (int(value) for value in frame.groups()[2:])
    return displayed_size(width_px, height_px, across, down)


class FirstFrame:
    """The first frame that decodes, turned as its file says."""

    def __init__(self) -> None:
        self.size_px: tuple[int, int] | None = None
        """Displayed width and height: with square pixels."""
        self.time_s: float | None = None
        """By the file's clock."""
        self._tick_s = 0.0
        self._colours: tuple[str, str] | None = None
        self._has_mastering_display = False

    def read(self, line: str) -> None:
        """Take one line of the log, with its colours."""
        own = read_authentic(line)
        if own is None:
            return
        if match := _TIMEBASE_LINE.match(own):
            self._tick_s = int(match[2]) / int(match[3])
        elif self.size_px is None and (match := _FRAME_LINE.match(own)):
            self.size_px = _size_px(match)
            self.time_s = None if match[2] == "NOPTS" else int(match[2]) * self._tick_s
        elif self._colours is None and self.size_px is not None and (match := _COLOUR_LINE.match(own)):
            self._colours = match[3], match[4]
        elif self._colours is None and _SIDE_DATA_LINE.match(own):
            self._has_mastering_display = True

    def dynamic_range(self, track: VideoTrack) -> DynamicRange:
        """
        What the frame's colours mean, by the transfer function that it names.

        Where it names none, wide primaries with a word on the mastering display are PQ: HLG needs no such word, and
        SDR has none. Anything else without a name is SDR, as players take it.
        """
        primaries, transfer = self._colours or ("unknown", "unknown")
        has_display = self._has_mastering_display or track.has_mastering_display
        if transfer == "unknown" and primaries == "bt2020" and has_display:
            return "pq"
        return _DYNAMIC_RANGES.get(transfer, "sdr")


class FrameTimes:
    """
    Reads frames' times in the order in which the frames come.

    Two filters write them: the first in the graph sees every decoded frame, the other those that were selected.
    """

    def __init__(self) -> None:
        self.first_decoded_s: float | None = None
        """By the file's clock."""
        self._is_clean = True
        self._is_decoding = False
        self._last_decoded_s = -math.inf
        self._tick_s: dict[str, float] = {}
        self._selected: queue.Queue[tuple[float, bool, tuple[int, int]]] = queue.Queue()

    def read(self, line: str) -> None:
        """Take one line of the log, with its colours."""
        own = read_authentic(line)
        if own is None:
            # Until here the file was only looked over, and sound, which has no decoder, complained of. A file may say
            # so itself, and earlier: complaints then count that need not, and its stretches are decoded one by one.
            self._is_decoding |= line.endswith("Stream mapping:")
        elif match := _FRAME_LINE.match(own):
            if match[2] != "NOPTS":
                self._read_frame(match)
        elif match := _TIMEBASE_LINE.match(own):
            # Frames of another size or format make ffmpeg set its filters up anew.
            self._is_clean &= match[1] not in self._tick_s
            self._tick_s[match[1]] = int(match[2]) / int(match[3])
        elif self._is_decoding and _ERROR_LINE.match(own):
            self._is_clean = False

    def _read_frame(self, match: re.Match[str]) -> None:
        time_s = int(match[2]) * self._tick_s.get(match[1], 0.0)
        if match[1] != DECODED_FILTER:
            self._selected.put((time_s, self._is_clean, _size_px(match)))
            return
        if self.first_decoded_s is None:
            self.first_decoded_s = time_s
        self._is_clean &= time_s >= self._last_decoded_s
        self._last_decoded_s = time_s

    def next_selected(self, timeout_s: float) -> tuple[float, bool, tuple[int, int]]:
        """
        The time of the next selected frame, whether all went smoothly until then, and its displayed width and height.

        Smoothly is: no error was logged, if the log tells levels, and no frame came after a later one or in another
        size.

        Raises:
            queue.Empty: The log names no further frame within *timeout_s*.
        """
        return self._selected.get(timeout=timeout_s)
