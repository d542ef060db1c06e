"""The frame decoder: one run of ffmpeg that decodes the sampled frames of consecutive segments."""

import math
import queue
import re
from bisect import bisect_right
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shared.errors import DecodeError
from worker.media.ffmpeg import build_command, log_frames, open_input, select_video
from worker.media.probe import MediaFacts
from worker.media.process import BoundedProcess, CancelToken, read_exactly
from worker.media.showinfo import FrameTimes
from worker.media.tonemap import open_table_file

LARGE_PIXELS: Final = 3840 * 2160
"""From this frame size on, ffmpeg's output queue holds one frame and not eight, to bound memory."""
MAX_GROWTH: Final = 2
"""A frame with this many times the pixels of earlier ones ends the run, so that the next run uses its size."""
END_MARGIN_S: Final = 0.2
"""How far past the last segment decoding goes on; the selection expression then cuts exactly."""
TIME_TOLERANCE_S: Final = 1e-6
"""Tolerance for rounded times: a frame this little before a cut or before a sampling cell counts as being on it."""
_ERROR = re.compile(r"\b(error|invalid)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Frame:
    """One decoded picture."""

    time_s: float
    """Media time, 0 where players begin; for picture n of an image it is n."""
    pixels: NDArray[np.uint8]
    """(H, W, 3) RGB, upright."""
    scale: tuple[float, float] = (1.0, 1.0)
    """Displayed pixels for each of *pixels*, across and down; above 1 for very large images, which are scaled down."""


class LargerFrameError(Exception):
    """A frame has many more pixels than the size that frames are read in."""

    def __init__(self, size_px: tuple[int, int]) -> None:
        super().__init__(size_px)
        self.size_px = size_px


def _limit_size(size_px: tuple[int, int], facts: MediaFacts) -> tuple[int, int]:
    """Return *size_px*, scaled down to at most the pixels of the facts' size or of 4K, whichever is larger."""
    max_pixels = max(LARGE_PIXELS, facts.width_px * facts.height_px)
    factor = min(1.0, math.sqrt(max_pixels / max(1, size_px[0] * size_px[1])))
    width_px, height_px = (max(1, math.floor(side_px * factor)) for side_px in size_px)
    return width_px, height_px


class FrameDecoder:
    """
    One run of ffmpeg over consecutive segments of a file.

    Args:
        cuts_s: Start of each segment, and the end of the last one.
        seek_s: Where decoding begins, at or before the first segment; None for the beginning of the file.
    """

    def __init__(
        self,
        path: Path,
        facts: MediaFacts,
        cuts_s: Sequence[float],
        sample_fps: float,
        seek_s: float | None,
        cancel_token: CancelToken | None,
    ) -> None:
        self._facts = facts
        self._cancel_token = cancel_token
        self._range = f"between {cuts_s[0]:g} s and {cuts_s[-1]:g} s"
        self._frame_times = FrameTimes()
        offset_s = facts.start_s
        self._cuts_s = [offset_s + cut_s - TIME_TOLERANCE_S for cut_s in cuts_s]
        options = (
            {}
            if seek_s is None
            # Keep the file's timestamps, and let ffmpeg drop no decoded frame.
            else {"ss": repr(offset_s + seek_s), "seek_timestamp": 1, "noaccurate_seek": None}
        )
        stream = log_frames(select_video(open_input(path, facts.container, **options), facts.video_track))
        stream = stream.filter("trim", end=repr(self._cuts_s[-1] + END_MARGIN_S))
        stream = stream.filter("select", build_selection_expression(self._cuts_s, sample_fps))
        stream = stream.filter("showinfo", checksum=0)
        # Kept open as long as the decoder may read it.
        self._render_table = None if facts.dynamic_range == "sdr" else open_table_file(facts.dynamic_range)
        stream = _convert_for_display(stream, facts, None if self._render_table is None else self._render_table.name)
        is_large = facts.width_px * facts.height_px >= LARGE_PIXELS
        queue_options = {"thread_queue_size": 1} if is_large else {}
        output = stream.output("pipe:", f="rawvideo", pix_fmt="rgb24", fps_mode="passthrough", **queue_options)
        self._is_shared = len(cuts_s) > 2
        self._arguments = build_command(output, log="level+info" if self._is_shared else "info")

    def starts_by(self, time_s: float) -> bool:
        """Return whether decoding started at *time_s* or earlier; call it after a frame or the end of the run."""
        first_s = self._frame_times.first_decoded_s
        return first_s is not None and first_s - self._facts.start_s <= time_s

    def frames(self, timeout_s: float, segment_timeout_s: float) -> Generator[tuple[int, Frame], None, None]:
        """
        Decode the sampled frames; yield each with the position of its segment.

        Args:
            timeout_s: Wall-clock limit until the second segment begins, seeking included.
            segment_timeout_s: Wall-clock limit of each further segment.

        Raises:
            DecodeError, DecodeTimeoutError: As ``read_frames`` does. With several segments also if the decoder reports
                damage, or frames out of order or of another size: its output then depends on where it started.
            LargerFrameError: A frame is much larger than the facts say.
        """
        height_px, width_px = self._facts.height_px, self._facts.width_px
        size = height_px * width_px * 3
        count = place = 0
        bounded = BoundedProcess(
            self._arguments,
            timeout_s=timeout_s,
            max_timeout_s=timeout_s + (len(self._cuts_s) - 2) * segment_timeout_s,
            on_line=self._frame_times.read,
            cancel_token=self._cancel_token,
        )
        with bounded as child:
            while len(data := read_exactly(child.stdout, size)) == size:
                try:
                    # ffmpeg logs a frame before it writes it, so its time is known or about to arrive.
                    time_s, is_clean, size_px = self._frame_times.next_selected(timeout_s=10.0)
                except queue.Empty as error:
                    raise DecodeError("the decoder gave a frame without a time") from error
                if self._is_shared and not is_clean:
                    raise DecodeError(f"frames are damaged, out of order or of several sizes {self._range}")
                size_px = _limit_size(size_px, self._facts)
                if size_px[0] * size_px[1] >= MAX_GROWTH * width_px * height_px:
                    raise LargerFrameError(size_px)
                count += 1
                pixels = np.frombuffer(data, np.uint8).reshape(height_px, width_px, 3)
                with child.paused():
                    before, place = place, bisect_right(self._cuts_s, time_s) - 1
                    if place > before:
                        child.extend(segment_timeout_s)
                    yield place, Frame(round(time_s - self._facts.start_s, 6), pixels)
            status = child.wait()
            if status < 0:
                raise DecodeError(f"the decoder was ended by signal {-status} {self._range}")
            if count == 0 and any(_ERROR.search(line) for line in child.lines):
                raise DecodeError(f"0 frames decoded {self._range}: the data is damaged")


def _convert_for_display(stream: Any, facts: MediaFacts, table: str | None) -> Any:
    """
    Scale the frames of *stream* to the size of the facts, with square pixels, in SDR colours.

    Args:
        table: Path of the tone-mapping table; None for SDR.
    """
    # Later frames of another size are scaled to the size of the facts, too.
    size = facts.width_px, facts.height_px
    options = {"flags": "bilinear+accurate_rnd+full_chroma_int"}
    if table is None:
        return stream.filter("scale", *size, **options)
    # HDR always uses the BT.2020 matrix in practice; ffmpeg would assume SDR's for frames that name none.
    stream = stream.filter("scale", *size, **options, in_color_matrix="bt2020").filter("format", "gbrp16le")
    return stream.filter("lut3d", table, interp="tetrahedral")


def build_selection_expression(cuts_s: Sequence[float], sample_fps: float) -> str:
    """
    Build ffmpeg's ``select`` expression for the first frame of each sampling cell of each segment.

    Args:
        cuts_s: Start of each segment and end of the last one, each less ``TIME_TOLERANCE_S``.
    """
    # Exactly one term of the sum is not zero: the start of the segment that the time is in.
    begin = "+".join(f"{start!r}*gte({{time}},{start!r})*lt({{time}},{end!r})" for start, end in pairwise(cuts_s))
    cell = f"floor(({{time}}-ld({{begin}}))*{sample_fps!r})"
    now, before = cell.format(time="t", begin=0), cell.format(time="prev_selected_t", begin=1)
    begins = f"st(0,{begin.format(time='t')});st(1,{begin.format(time='prev_selected_t')})"
    is_new = f"isnan(prev_selected_t)+gt(ld(0),ld(1))+gt({now},{before})"
    return f"{begins};gte(t,{cuts_s[0]!r})*lt(t,{cuts_s[-1]!r})*({is_new})"
