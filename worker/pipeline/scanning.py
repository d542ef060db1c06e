"""From a file to the results of its segments: each is decoded while the one before it is looked at."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from worker.media.ahead import ReadAhead
from worker.media.frames import read_frames
from worker.media.probe import MediaFacts
from worker.media.segments import Segment
from worker.pipeline.detector import Detector
from worker.pipeline.results import SegmentResult


def scan_segments(
    detector: Detector,
    path: Path,
    facts: MediaFacts,
    plan: Sequence[Segment],
    *,
    sample_fps: float,
    timeout_s: float,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[SegmentResult]:
    """
    Score the segments of the file at *path*, in order.

    Args:
        timeout_s: Wall-clock limit of decoding one of them.
        should_stop: Asked now and then.

    Raises:
        JobCancelledError: *should_stop* said so.
        ModelError: The network gave something that is not a number.
        DecodeError, DecodeTimeoutError, MediaError: As ``read_frames`` does.
    """

    def begin(part: Segment) -> ReadAhead:
        frames = read_frames(
            path, facts, start_s=part.start_s, end_s=part.end_s, sample_fps=sample_fps, timeout_s=timeout_s
        )
        return ReadAhead(frames, facts)

    with ExitStack() as stack:
        readers: list[ReadAhead] = []
        for place in range(len(plan)):
            while len(readers) < min(place + 2, len(plan)):
                readers.append(stack.enter_context(begin(plan[len(readers)])))
            yield detector.score_segment(readers[place], should_stop)
