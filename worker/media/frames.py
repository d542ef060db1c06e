"""Decoded frames with their times, streamed from a child process."""

import math
import queue
import re
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.containers import PICTURES, MediaLimits
from shared.errors import DecodeError, TruncatedError, UnsupportedMediaError
from worker.media.ffmpeg import command_line, open_input, video_of
from worker.media.filelog import displayed_size, signed
from worker.media.images import Clip, read_animation, read_picture
from worker.media.probe import MediaFacts, probe
from worker.media.process import BoundedProcess, Leash, read_exactly, seconds_left
from worker.media.segments import Segment
from worker.media.tonemap import table_file

SEEK_MARGINS_S = (0.5, 15.0, 120.0)
"""
How far before the segment seeking aims, in turn, before decoding begins with the file. Containers index by decoding
time, which differs from presentation time by some frames, and frames may be far apart.
"""
LARGE_PIXELS = 3840 * 2160
"""Of frames so large ffmpeg may keep one before the pipe, beside the eight before its last step, and not eight more."""
OUTGROWN = 2
"""A frame of so many times the pixels of those before makes the decoder begin again."""
MOST_SIZES = 6
"""How often it begins within one stretch."""
END_MARGIN_S = 0.2
"""How far past the last segment the decoder goes before it is told to stop; the exact end is the selection's."""
LONGEST_CLIP_S = 60.0
"""Of the video in a motion photo, which lasts some seconds and is a single segment."""
CLIP_LIMITS = MediaLimits(max_bytes=2**31, max_duration_s=LONGEST_CLIP_S, max_pixels=8192 * 4320, max_frame_rate=240.0)
"""Of such a video where the service's limits are not given."""
MOST_TOGETHER = 32
"""Segments that share a decoder: the expression that chooses their frames names each."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One decoded picture."""

    time_s: float
    """Media time: 0 is where players begin. Of picture n of an image it is n."""
    pixels: NDArray[np.uint8]
    """(H, W, 3) RGB, upright."""
    scale: tuple[float, float] = (1.0, 1.0)
    """Pixels of the displayed picture to one of these, across and down: very large images are looked at smaller."""


def read_frames(
    path: Path,
    facts: MediaFacts,
    *,
    start_s: float,
    end_s: float,
    sample_fps: float,
    timeout_s: float,
    leash: Leash | None = None,
    limits: MediaLimits = CLIP_LIMITS,
) -> Iterator[Frame]:
    """
    Decode the sampled frames of ``[start_s, end_s)``, in order, a few in memory at a time.

    Time from the segment's start is divided into cells of ``1 / sample_fps`` seconds, and the first frame of each
    cell is given with its true time, so variable frame rates are sampled as evenly as they allow. Closing the
    iterator early ends the decoder.

    Args:
        timeout_s: Wall-clock limit of decoding; the time between a frame and being asked for the next does not count.
        leash: Ends the decoder from another thread; there are no more frames then.
        limits: Of the video in a motion photo, which besides lasts no longer than ``LONGEST_CLIP_S``. The file itself
            was held to them by ``probe``.

    Raises:
        DecodeError: No frame could be decoded, or the decoder crashed before the end.
        DecodeTimeoutError: It did not end within *timeout_s*.
        MediaError: The image is damaged.
    """
    if facts.kind == "image":
        yield from _read_still(path, facts.container, round(start_s), sample_fps, timeout_s, leash, limits)
        return
    if facts.container in PICTURES:
        pictures = read_animation(
            path, start_s=start_s, end_s=end_s, sample_fps=sample_fps, timeout_s=timeout_s, leash=leash
        )
        with closing(pictures):
            for time_s, picture in pictures:
                yield Frame(time_s, picture.pixels, picture.scale)
        return
    for _, frame in _read_run(path, facts, (start_s, end_s), sample_fps, timeout_s, leash):
        yield frame


