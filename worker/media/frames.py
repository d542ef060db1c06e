"""Decoded frames with their times, streamed from a child process."""

import queue
import re
import time
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shared.errors import DecodeError
from worker.media.ffmpeg import command_line, open_input
from worker.media.images import decode_image
from worker.media.probe import MediaFacts
from worker.media.process import BoundedProcess, Leash, read_exactly, seconds_left

SEEK_MARGINS_S = (0.5, 15.0, 120.0)
"""
How far before the segment seeking aims, in turn, before decoding begins with the file. Containers index by decoding
time, which differs from presentation time by some frames, and frames may be far apart.
"""
END_MARGIN_S = 0.2
"""How far past the segment the decoder goes before it is told to stop; the exact end is the selection's."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One decoded picture."""

    time_s: float
    """Media time: 0 is the first frame of the file."""
    pixels: NDArray[np.uint8]
    """(H, W, 3) RGB, upright."""


def read_frames(
    path: Path,
    facts: MediaFacts,
    *,
    start_s: float,
    end_s: float,
    sample_fps: float,
    timeout_s: float,
    leash: Leash | None = None,
) -> Iterator[Frame]:
    """
    Decode the sampled frames of ``[start_s, end_s)``, in order, a few in memory at a time.

    Time from the segment's start is divided into cells of ``1 / sample_fps`` seconds, and the first frame of each
    cell is given with its true time, so variable frame rates are sampled as evenly as they allow. Closing the
    iterator early ends the decoder.

    Args:
        timeout_s: Wall-clock limit of decoding; the time between a frame and being asked for the next does not count.
        leash: Ends the decoder from another thread; there are no more frames then.

    Raises:
        DecodeError: No frame could be decoded, or the decoder crashed before the end.
        DecodeTimeoutError: It did not end within *timeout_s*.
        MediaError: The image is damaged.
    """
    if facts.kind == "image":
        pixels = facts.width_px * facts.height_px
        _, image = decode_image(path, max_pixels=pixels, timeout_s=timeout_s, leash=leash)
        yield Frame(0.0, image)
        return
    deadline = time.monotonic() + timeout_s
    for seek in [*(start_s - margin_s for margin_s in SEEK_MARGINS_S if start_s > margin_s), None]:
        decoding = _Decoding(path, facts, start_s, end_s, sample_fps, seek, leash)
        frames = decoding.frames(seconds_left(deadline))
        first = next(frames, None)
        if seek is not None and not decoding.began_by(start_s):
            # Seeking went too far, as it does where an index is poor or a long gap shifts decoding times.
            frames.close()
            continue
        if first is None:
            yield _held_frame(path, facts, start_s, sample_fps, seek, seconds_left(deadline), leash)
        else:
            yield first
            yield from frames
        return


def _held_frame(
    path: Path,
    facts: MediaFacts,
    at_s: float,
    sample_fps: float,
    seek_s: float | None,
    timeout_s: float,
    leash: Leash | None,
) -> Frame:
    """
    The picture still on the screen at *at_s*, for a stretch in which none begins.

    Variable frame rates allow gaps longer than a segment: a screen recording, for instance, where nothing moves.
    """
    before = _Decoding(path, facts, 0.0, at_s, sample_fps, seek_s, leash)
    last = deque(before.frames(timeout_s), maxlen=1)
    if not last:
        raise DecodeError(f"0 frames decoded at {at_s:g} s")
    return Frame(at_s, last[0].pixels)


_TIMEBASE_LINE = re.compile(r"^\[Parsed_showinfo_(\d+) @ [^\]]+\] config in time_base: (\d+)/(\d+)")
_FRAME_LINE = re.compile(r"^\[Parsed_showinfo_(\d+) @ [^\]]+\] n: *\d+ pts: *(-?\d+) ")
_ERROR = re.compile(r"\b(error|invalid)\b", re.IGNORECASE)


