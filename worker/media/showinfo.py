"""Parsers of the log of ffmpeg's filter ``showinfo``: times, sizes and colours of frames."""

import math
import queue
import re
from typing import Final

from worker.media.filelog import VideoTrack
from worker.media.process import read_authentic
from worker.media.tonemap import DynamicRange

DECODED_FILTER: Final = "1"
"""Number, in the filter graph, of the ``showinfo`` that sees every decoded frame (``ffmpeg.log_frames``)."""
MAX_PIXEL_ASPECT: Final = 8.0
"""Pixel aspect ratios beyond this, or below its inverse, are not believed: such pixels are taken for square."""

# The level follows the filter's name if the log prints levels.
_FILTER = r"^\[Parsed_showinfo_(\d+) @ [^\]]+\] (?:\[info\] )?"
_TIMEBASE_LINE = re.compile(_FILTER + r"config in time_base: (\d+)/(\d+)")
_FRAME_LINE = re.compile(_FILTER + r"n: *\d+ pts: *(-?\d+|NOPTS) .*? sar:(\d+)/(\d+) s:(\d+)x(\d+) ")
_COLOUR_LINE = re.compile(_FILTER + r"color_range:\S+ color_space:(\S+) color_primaries:(\S+) color_trc:(\S+)")
_SIDE_DATA_LINE = re.compile(_FILTER + r" +side data - (?:mastering display|content light level)\b", re.IGNORECASE)
_ERROR_LINE = re.compile(r"^(?:\[[^\]]+ @ [^\]]+\] )*\[(?:error|fatal|panic)\] ")
_DYNAMIC_RANGES: Final[dict[str, DynamicRange]] = {"smpte2084": "pq", "arib-std-b67": "hlg"}


def displayed_size(width_px: int, height_px: int, across: int, down: int) -> tuple[int, int]:
    """
    Return the displayed size of a picture whose pixels have the aspect ratio *across* to *down*.

    As players do, one side is enlarged and none is shrunk.
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
    """Parser of what the log says about the first decoded frame, turned as the file says."""

    def __init__(self) -> None:
        self.size_px: tuple[int, int] | None = None
        """Displayed width and height, with square pixels; None before a frame was decoded."""
        self.time_s: float | None = None
        """Timestamp of the frame by the file's clock."""
        self._tick_s = 0.0
        self._colours: tuple[str, str] | None = None
        self._has_mastering_display = False

    def read(self, line: str) -> None:
        """Take one line of the log, with its colours."""
        text = read_authentic(line)
        if text is None:
            return
        if match := _TIMEBASE_LINE.match(text):
            self._tick_s = int(match[2]) / int(match[3])
        elif self.size_px is None and (match := _FRAME_LINE.match(text)):
            self.size_px = _size_px(match)
            self.time_s = None if match[2] == "NOPTS" else int(match[2]) * self._tick_s
        elif self._colours is None and self.size_px is not None and (match := _COLOUR_LINE.match(text)):
            self._colours = match[3], match[4]
        elif self._colours is None and _SIDE_DATA_LINE.match(text):
            self._has_mastering_display = True

    def dynamic_range(self, track: VideoTrack) -> DynamicRange:
        """
        Return the frame's dynamic range, by its transfer function.

        A frame without a transfer function counts as PQ if it has BT.2020 primaries and metadata of a mastering
        display, which neither HLG nor SDR has. Otherwise it counts as SDR, as in players.
        """
        primaries, transfer = self._colours or ("unknown", "unknown")
        has_display = self._has_mastering_display or track.has_mastering_display
        if transfer == "unknown" and primaries == "bt2020" and has_display:
            return "pq"
        return _DYNAMIC_RANGES.get(transfer, "sdr")


class FrameTimes:
    """
    Parser of the timestamps of a run of the frame decoder.

    Two filters log them: the first sees every decoded frame, the second the selected ones.
    """

    def __init__(self) -> None:
        self.first_decoded_s: float | None = None
        """Timestamp of the first decoded frame, by the file's clock."""
        self._is_clean = True
        self._is_decoding = False
        self._last_decoded_s = -math.inf
        self._tick_s: dict[str, float] = {}
        self._selected: queue.Queue[tuple[float, bool, tuple[int, int]]] = queue.Queue()

    def read(self, line: str) -> None:
        """Take one line of the log, with its colours."""
        text = read_authentic(line)
        if text is None:
            # Errors before this line are ignored: ffmpeg is only analysing the file and reports that audio has no
            # decoder. A file can forge this line; more errors then count, and its segments are decoded one by one.
            self._is_decoding |= line.endswith("Stream mapping:")
        elif match := _FRAME_LINE.match(text):
            if match[2] != "NOPTS":
                self._read_frame(match)
        elif match := _TIMEBASE_LINE.match(text):
            # ffmpeg configures its filters again when frames change their size or format.
            self._is_clean &= match[1] not in self._tick_s
            self._tick_s[match[1]] = int(match[2]) / int(match[3])
        elif self._is_decoding and _ERROR_LINE.match(text):
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
        Wait for the next selected frame.

        Returns:
            Its timestamp by the file's clock; whether decoding was clean until then (no errors were logged, if the log
            prints levels, and frames were in order and of one size); its displayed width and height.

        Raises:
            queue.Empty: No further frame was logged within *timeout_s*.
        """
        return self._selected.get(timeout=timeout_s)
