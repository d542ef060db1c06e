"""Scoring of the segments of a file, with decoding running ahead in a thread."""

from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path

from shared.containers import MediaLimits
from worker.media.ahead import ReadAhead
from worker.media.frames import CLIP_LIMITS, Frame, read_segments
from worker.media.probe import MediaFacts
from worker.media.process import CancelToken
from worker.media.segments import Segment
from worker.pipeline.detector import Detector
from worker.pipeline.results import SegmentResult
from worker.pipeline.stages import Stages


def scan_segments(
    detector: Detector,
    path: Path,
    facts: MediaFacts,
    plan: Sequence[Segment],
    *,
    sample_fps: float,
    timeout_s: float,
    limits: MediaLimits = CLIP_LIMITS,
    should_stop: Callable[[], bool] = lambda: False,
    stages: Stages | None = None,
    keeps_faces: bool = False,
) -> Generator[SegmentResult, None, None]:
    """
    Score the segments of the file at *path*, in order.

    Args:
        timeout_s: Wall-clock limit of decoding one segment.
        limits: Limits of the video in a motion photo.
        should_stop: Called between chunks of frames.
        stages: Collects the time of each stage.
        keeps_faces: Whether results have a picture of the newest face of each person.

    Raises:
        JobCancelledError: *should_stop* returned True.
        ModelError: A score is not finite.
        DecodeError, DecodeTimeoutError, MediaError: As ``read_segments`` does.
    """

    def read(cancel_token: CancelToken) -> Iterator[Frame | None]:
        return read_segments(
            path, facts, plan, sample_fps=sample_fps, timeout_s=timeout_s, cancel_token=cancel_token, limits=limits
        )

    with ReadAhead(read, facts) as reader:
        frames = iter(reader)
        for _ in plan:
            segment = iter(lambda: next(frames), None)
            yield detector.score_segment(segment, should_stop, stages, keeps_faces=keeps_faces)
