"""Decoded frames with their times, streamed from a child process."""

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
How far before the segment seeking aims, in turn, before decoding begins with the file. Containers index by decoding
time, which differs from presentation time by some frames, and frames may be far apart.
"""
MAX_SIZE_CHANGES = 6
"""How often the decoder begins again within one stretch, where frames are much larger than those before."""
MAX_CLIP_S = 60.0
"""Of the video in a motion photo, which lasts some seconds and is a single segment."""
CLIP_LIMITS = MediaLimits(max_bytes=2**31, max_duration_s=MAX_CLIP_S, max_pixels=8192 * 4320, max_frame_rate=240.0)
"""Of such a video where the service's limits are not given."""
MAX_SHARED_SEGMENTS = 32
"""Segments that share a decoder: the expression that chooses their frames names each."""


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
    cell is given with its true time, so variable frame rates are sampled as evenly as they allow. Closing the
    iterator early ends the decoder.

    Args:
        timeout_s: Wall-clock limit of decoding; the time between a frame and being asked for the next does not count.
        cancel_token: Ends the decoder from another thread; there are no more frames then.
        limits: Of the video in a motion photo, which besides lasts no longer than ``MAX_CLIP_S``. The file itself
            was held to them by ``probe``.

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
    for _, frame in _read_stretches(path, facts, (start_s, end_s), sample_fps, timeout_s, cancel_token):
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
    Picture *number* of an image, or the sampled frames of a video that a motion photo has behind the last one.

    Raises:
        MediaError: Such a video is not to be judged by its frames: it is damaged, some of it is not looked at, or it is
            a file of several pictures.
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
            cancel_token=cancel_token,
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
    cancel_token: CancelToken | None = None,
    limits: MediaLimits = CLIP_LIMITS,
) -> Iterator[Frame | None]:
    """
    Decode the sampled frames of the segments of *plan*, in order, with None after those of each.

    They are the frames that ``read_frames`` gives. Segments that follow each other share a decoder, which saves the
    way from a key frame to the start of each; where that one gets no further, each has its own.

    Args:
        timeout_s: Wall-clock limit of decoding one of them, as for ``read_frames``. Where a shared decoder reaches it,
            the segment has as much time again for a decoder of its own.
        cancel_token: Ends the decoder from another thread.
        limits: Of the video in a motion photo, as for ``read_frames``.

    Raises:
        DecodeError, DecodeTimeoutError, MediaError: As ``read_frames`` does, after the frames before.
    """
    cancel_token = cancel_token or CancelToken()
    at = 0
    while at < len(plan):
        run = plan[at : at + 1] if facts.container in PICTURES else _group_consecutive(plan, at)
        rest = _Remainder(0, 1)
        if len(run) > 1:
            rest = yield from _read_shared(path, facts, run, sample_fps, timeout_s, cancel_token)
        after_s = rest.after_s
        for part in run[rest.begin : rest.end]:
            frames = read_frames(
                path,
                facts,
                start_s=part.start_s,
                end_s=part.end_s,
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
        at += rest.end


def _group_consecutive(plan: Sequence[Segment], at: int) -> Sequence[Segment]:
    """The segments from *at* on that may share a decoder: each begins where the one before it ends."""
    end = at + 1
    while end < min(len(plan), at + MAX_SHARED_SEGMENTS) and plan[end].start_s == plan[end - 1].end_s:
        end += 1
    return plan[at:end]


@dataclass(frozen=True, slots=True)
class _Remainder:
    """What a shared decoder left to decoders for one segment each: the places ``[begin, end)`` of its run."""

    begin: int
    end: int
    after_s: float = -math.inf
    """How far the first of them was read already."""


def _read_shared(
    path: Path,
    facts: MediaFacts,
    run: Sequence[Segment],
    sample_fps: float,
    timeout_s: float,
    cancel_token: CancelToken,
) -> Generator[Frame | None, None, _Remainder]:
    """The frames of the segments of *run*, with None after those of each, as far as one decoder gives them."""
    cuts_s = [run[0].start_s, *(part.end_s for part in run)]
    place, read_s = -1, -math.inf
    try:
        with closing(_read_stretches(path, facts, cuts_s, sample_fps, timeout_s, cancel_token)) as frames:
            for frame_place, frame in frames:
                if frame_place > place >= 0:
                    yield None
                if frame_place > place + 1:
                    # Nothing begins in those between.
                    return _Remainder(place + 1, frame_place)
                place, read_s = frame_place, frame.time_s
                yield frame
    except DecodeError:
        # Decoders are ahead of what they have given: which segment it was that stopped it, others must tell.
        if cancel_token.is_cut:
            raise
    else:
        if place == len(run) - 1:
            yield None
            return _Remainder(len(run), len(run))
    return _Remainder(max(place, 0), len(run), read_s)


def _read_stretches(
    path: Path,
    facts: MediaFacts,
    cuts_s: Sequence[float],
    sample_fps: float,
    timeout_s: float,
    cancel_token: CancelToken | None,
) -> Generator[tuple[int, Frame], None, None]:
    """
    The sampled frames between the first and the last of *cuts_s*, each with the place of the stretch it is in.

    Of a single stretch there is one at least. The facts have the size of the file's first frame; where one is much
    larger, it and those after it are read in its size, since a face that players show large could be too small to be
    scored in the first frame's size.
    """
    sized, after_s, last_s = facts, -math.inf, -math.inf
    for _ in range(MAX_SIZE_CHANGES):
        scale = facts.width_px / sized.width_px, facts.height_px / sized.height_px
        try:
            with closing(_read_fixed_size(path, sized, cuts_s, sample_fps, timeout_s, cancel_token)) as frames:
                for place, frame in frames:
                    if frame.time_s > after_s:
                        last_s = frame.time_s
                        yield place, replace(frame, scale=scale)
        except LargerFrameError as error:
            after_s = last_s
            sized = replace(facts, width_px=error.size_px[0], height_px=error.size_px[1])
        else:
            return
    raise DecodeError(f"frames are of too many sizes between {cuts_s[0]:g} s and {cuts_s[-1]:g} s")


def _read_fixed_size(
    path: Path,
    facts: MediaFacts,
    cuts_s: Sequence[float],
    sample_fps: float,
    timeout_s: float,
    cancel_token: CancelToken | None,
) -> Generator[tuple[int, Frame], None, None]:
    """The frames that ``_read_stretches`` gives, in the size of the facts, up to one that is much larger."""
    start_s = cuts_s[0]
    deadline = time.monotonic() + timeout_s
    for seek in [*(start_s - margin_s for margin_s in SEEK_MARGINS_S if start_s > margin_s), None]:
        decoding = FrameDecoder(path, facts, cuts_s, sample_fps, seek, cancel_token)
        frames = decoding.frames(seconds_left(deadline), timeout_s)
        first = next(frames, None)
        if seek is not None and not decoding.starts_by(start_s):
            # Seeking went too far, as it does where an index is poor or a long gap shifts decoding times.
            frames.close()
            continue
        if first is not None:
            yield first
            yield from frames
        elif len(cuts_s) == 2:
            yield 0, _read_displayed_frame(path, facts, start_s, sample_fps, seek, seconds_left(deadline), cancel_token)
        return


def _read_displayed_frame(
    path: Path,
    facts: MediaFacts,
    at_s: float,
    sample_fps: float,
    seek_s: float | None,
    timeout_s: float,
    cancel_token: CancelToken | None,
) -> Frame:
    """
    The picture still on the screen at *at_s*, for a stretch in which none begins.

    Variable frame rates allow gaps longer than a segment: a screen recording, for instance, where nothing moves.
    """
    before = FrameDecoder(path, facts, (0.0, at_s), sample_fps, seek_s, cancel_token)
    last = deque(before.frames(timeout_s, timeout_s), maxlen=1)
    if not last:
        raise DecodeError(f"0 frames decoded at {at_s:g} s")
    return Frame(at_s, last[0][1].pixels)