def _read_still(
    path: Path,
    container: str,
    number: int,
    sample_fps: float,
    timeout_s: float,
    leash: Leash | None,
    limits: MediaLimits,
) -> Iterator[Frame]:
    """
    Picture *number* of an image, or the sampled frames of a video that a motion photo has behind the last one.

    Raises:
        MediaError: Such a video is not to be judged by its frames: it is damaged, some of it is not looked at, or it is
            a file of several pictures.
    """
    deadline = time.monotonic() + timeout_s
    picture = read_picture(path, container, number, timeout_s=timeout_s, leash=leash)
    if not isinstance(picture, Clip):
        yield Frame(float(number), picture.pixels, picture.scale)
        return
    with picture.copied() as clip:
        limits = replace(limits, max_duration_s=min(limits.max_duration_s, LONGEST_CLIP_S))
        facts = probe(clip, limits, timeout_s=seconds_left(deadline))
        if facts.truncated:
            raise TruncatedError("the video of the motion photo is damaged or incomplete")
        if facts.other_video_tracks:
            raise UnsupportedMediaError(
                f"the video of the motion photo has {1 + facts.other_video_tracks} video tracks,"
                " of which one alone would be looked at; send it as a file of its own"
            )
        if facts.kind == "image" and facts.frame_count > 1:
            raise UnsupportedMediaError(
                f"the image has a file of {facts.frame_count} pictures behind it; send that as a file of its own"
            )
        frames = read_frames(
            clip,
            facts,
            start_s=0.0,
            end_s=facts.duration_s or 0.0,
            sample_fps=sample_fps,
            timeout_s=seconds_left(deadline),
            leash=leash,
        )
        for frame in frames:
            # The video counts as a picture, and its own time begins there.
            yield replace(frame, time_s=round(number + frame.time_s, 6))


def read_segments(
    path: Path,
    facts: MediaFacts,
    plan: Sequence[Segment],
    *,
    sample_fps: float,
    timeout_s: float,
    leash: Leash | None = None,
    limits: MediaLimits = CLIP_LIMITS,
) -> Iterator[Frame | None]:
    """
    Decode the sampled frames of the segments of *plan*, in order, with None after those of each.

    They are the frames that ``read_frames`` gives. Segments that follow each other share a decoder, which saves the
    way from a key frame to the start of each; where that one gets no further, each has its own.

    Args:
        timeout_s: Wall-clock limit of decoding one of them, as for ``read_frames``. Where a shared decoder reaches it,
            the segment has as much time again for a decoder of its own.
        leash: Ends the decoder from another thread.
        limits: Of the video in a motion photo, as for ``read_frames``.

    Raises:
        DecodeError, DecodeTimeoutError, MediaError: As ``read_frames`` does, after the frames before.
    """
    leash = leash or Leash()
    at = 0
    while at < len(plan):
        run = plan[at : at + 1] if facts.container in PICTURES else _run(plan, at)
        rest = _Rest(0, 1)
        if len(run) > 1:
            rest = yield from _read_together(path, facts, run, sample_fps, timeout_s, leash)
        after_s = rest.after_s
        for part in run[rest.begin : rest.end]:
            frames = read_frames(
                path,
                facts,
                start_s=part.start_s,
                end_s=part.end_s,
                sample_fps=sample_fps,
                timeout_s=timeout_s,
                leash=leash,
                limits=limits,
            )
            for frame in frames:
                if frame.time_s > after_s:
                    yield frame
            yield None
            after_s = -math.inf
        at += rest.end


def _run(plan: Sequence[Segment], at: int) -> Sequence[Segment]:
    """The segments from *at* on that may share a decoder: each begins where the one before it ends."""
    end = at + 1
    while end < min(len(plan), at + MOST_TOGETHER) and plan[end].start_s == plan[end - 1].end_s:
        end += 1
    return plan[at:end]


@dataclass(frozen=True, slots=True)
class _Rest:
    """What a shared decoder left to decoders for one segment each: the places ``[begin, end)`` of its run."""

    begin: int
    end: int
    after_s: float = -math.inf
    """How far the first of them was read already."""


