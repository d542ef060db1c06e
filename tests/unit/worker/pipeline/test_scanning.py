import threading
import time

import numpy as np
import pytest

from shared.containers import MediaLimits
from shared.errors import DecodeError, JobCancelledError
from tests.clips import make_clip
from worker.media.ahead import MAX_FRAMES_AHEAD
from worker.media.frames import Frame, read_frames
from worker.media.probe import probe
from worker.media.segments import Segment, plan_segments
from worker.pipeline import scanning
from worker.pipeline.scanning import scan_segments

LIMITS = MediaLimits(max_bytes=2**31, max_duration_s=600.0, max_pixels=4096 * 4096, max_frame_rate=240.0)
PICTURE = np.zeros((240, 320, 3), np.uint8)


class Times:
    """Replacement of a detector that records which frames it gets."""

    def score_segment(self, frames, should_stop, _stages=None, **_):
        if should_stop():
            raise JobCancelledError("stopped")
        return [frame.time_s for frame in frames]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = make_clip(tmp_path_factory.mktemp("scan") / "clip.mp4", seconds=9.0)
    return path, probe(path, LIMITS, timeout_s=60)


def scan(clip, plan, **given):
    path, facts = clip
    return scan_segments(Times(), path, facts, plan, sample_fps=2.0, timeout_s=60, **given)


def test_each_segment_gets_its_own_frames(clip):
    path, facts = clip
    plan = plan_segments(facts.duration_s, 2.0)
    wanted = [
        [
            frame.time_s
            for frame in read_frames(path, facts, start_s=part.start_s, end_s=part.end_s, sample_fps=2.0, timeout_s=60)
        ]
        for part in plan
    ]
    assert list(scan(clip, plan)) == wanted
    assert len(plan) == 5  # The last second is half a segment, so it is a separate one.


def segments(count):
    return [Segment(number, float(number), number + 1.0) for number in range(count)]


def test_frames_are_read_ahead_beyond_the_segment_up_to_a_limit(clip, monkeypatch):
    read = []

    def read_segments(_path, _facts, plan, **_options):
        for part in plan:
            for item in (Frame(part.start_s, PICTURE), None):
                read.append(item)
                yield item

    monkeypatch.setattr(scanning, "read_segments", read_segments)
    results = scan(clip, segments(100))
    assert read == []
    assert next(results) == [0.0]
    deadline = time.monotonic() + 5.0
    while len(read) < MAX_FRAMES_AHEAD + 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    # A frame and its end were consumed; the queue is full, and the thread holds one more.
    assert len(read) == MAX_FRAMES_AHEAD + 3
    assert list(results) == [[float(number)] for number in range(1, 100)]


def test_an_error_is_raised_at_its_segment(clip, monkeypatch):
    def read(*_arguments, **_options):
        yield from (Frame(0.0, PICTURE), None, Frame(1.0, PICTURE))
        raise DecodeError("damaged")

    monkeypatch.setattr(scanning, "read_segments", read)
    results = scan(clip, segments(3))
    assert next(results) == [0.0]
    with pytest.raises(DecodeError, match="damaged"):
        next(results)


def test_closing_early_ends_the_thread(clip):
    results = scan(clip, plan_segments(clip[1].duration_s, 2.0))
    next(results)
    results.close()
    assert "read-ahead" not in {thread.name for thread in threading.enumerate()}


def test_should_stop_ends_the_scan(clip):
    with pytest.raises(JobCancelledError):
        next(scan(clip, plan_segments(clip[1].duration_s, 2.0), should_stop=lambda: True))
    assert "read-ahead" not in {thread.name for thread in threading.enumerate()}
