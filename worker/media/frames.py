"""Decoded frames with their timestamps, streamed from a child process."""

import math
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from shared.containers import PICTURES, MediaLimits
from shared.errors import DecodeError, TruncatedError, UnsupportedMediaError
from worker.media.decoding import Frame, FrameDecoder, LargerFrameError
from worker.media.images import Clip, read_animation, read_picture
from worker.media.probe import MediaFacts, probe
from worker.media.process import CancelToken, seconds_left
from worker.media.segments import Segment

__all__ = ["CLIP_LIMITS", "Frame", "read_frames", "read_segments"]

SEEK_MARGINS_S = (0.5, 15.0, 120.0)
"""
How far before the segment to seek, tried in turn before decoding starts at the beginning of the file. Containers are
indexed by decoding time, which differs from presentation time by a few frames, and frames may be far apart.
"""
MAX_SIZES = 6
"""Most frame sizes, each much larger than the one before, that the decoder is restarted for within one range."""
MAX_CLIP_S = 60.0
"""Longest video in a motion photo; such a video usually lasts a few seconds and is a single segment."""
CLIP_LIMITS = MediaLimits(max_bytes=2**31, max_duration_s=MAX_CLIP_S, max_pixels=8192 * 4320, max_frame_rate=240.0)
"""Default limits of the video in a motion photo."""
MAX_SHARED_SEGMENTS = 32
"""Most segments that share a decoder; the ``select`` expression grows with each."""


def read_frames(
    path: Path,
    facts: MediaFacts,
    *,
    start_s: float,
    end_s: float,
    sample_fps: float,
    timeout_s: float,
    cancel_token: CancelToken | None = None,
    limits: MediaLimits = CLIP_LIMITS,
) -> Iterator[Frame]:
    """
    Decode the sampled frames of ``[start_s, end_s)``, in order, a few in memory at a time.

    Time from the segment's start is divided into cells of ``1 / sample_fps`` seconds, and the first frame of each
    cell is yielded with its true time, so variable frame rates are sampled as evenly as possible. Closing the
    iterator early ends the decoder.

    Args:
        timeout_s: Wall-clock limit of decoding; time that the caller spends between frames does not count.
        cancel_token: Ends the decoder from another thread; there are no more frames then.
        limits: Limits of the video in a motion photo, which may also not be longer than ``MAX_CLIP_S``. ``probe`` has
            checked the limits of the file itself.

    Raises:
        DecodeError: No frame could be decoded, or the decoder crashed before the end.
        DecodeTimeoutError: It did not end within *timeout_s*.
        MediaError: The image is damaged.
    """
    if facts.kind == "image":
        yield from _read_still(path, facts.container, round(start_s), sample_fps, timeout_s, cancel_token, limits)
        return
    if facts.container in PICTURES:
        pictures = read_animation(
            path, start_s=start_s, end_s=end_s, sample_fps=sample_fps, timeout_s=timeout_s, cancel_token=cancel_token
        )
        with closing(pictures):
            for time_s, picture in pictures:
                yield Frame(time_s, picture.pixels, picture.scale)
        return
    for _, frame in _read_ranges(path, facts, (start_s, end_s), sample_fps, timeout_s, cancel_token):
        yield frame