def _read_together(
    path: Path, facts: MediaFacts, run: Sequence[Segment], sample_fps: float, timeout_s: float, leash: Leash
) -> Generator[Frame | None, None, _Rest]:
    """The frames of the segments of *run*, with None after those of each, as far as one decoder gives them."""
    cuts_s = [run[0].start_s, *(part.end_s for part in run)]
    place, read_s = -1, -math.inf
    try:
        with closing(_read_run(path, facts, cuts_s, sample_fps, timeout_s, leash)) as frames:
            for frame_place, frame in frames:
                if frame_place > place >= 0:
                    yield None
                if frame_place > place + 1:
                    # Nothing begins in those between.
                    return _Rest(place + 1, frame_place)
                place, read_s = frame_place, frame.time_s
                yield frame
    except DecodeError:
        # Decoders are ahead of what they have given: which segment it was that stopped it, others must tell.
        if leash.is_cut:
            raise
    else:
        if place == len(run) - 1:
            yield None
            return _Rest(len(run), len(run))
    return _Rest(max(place, 0), len(run), read_s)


class _OutgrownError(Exception):
    """A frame has many more pixels than it would be read with."""

    def __init__(self, size_px: tuple[int, int]) -> None:
        super().__init__(size_px)
        self.size_px = size_px


def _readable_size(size_px: tuple[int, int], facts: MediaFacts) -> tuple[int, int]:
    """*size_px*, or less of the same shape where a frame is larger than any that the facts or 4K would make."""
    most = max(LARGE_PIXELS, facts.width_px * facts.height_px)
    shrinking = min(1.0, math.sqrt(most / max(1, size_px[0] * size_px[1])))
    width_px, height_px = (max(1, math.floor(side_px * shrinking)) for side_px in size_px)
    return width_px, height_px


def _read_run(
    path: Path,
    facts: MediaFacts,
    cuts_s: Sequence[float],
    sample_fps: float,
    timeout_s: float,
    leash: Leash | None,
) -> Generator[tuple[int, Frame], None, None]:
    """
    The sampled frames between the first and the last of *cuts_s*, each with the place of the stretch it is in.

    Of a single stretch there is one at least. The facts have the size of the file's first frame; where one is much
    larger, it and those after it are read in its size, lest a face that players show large be too small to look at.
    """
    sized, after_s, last_s = facts, -math.inf, -math.inf
    for _ in range(MOST_SIZES):
        scale = facts.width_px / sized.width_px, facts.height_px / sized.height_px
        try:
            with closing(_read_sized(path, sized, cuts_s, sample_fps, timeout_s, leash)) as frames:
                for place, frame in frames:
                    if frame.time_s > after_s:
                        last_s = frame.time_s
                        yield place, replace(frame, scale=scale)
        except _OutgrownError as error:
            after_s = last_s
            sized = replace(facts, width_px=error.size_px[0], height_px=error.size_px[1])
        else:
            return
    raise DecodeError(f"frames are of too many sizes between {cuts_s[0]:g} s and {cuts_s[-1]:g} s")


def _read_sized(
    path: Path,
    facts: MediaFacts,
    cuts_s: Sequence[float],
    sample_fps: float,
    timeout_s: float,
    leash: Leash | None,
) -> Generator[tuple[int, Frame], None, None]:
    """The frames that ``_read_run`` gives, in the size of the facts, up to one that is much larger."""
    start_s = cuts_s[0]
    deadline = time.monotonic() + timeout_s
    for seek in [*(start_s - margin_s for margin_s in SEEK_MARGINS_S if start_s > margin_s), None]:
        decoding = _Decoding(path, facts, cuts_s, sample_fps, seek, leash)
        frames = decoding.frames(seconds_left(deadline), timeout_s)
        first = next(frames, None)
        if seek is not None and not decoding.began_by(start_s):
            # Seeking went too far, as it does where an index is poor or a long gap shifts decoding times.
            frames.close()
            continue
        if first is not None:
            yield first
            yield from frames
        elif len(cuts_s) == 2:
            yield 0, _held_frame(path, facts, start_s, sample_fps, seek, seconds_left(deadline), leash)
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
    before = _Decoding(path, facts, (0.0, at_s), sample_fps, seek_s, leash)
    last = deque(before.frames(timeout_s, timeout_s), maxlen=1)
    if not last:
        raise DecodeError(f"0 frames decoded at {at_s:g} s")
    return Frame(at_s, last[0][1].pixels)


