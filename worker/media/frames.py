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
from worker.media.process import BoundedProcess, read_exactly, seconds_left

SEEK_MARGIN_S = 2.0
"""How far before the segment seeking aims. Containers index by decoding time, which runs ahead of presentation."""
END_MARGIN_S = 1.0
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
) -> Iterator[Frame]:
    """
    Decode the sampled frames of ``[start_s, end_s)``, in order, a few in memory at a time.

    Time from the segment's start is divided into cells of ``1 / sample_fps`` seconds, and the first frame of each
    cell is given with its true time, so variable frame rates are sampled as evenly as they allow. Closing the
    iterator early ends the decoder.

    Raises:
        DecodeError: No frame could be decoded, or the decoder crashed before the end.
        DecodeTimeoutError: It did not end within *timeout_s*.
        MediaError: The image is damaged.
    """
    if facts.kind == "image":
        pixels = facts.width_px * facts.height_px
        _, image = decode_image(path, max_pixels=pixels, timeout_s=timeout_s)
        yield Frame(0.0, image)
        return
    deadline = time.monotonic() + timeout_s
    seek_s = start_s - SEEK_MARGIN_S
    first_wanted_s = start_s + 1 / sample_fps
    if seek_s > 0:
        frames = _decode(path, facts, start_s, end_s, sample_fps, seek_s, seconds_left(deadline))
        first = next(frames, None)
        # A container with a poor index may seek too far: then what is missing at the segment's start is decoded
        # from the beginning of the file instead.
        if first is not None and (first.time_s < first_wanted_s or _is_sparse(facts, sample_fps)):
            yield first
            yield from frames
            return
        frames.close()
    count = 0
    for frame in _decode(path, facts, start_s, end_s, sample_fps, None, seconds_left(deadline)):
        count += 1
        yield frame
    if count == 0:
        yield _held_frame(path, facts, start_s, sample_fps, seconds_left(deadline))


def _held_frame(path: Path, facts: MediaFacts, at_s: float, sample_fps: float, timeout_s: float) -> Frame:
    """
    The picture still on the screen at *at_s*, for a stretch in which none begins.

    Variable frame rates allow gaps longer than a segment: a screen recording, for instance, where nothing moves.
    """
    last = deque(_decode(path, facts, 0.0, at_s, sample_fps, None, timeout_s), maxlen=1)
    if not last:
        raise DecodeError(f"0 frames decoded at {at_s:g} s")
    return Frame(at_s, last[0].pixels)


def _is_sparse(facts: MediaFacts, sample_fps: float) -> bool:
    """Whether frames are so few that a late first one is no sign of a bad seek."""
    return facts.frame_rate is None or facts.frame_rate < sample_fps


_TIMEBASE_LINE = re.compile(r"^\[Parsed_showinfo_\d+ @ [^\]]+\] config in time_base: (\d+)/(\d+)")
_FRAME_LINE = re.compile(r"^\[Parsed_showinfo_\d+ @ [^\]]+\] n: *\d+ pts: *(-?\d+) ")
_ERROR = re.compile(r"\b(error|invalid)\b", re.IGNORECASE)


class _Clock:
    """Reads the frames' times from ffmpeg's log, in the order in which the frames come."""

    def __init__(self) -> None:
        self._tick_s: tuple[int, int] = (0, 1)
        self._times: queue.Queue[float] = queue.Queue()

    def read(self, line: str) -> None:
        if match := _FRAME_LINE.match(line):
            numerator, denominator = self._tick_s
            self._times.put(int(match[1]) * numerator / denominator)
        elif match := _TIMEBASE_LINE.match(line):
            self._tick_s = int(match[1]), int(match[2])

    def next(self, timeout_s: float) -> float:
        return self._times.get(timeout=timeout_s)


def _decode(
    path: Path,
    facts: MediaFacts,
    start_s: float,
    end_s: float,
    sample_fps: float,
    seek_s: float | None,
    timeout_s: float,
) -> Generator[Frame, None, None]:
    offset_s = facts.start_s
    options = (
        {}
        if seek_s is None
        # Timestamps stay those of the file, and nothing decoded is dropped by ffmpeg itself.
        else {"ss": repr(offset_s + seek_s), "seek_timestamp": 1, "noaccurate_seek": None}
    )
    stream = open_input(path, facts.container, **options)["V:0"]
    stream = stream.filter("trim", end=repr(offset_s + end_s + END_MARGIN_S))
    stream = stream.filter("select", _selection(offset_s + start_s, offset_s + end_s, sample_fps))
    # Before the scaling, which may delay nothing but need not keep the log in step.
    stream = stream.filter("showinfo", checksum=0)
    stream = stream.filter("scale", facts.width_px, facts.height_px, flags="bilinear+accurate_rnd+full_chroma_int")
    output = stream.output("pipe:", f="rawvideo", pix_fmt="rgb24", fps_mode="passthrough")
    clock = _Clock()
    count = 0
    size = facts.height_px * facts.width_px * 3
    with BoundedProcess(command_line(output), timeout_s=timeout_s, on_line=clock.read) as child:
        while len(data := read_exactly(child.stdout, size)) == size:
            pixels = np.frombuffer(data, np.uint8).reshape(facts.height_px, facts.width_px, 3)
            try:
                # ffmpeg logs a frame before it writes it, so the time is here or about to be.
                time_s = clock.next(timeout_s=10.0) - offset_s
            except queue.Empty as error:
                raise DecodeError("the decoder gave a frame without a time") from error
            count += 1
            yield Frame(round(time_s, 6), pixels)
        status = child.wait()
        if status < 0:
            raise DecodeError(f"the decoder was ended by signal {-status} between {start_s:g} and {end_s:g} s")
        if count == 0 and any(_ERROR.search(line) for line in child.lines):
            raise DecodeError(f"0 frames decoded between {start_s:g} s and {end_s:g} s: the data is damaged")


def _selection(start_s: float, end_s: float, sample_fps: float) -> str:
    """ffmpeg's expression for the first frame of each cell within the segment."""
    # A frame that stands on a cell's edge must not fall into the cell before it by rounding.
    cell = f"floor(({{time}}-{start_s!r})*{sample_fps!r}+0.000001)"
    is_new = f"isnan(prev_selected_t)+gt({cell.format(time='t')},{cell.format(time='prev_selected_t')})"
    return f"gte(t,{start_s!r})*lt(t,{end_s!r})*({is_new})"