class _Clock:
    """
    Reads frames' times from ffmpeg's log, in the order in which the frames come.

    Two filters write there: the first in the graph sees every decoded frame, the other those that were selected.
    """

    def __init__(self) -> None:
        self.first_decoded_s: float | None = None
        self._tick_s: dict[str, float] = {}
        self._selected: queue.Queue[float] = queue.Queue()

    def read(self, line: str) -> None:
        if match := _FRAME_LINE.match(line):
            time_s = int(match[2]) * self._tick_s.get(match[1], 0.0)
            if match[1] != "0":
                self._selected.put(time_s)
            elif self.first_decoded_s is None:
                self.first_decoded_s = time_s
        elif match := _TIMEBASE_LINE.match(line):
            self._tick_s[match[1]] = int(match[2]) / int(match[3])

    def next_selected(self, timeout_s: float) -> float:
        return self._selected.get(timeout=timeout_s)


class _Decoding:
    """One run of ffmpeg over the part of a file around a segment."""

    def __init__(
        self,
        path: Path,
        facts: MediaFacts,
        start_s: float,
        end_s: float,
        sample_fps: float,
        seek_s: float | None,
        leash: Leash | None,
    ) -> None:
        self._facts = facts
        self._leash = leash
        self._span = f"between {start_s:g} s and {end_s:g} s"
        self._clock = _Clock()
        offset_s = facts.start_s
        options = (
            {}
            if seek_s is None
            # Timestamps stay those of the file, and nothing decoded is dropped by ffmpeg itself.
            else {"ss": repr(offset_s + seek_s), "seek_timestamp": 1, "noaccurate_seek": None}
        )
        stream = open_input(path, facts.container, **options)["V:0"]
        stream = stream.filter("showinfo", checksum=0)
        stream = stream.filter("trim", end=repr(offset_s + end_s + END_MARGIN_S))
        stream = stream.filter("select", _selection(offset_s + start_s, offset_s + end_s, sample_fps))
        stream = stream.filter("showinfo", checksum=0)
        # Frames of another size, later in the stream, are brought to the first one's.
        how = "bilinear+accurate_rnd+full_chroma_int"
        stream = stream.filter("scale", facts.width_px, facts.height_px, flags=how)
        output = stream.output("pipe:", f="rawvideo", pix_fmt="rgb24", fps_mode="passthrough")
        self._arguments = command_line(output)

    def began_by(self, time_s: float) -> bool:
        """Whether the first decoded frame stands at *time_s* or before; known with the first frame, or the end."""
        first_s = self._clock.first_decoded_s
        return first_s is not None and first_s - self._facts.start_s <= time_s

    def frames(self, timeout_s: float) -> Generator[Frame, None, None]:
        """The selected frames. Raises DecodeError or DecodeTimeoutError."""
        height_px, width_px = self._facts.height_px, self._facts.width_px
        size = height_px * width_px * 3
        count = 0
        with BoundedProcess(self._arguments, timeout_s=timeout_s, on_line=self._clock.read, leash=self._leash) as child:
            while len(data := read_exactly(child.stdout, size)) == size:
                try:
                    # ffmpeg logs a frame before it writes it, so the time is here or about to be.
                    time_s = self._clock.next_selected(timeout_s=10.0) - self._facts.start_s
                except queue.Empty as error:
                    raise DecodeError("the decoder gave a frame without a time") from error
                count += 1
                pixels = np.frombuffer(data, np.uint8).reshape(height_px, width_px, 3)
                with child.paused():
                    yield Frame(round(time_s, 6), pixels)
            status = child.wait()
            if status < 0:
                raise DecodeError(f"the decoder was ended by signal {-status} {self._span}")
            if count == 0 and any(_ERROR.search(line) for line in child.lines):
                raise DecodeError(f"0 frames decoded {self._span}: the data is damaged")


def _selection(start_s: float, end_s: float, sample_fps: float) -> str:
    """ffmpeg's expression for the first frame of each cell within the segment."""
    # A frame that stands on a cell's edge must not fall into the cell before it by rounding.
    cell = f"floor(({{time}}-{start_s!r})*{sample_fps!r}+0.000001)"
    is_new = f"isnan(prev_selected_t)+gt({cell.format(time='t')},{cell.format(time='prev_selected_t')})"
    return f"gte(t,{start_s!r})*lt(t,{end_s!r})*({is_new})"