_TIMEBASE_LINE = re.compile(r"^\[Parsed_showinfo_(\d+) @ [^\]]+\] (?:\[info\] )?config in time_base: (\d+)/(\d+)")
_FRAME_LINE = re.compile(
    r"^\[Parsed_showinfo_(\d+) @ [^\]]+\] (?:\[info\] )?n: *\d+ pts: *(-?\d+) "
    r"(?:.*? sar:(\d+)/(\d+) s:(\d+)x(\d+) )?"
)
_COMPLAINT = re.compile(r"^(?:\[[^\]]+ @ [^\]]+\] )*\[(?:error|fatal|panic)\] ")
_ERROR = re.compile(r"\b(error|invalid)\b", re.IGNORECASE)


class _Clock:
    """
    Reads frames' times from ffmpeg's log, in the order in which the frames come.

    Two filters write there: the first in the graph sees every decoded frame, the other those that were selected.
    """

    def __init__(self) -> None:
        self.first_decoded_s: float | None = None
        self._is_smooth = True
        self._is_decoding = False
        self._last_decoded_s = -math.inf
        self._tick_s: dict[str, float] = {}
        self._selected: queue.Queue[tuple[float, bool, tuple[int, int]]] = queue.Queue()

    def read(self, line: str) -> None:
        own = signed(line)
        if own is None:
            # Until here the file was only looked over, and sound, which has no decoder, complained of. A file may say
            # so itself, and earlier: complaints then count that need not, and its stretches are decoded one by one.
            self._is_decoding |= line.endswith("Stream mapping:")
        elif match := _FRAME_LINE.match(own):
            time_s = int(match[2]) * self._tick_s.get(match[1], 0.0)
            if match[1] != "0":
                across, down, width_px, height_px = (int(value or 0) for value in match.groups()[2:])
                self._selected.put((time_s, self._is_smooth, displayed_size(width_px, height_px, across, down)))
                return
            if self.first_decoded_s is None:
                self.first_decoded_s = time_s
            self._is_smooth &= time_s >= self._last_decoded_s
            self._last_decoded_s = time_s
        elif match := _TIMEBASE_LINE.match(own):
            # Frames of another size or format make ffmpeg set its filters up anew.
            self._is_smooth &= match[1] not in self._tick_s
            self._tick_s[match[1]] = int(match[2]) / int(match[3])
        elif self._is_decoding and _COMPLAINT.match(own):
            self._is_smooth = False

    def next_selected(self, timeout_s: float) -> tuple[float, bool, tuple[int, int]]:
        """
        The time of the next selected frame, whether all went smoothly until then, and its displayed width and height.

        Smoothly is: no error was logged, if the log tells levels, and no frame came after a later one or in another
        size.
        """
        return self._selected.get(timeout=timeout_s)


