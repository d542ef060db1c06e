"""One run of ffmpeg that decodes the sampled frames of a part of a video."""

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
from worker.media.ffmpeg import command_line, log_frames, open_input, select_video
from worker.media.probe import MediaFacts
from worker.media.process import BoundedProcess, CancelToken, read_exactly
from worker.media.showinfo import FrameTimes
from worker.media.tonemap import open_table_file

LARGE_PIXELS: Final = 3840 * 2160
"""Of frames so large ffmpeg may keep one before the pipe, beside the eight before its last step, and not eight more."""
MAX_GROWTH: Final = 2
"""A frame of so many times the pixels of those before ends the run, so that another reads it in its own size."""
END_MARGIN_S: Final = 0.2
"""How far past the last segment the decoder goes before it is told to stop; the exact end is the selection's."""
TIME_TOLERANCE_S: Final = 1e-6
"""A frame that is so little before a cut, or before a cell of the sampling, stands on it: sums of times are rounded."""
_ERROR = re.compile(r"\b(error|invalid)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Frame:
    """One decoded picture."""

    time_s: float
    """Media time: 0 is where players begin. Of picture n of an image it is n."""
    pixels: NDArray[np.uint8]
    """(H, W, 3) RGB, upright."""
    scale: tuple[float, float] = (1.0, 1.0)
    """Pixels of the displayed picture to one of these, across and down: very large images are looked at smaller."""


class LargerFrameError(Exception):
    """A frame has many more pixels than it would be read with."""

    def __init__(self, size_px: tuple[int, int]) -> None:
        super().__init__(size_px)
        self.size_px = size_px


def _limit_size(size_px: tuple[int, int], facts: MediaFacts) -> tuple[int, int]:
    """*size_px*, or less of the same shape where a frame is larger than any that the facts or 4K would make."""
    most = max(LARGE_PIXELS, facts.width_px * facts.height_px)
    shrinking = min(1.0, math.sqrt(most / max(1, size_px[0] * size_px[1])))
    width_px, height_px = (max(1, math.floor(side_px * shrinking)) for side_px in size_px)
    return width_px, height_px


class FrameDecoder:
    """One run of ffmpeg over the part of a file around the stretches between *cuts_s*."""

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
        self._span = f"between {cuts_s[0]:g} s and {cuts_s[-1]:g} s"
        self._frame_times = FrameTimes()
        offset_s = facts.start_s
        self._cuts_s = [offset_s + cut_s - TIME_TOLERANCE_S for cut_s in cuts_s]
        options = (
            {}
            if seek_s is None
            # Timestamps stay those of the file, and nothing decoded is dropped by ffmpeg itself.
            else {"ss": repr(offset_s + seek_s), "seek_timestamp": 1, "noaccurate_seek": None}
        )
        stream = log_frames(select_video(open_input(path, facts.container, **options), facts.video_track))
        stream = stream.filter("trim", end=repr(self._cuts_s[-1] + END_MARGIN_S))
        stream = stream.filter("select", selection_expression(self._cuts_s, sample_fps))
        stream = stream.filter("showinfo", checksum=0)
        # Held as long as the decoder may read it.
        self._render_table = None if facts.dynamic_range == "sdr" else open_table_file(facts.dynamic_range)
        stream = _convert_for_display(stream, facts, None if self._render_table is None else self._render_table.name)
        is_large = facts.width_px * facts.height_px >= LARGE_PIXELS
        waiting = {"thread_queue_size": 1} if is_large else {}
        output = stream.output("pipe:", f="rawvideo", pix_fmt="rgb24", fps_mode="passthrough", **waiting)
        self._is_shared = len(cuts_s) > 2
        self._arguments = command_line(output, log="level+info" if self._is_shared else "info")

    def starts_by(self, time_s: float) -> bool:
        """Whether the first decoded frame stands at *time_s* or before; known with the first frame, or the end."""
        first_s = self._frame_times.first_decoded_s
        return first_s is not None and first_s - self._facts.start_s <= time_s

    def frames(self, timeout_s: float, stretch_timeout_s: float) -> Generator[tuple[int, Frame], None, None]:
        """
        The selected frames, each with the place of its stretch.

        Args:
            timeout_s: Wall-clock limit of the first stretch, with all that comes before it.
            stretch_timeout_s: Of each that follows.

        Raises:
            DecodeError, DecodeTimeoutError: As ``read_frames`` does; of several stretches also where the decoder
                meets damage, frames out of order or of another size: what becomes of them depends on where it began.
            LargerFrameError: A frame is much larger than the facts say.
        """
        height_px, width_px = self._facts.height_px, self._facts.width_px
        size = height_px * width_px * 3
        count = place = 0
        bounded = BoundedProcess(
            self._arguments,
            timeout_s=timeout_s,
            whole_timeout_s=timeout_s + (len(self._cuts_s) - 2) * stretch_timeout_s,
            on_line=self._frame_times.read,
            cancel_token=self._cancel_token,
        )
        with bounded as child:
            while len(data := read_exactly(child.stdout, size)) == size:
                try:
                    # ffmpeg logs a frame before it writes it, so the time is here or about to be.
                    time_s, is_clean, size_px = self._frame_times.next_selected(timeout_s=10.0)
                except queue.Empty as error:
                    raise DecodeError("the decoder gave a frame without a time") from error
                if self._is_shared and not is_clean:
                    raise DecodeError(f"frames are damaged, out of order or of several kinds {self._span}")
                size_px = _limit_size(size_px, self._facts)
                if size_px[0] * size_px[1] >= MAX_GROWTH * width_px * height_px:
                    raise LargerFrameError(size_px)
                count += 1
                pixels = np.frombuffer(data, np.uint8).reshape(height_px, width_px, 3)
                with child.paused():
                    before, place = place, bisect_right(self._cuts_s, time_s) - 1
                    if place > before:
                        child.extend(stretch_timeout_s)
                    yield place, Frame(round(time_s - self._facts.start_s, 6), pixels)
            status = child.wait()
            if status < 0:
                raise DecodeError(f"the decoder was ended by signal {-status} {self._span}")
            if count == 0 and any(_ERROR.search(line) for line in child.lines):
                raise DecodeError(f"0 frames decoded {self._span}: the data is damaged")


def _convert_for_display(stream: Any, facts: MediaFacts, table: str | None) -> Any:
    """The frames of *stream* as SDR displays show them, all of one size and with square pixels; *table* is for HDR."""
    # Frames of another size, later in the stream, are brought to that of the facts.
    size = facts.width_px, facts.height_px
    how = {"flags": "bilinear+accurate_rnd+full_chroma_int"}
    if table is None:
        return stream.filter("scale", *size, **how)
    # HDR has one matrix in practice, and pictures that name none would get that of SDR.
    stream = stream.filter("scale", *size, **how, in_color_matrix="bt2020").filter("format", "gbrp16le")
    return stream.filter("lut3d", table, interp="tetrahedral")


def selection_expression(cuts_s: Sequence[float], sample_fps: float) -> str:
    """
    ffmpeg's expression for the first frame of each cell within each stretch between *cuts_s*.

    These are ``TIME_TOLERANCE_S`` before the cuts that are meant.
    """
    # Of the sum, one term is not zero: where the stretch begins that a time is in.
    begin = "+".join(f"{start!r}*gte({{time}},{start!r})*lt({{time}},{end!r})" for start, end in pairwise(cuts_s))
    cell = f"floor(({{time}}-ld({{begin}}))*{sample_fps!r})"
    now, before = cell.format(time="t", begin=0), cell.format(time="prev_selected_t", begin=1)
    begins = f"st(0,{begin.format(time='t')});st(1,{begin.format(time='prev_selected_t')})"
    is_new = f"isnan(prev_selected_t)+gt(ld(0),ld(1))+gt({now},{before})"
    return f"{begins};gte(t,{cuts_s[0]!r})*lt(t,{cuts_s[-1]!r})*({is_new})"