def _read_still(
    path: Path,
    container: str,
    number: int,
    sample_fps: float,
    timeout_s: float,
    cancel_token: CancelToken | None,
    limits: MediaLimits,
) -> Iterator[Frame]:
    """
    Yield picture *number* of an image, or the sampled frames of a motion photo's video, which follows the last picture.

    Raises:
        MediaError: The video cannot be judged by its frames: it is damaged, has more tracks than the one that is
            decoded, or is in fact a file of several pictures.
    """
    deadline = time.monotonic() + timeout_s
    picture = read_picture(path, container, number, timeout_s=timeout_s, cancel_token=cancel_token)
    if not isinstance(picture, Clip):
        yield Frame(float(number), picture.pixels, picture.scale)
        return
    with picture.extract() as clip:
        limits = replace(limits, max_duration_s=min(limits.max_duration_s, MAX_CLIP_S))
        facts = probe(clip, limits, timeout_s=seconds_left(deadline))
        if facts.truncated:
            raise TruncatedError("the video of the motion photo is damaged or incomplete")
        if facts.other_video_tracks:
            raise UnsupportedMediaError(
                f"the video of the motion photo has {1 + facts.other_video_tracks} video tracks,"
                " and only one would be analysed; send it as a separate file"
            )
        if facts.kind == "image" and facts.frame_count > 1:
            raise UnsupportedMediaError(
                f"the image contains another file with {facts.frame_count} pictures; send that as a separate file"
            )
        frames = read_frames(
            clip,
            facts,
            start_s=0.0,
            end_s=facts.duration_s or 0.0,
            sample_fps=sample_fps,
            timeout_s=seconds_left(deadline),
            cancel_token=cancel_token,
        )
        for frame in frames:
            # The video counts as picture *number*, so its time begins at that number.
            yield replace(frame, time_s=round(number + frame.time_s, 6))


def read_segments(
    path: Path,
    facts: MediaFacts,
    plan: Sequence[Segment],
    *,
    sample_fps: float,
    timeout_s: float,
    cancel_token: CancelToken | None = None,
    limits: MediaLimits = CLIP_LIMITS,
) -> Generator[Frame | None, None, None]:
    """
    Decode the sampled frames of the segments of *plan*, in order, with None after those of each.

    The frames are those of ``read_frames``. Consecutive segments share a decoder, which saves decoding from a key
    frame to the start of each. Where the shared decoder fails, the remaining segments are decoded one by one.

    Args:
        timeout_s: Wall-clock limit of decoding one segment, as for ``read_frames``. A segment on which the shared
            decoder times out gets the same time again when it is decoded separately.
        cancel_token: Ends the decoder from another thread.
        limits: Limits of the video in a motion photo, as for ``read_frames``.

    Raises:
        DecodeError, DecodeTimeoutError, MediaError: As ``read_frames`` does, after the frames decoded so far.
    """
    cancel_token = cancel_token or CancelToken()
    position = 0
    while position < len(plan):
        group = plan[position : position + 1] if facts.container in PICTURES else _group_consecutive(plan, position)
        rest = _Remainder(0, 1)
        if len(group) > 1:
            rest = yield from _read_shared(path, facts, group, sample_fps, timeout_s, cancel_token)
        after_s = rest.after_s
        for segment in group[rest.begin : rest.end]:
            frames = read_frames(
                path,
                facts,
                start_s=segment.start_s,
                end_s=segment.end_s,
                sample_fps=sample_fps,
                timeout_s=timeout_s,
                cancel_token=cancel_token,
                limits=limits,
            )
            for frame in frames:
                if frame.time_s > after_s:
                    yield frame
            yield None
            after_s = -math.inf
        position += rest.end


def _group_consecutive(plan: Sequence[Segment], start: int) -> Sequence[Segment]:
    """Return the segments from *start* on that may share a decoder: each begins where the one before it ends."""
    end = start + 1
    while end < min(len(plan), start + MAX_SHARED_SEGMENTS) and plan[end].start_s == plan[end - 1].end_s:
        end += 1
    return plan[start:end]


@dataclass(frozen=True, slots=True)
class _Remainder:
    """The segments ``[begin, end)`` of a group that the shared decoder left, to be decoded one by one."""

    begin: int
    end: int
    after_s: float = -math.inf
    """Time of the last frame of the first of them that was yielded already."""