class _Decoding:
    """One run of ffmpeg over the part of a file around the stretches between *cuts_s*."""

    def __init__(
        self,
        path: Path,
        facts: MediaFacts,
        cuts_s: Sequence[float],
        sample_fps: float,
        seek_s: float | None,
        leash: Leash | None,
    ) -> None:
        self._facts = facts
        self._leash = leash
        self._span = f"between {cuts_s[0]:g} s and {cuts_s[-1]:g} s"
        self._clock = _Clock()
        offset_s = facts.start_s
        self._cuts_s = [offset_s + cut_s for cut_s in cuts_s]
        options = (
            {}
            if seek_s is None
            # Timestamps stay those of the file, and nothing decoded is dropped by ffmpeg itself.
            else {"ss": repr(offset_s + seek_s), "seek_timestamp": 1, "noaccurate_seek": None}
        )
        stream = video_of(open_input(path, facts.container, **options), facts.video_track)
        stream = stream.filter("showinfo", checksum=0)
        stream = stream.filter("trim", end=repr(self._cuts_s[-1] + END_MARGIN_S))
        stream = stream.filter("select", _selection(self._cuts_s, sample_fps))
        stream = stream.filter("showinfo", checksum=0)
        # Held as long as the decoder may read it.
        self._table = None if facts.dynamic_range == "sdr" else table_file(facts.dynamic_range)
        stream = _as_displayed(stream, facts, None if self._table is None else self._table.name)
        is_large = facts.width_px * facts.height_px >= LARGE_PIXELS
        waiting = {"thread_queue_size": 1} if is_large else {}
        output = stream.output("pipe:", f="rawvideo", pix_fmt="rgb24", fps_mode="passthrough", **waiting)
        self._is_shared = len(cuts_s) > 2
        self._arguments = command_line(output, log="level+info" if self._is_shared else "info")

    def began_by(self, time_s: float) -> bool:
        """Whether the first decoded frame stands at *time_s* or before; known with the first frame, or the end."""
        first_s = self._clock.first_decoded_s
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
            _OutgrownError: A frame is much larger than the facts say.
        """
        height_px, width_px = self._facts.height_px, self._facts.width_px
        size = height_px * width_px * 3
        count = place = 0
        bounded = BoundedProcess(
            self._arguments,
            timeout_s=timeout_s,
            whole_timeout_s=timeout_s + (len(self._cuts_s) - 2) * stretch_timeout_s,
            on_line=self._clock.read,
            leash=self._leash,
        )
        with bounded as child:
            while len(data := read_exactly(child.stdout, size)) == size:
                try:
                    # ffmpeg logs a frame before it writes it, so the time is here or about to be.
                    time_s, is_smooth, size_px = self._clock.next_selected(timeout_s=10.0)
                except queue.Empty as error:
                    raise DecodeError("the decoder gave a frame without a time") from error
                if self._is_shared and not is_smooth:
                    raise DecodeError(f"frames are damaged, out of order or of several kinds {self._span}")
                size_px = _readable_size(size_px, self._facts)
                if size_px[0] * size_px[1] >= OUTGROWN * width_px * height_px:
                    raise _OutgrownError(size_px)
                count += 1
                pixels = np.frombuffer(data, np.uint8).reshape(height_px, width_px, 3)
                with child.paused():
                    before, place = place, bisect_right(self._cuts_s, time_s) - 1
                    if place > before:
                        child.renew(stretch_timeout_s)
                    yield place, Frame(round(time_s - self._facts.start_s, 6), pixels)
            status = child.wait()
            if status < 0:
                raise DecodeError(f"the decoder was ended by signal {-status} {self._span}")
            if count == 0 and any(_ERROR.search(line) for line in child.lines):
                raise DecodeError(f"0 frames decoded {self._span}: the data is damaged")


def _as_displayed(stream: Any, facts: MediaFacts, table: str | None) -> Any:
    """The frames of *stream* as SDR displays show them, all of one size and with square pixels; *table* is for HDR."""
    # Frames of another size, later in the stream, are brought to that of the facts.
    size = facts.width_px, facts.height_px
    how = {"flags": "bilinear+accurate_rnd+full_chroma_int"}
    if table is None:
        return stream.filter("scale", *size, **how)
    # HDR has one matrix in practice, and pictures that name none would get that of SDR.
    stream = stream.filter("scale", *size, **how, in_color_matrix="bt2020").filter("format", "gbrp16le")
    return stream.filter("lut3d", table, interp="tetrahedral")


def _selection(cuts_s: Sequence[float], sample_fps: float) -> str:
    """ffmpeg's expression for the first frame of each cell within each stretch between *cuts_s*."""
    # Of the sum, one term is not zero: where the stretch begins that a time is in.
    begin = "+".join(f"{start!r}*gte({{time}},{start!r})*lt({{time}},{end!r})" for start, end in pairwise(cuts_s))
    # A frame that stands on a cell's edge must not fall into the cell before it by rounding.
    cell = f"floor(({{time}}-ld({{begin}}))*{sample_fps!r}+0.000001)"
    now, before = cell.format(time="t", begin=0), cell.format(time="prev_selected_t", begin=1)
    begins = f"st(0,{begin.format(time='t')});st(1,{begin.format(time='prev_selected_t')})"
    is_new = f"isnan(prev_selected_t)+gt(ld(0),ld(1))+gt({now},{before})"
    return f"{begins};gte(t,{cuts_s[0]!r})*lt(t,{cuts_s[-1]!r})*({is_new})"
