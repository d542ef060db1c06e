"""From a file to the results of its segments: each is decoded while the one before it is looked at."""

from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path

from worker.media.ahead import ReadAhead, may_read_ahead
from worker.media.frames import Frame, read_frames
from worker.media.probe import MediaFacts
from worker.media.process import Leash
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
    should_stop: Callable[[], bool] = lambda: False,
    stages: Stages | None = None,
) -> Generator[SegmentResult, None, None]:
    """
    Score the segments of the file at *path*, in order.

    Args:
        timeout_s: Wall-clock limit of decoding one of them.
        should_stop: Asked now and then.
        stages: Told how long each stage takes.

    Raises:
        JobCancelledError: *should_stop* said so.
        ModelError: The network gave something that is not a number.
        DecodeError, DecodeTimeoutError, MediaError: As ``read_frames`` does.
    """

    def begin(part: Segment) -> ReadAhead:
        def read(leash: Leash) -> Iterator[Frame]:
            return read_frames(
                path,
                facts,
                start_s=part.start_s,
                end_s=part.end_s,
                sample_fps=sample_fps,
                timeout_s=timeout_s,
                leash=leash,
            )

        return ReadAhead(read, facts)

    upcoming: ReadAhead | None = None
    try:
        for place, part in enumerate(plan):
            with upcoming or begin(part) as reader:
                upcoming = begin(plan[place + 1]) if place + 1 < len(plan) and may_read_ahead(facts) else None
                result = detector.score_segment(reader, should_stop, stages)
            yield result
    finally:
        if upcoming is not None:
            upcoming.close()