def _read_shared(
    path: Path,
    facts: MediaFacts,
    group: Sequence[Segment],
    sample_fps: float,
    timeout_s: float,
    cancel_token: CancelToken,
) -> Generator[Frame | None, None, _Remainder]:
    """Yield the frames of the segments of *group*, with None after those of each, as far as one decoder gets."""
    cuts_s = [group[0].start_s, *(segment.end_s for segment in group)]
    current, read_s = -1, -math.inf
    try:
        with closing(_read_ranges(path, facts, cuts_s, sample_fps, timeout_s, cancel_token)) as frames:
            for number, frame in frames:
                if number > current >= 0:
                    yield None
                if number > current + 1:
                    # No frame begins in the segments between: each shows the frame before it.
                    return _Remainder(current + 1, number)
                current, read_s = number, frame.time_s
                yield frame
    except DecodeError:
        # Decoders work ahead of their output, so only decoding one by one tells which segment is damaged.
        if cancel_token.is_cancelled:
            raise
    else:
        if current == len(group) - 1:
            yield None
            return _Remainder(len(group), len(group))
    return _Remainder(max(current, 0), len(group), read_s)


def _read_ranges(
    path: Path,
    facts: MediaFacts,
    cuts_s: Sequence[float],
    sample_fps: float,
    timeout_s: float,
    cancel_token: CancelToken | None,
) -> Generator[tuple[int, Frame], None, None]:
    """
    Yield the sampled frames between the first and the last of *cuts_s*, each with the number of its range.

    A single range has at least one frame. Frames are read in the size of the facts, which is that of the file's first
    frame. A much larger frame and those after it are read in the larger size: a face that players show large could
    otherwise be too small to be scored.
    """
    sized, after_s, last_s = facts, -math.inf, -math.inf
    for _ in range(MAX_SIZES):
        scale = facts.width_px / sized.width_px, facts.height_px / sized.height_px
        try:
            with closing(_read_fixed_size(path, sized, cuts_s, sample_fps, timeout_s, cancel_token)) as frames:
                for number, frame in frames:
                    if frame.time_s > after_s:
                        last_s = frame.time_s
                        yield number, replace(frame, scale=scale)
        except LargerFrameError as error:
            after_s = last_s
            sized = replace(facts, width_px=error.size_px[0], height_px=error.size_px[1])
        else:
            return
    raise DecodeError(f"frames have too many different sizes between {cuts_s[0]:g} s and {cuts_s[-1]:g} s")


def _read_fixed_size(
    path: Path,
    facts: MediaFacts,
    cuts_s: Sequence[float],
    sample_fps: float,
    timeout_s: float,
    cancel_token: CancelToken | None,
) -> Generator[tuple[int, Frame], None, None]:
    """Yield the frames of ``_read_ranges`` in the size of the facts; raise LargerFrameError at a much larger one."""
    start_s = cuts_s[0]
    deadline = time.monotonic() + timeout_s
    for seek_s in [*(start_s - margin_s for margin_s in SEEK_MARGINS_S if start_s > margin_s), None]:
        decoder = FrameDecoder(path, facts, cuts_s, sample_fps, seek_s, cancel_token)
        frames = decoder.frames(seconds_left(deadline), timeout_s)
        first = next(frames, None)
        if seek_s is not None and not decoder.starts_by(start_s):
            # Seeking went too far, which happens with a poor index or where a long gap shifts decoding times.
            frames.close()
            continue
        if first is not None:
            yield first
            yield from frames
        elif len(cuts_s) == 2:
            yield (
                0,
                _read_displayed_frame(path, facts, start_s, sample_fps, seek_s, seconds_left(deadline), cancel_token),
            )
        return


def _read_displayed_frame(
    path: Path,
    facts: MediaFacts,
    time_s: float,
    sample_fps: float,
    seek_s: float | None,
    timeout_s: float,
    cancel_token: CancelToken | None,
) -> Frame:
    """
    Decode the frame that is still on the screen at *time_s*, for a segment in which no frame begins.

    Variable frame rates allow gaps longer than a segment: a screen recording, for instance, where nothing moves.
    """
    decoder = FrameDecoder(path, facts, (0.0, time_s), sample_fps, seek_s, cancel_token)
    last = deque(decoder.frames(timeout_s, timeout_s), maxlen=1)
    if not last:
        raise DecodeError(f"0 frames decoded at {time_s:g} s")
    return Frame(time_s, last[0][1].pixels)
