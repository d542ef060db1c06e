import threading

import pytest

from shared.containers import MediaLimits
from shared.errors import DecodeError, JobCancelledError
from tests.clips import make_clip
from worker.media.frames import read_frames
from worker.media.probe import probe
from worker.media.segments import Segment, plan_segments
from worker.pipeline import scanning
from worker.pipeline.scanning import scan_segments

LIMITS = MediaLimits(max_bytes=2**31, max_duration_s=600.0, max_pixels=4096 * 4096, max_frame_rate=240.0)


class Times:
    """Instead of a detector: says which frames it was given."""

    def score_segment(self, frames, should_stop, _stages=None):
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
    assert len(plan) == 5  # The last second is half a segment, and stands by itself.


def test_one_segment_is_read_ahead_and_no_more(clip, monkeypatch):
    begun = []

    def read(*_arguments, start_s, **_options):
        begun.append(start_s)
        return iter(())

    monkeypatch.setattr(scanning, "read_frames", read)
    results = scan(clip, [Segment(number, float(number), number + 1.0) for number in range(5)])
    assert begun == []
    assert [(next(results), len(begun)) for _ in range(5)] == [([], 2), ([], 3), ([], 4), ([], 5), ([], 5)]


def test_an_error_stands_where_its_segment_does(clip, monkeypatch):
    def read(*_arguments, start_s, **_options):
        if start_s == 1.0:
            raise DecodeError("damaged")
        yield from ()

    monkeypatch.setattr(scanning, "read_frames", read)
    results = scan(clip, [Segment(number, float(number), number + 1.0) for number in range(3)])
    assert next(results) == []
    with pytest.raises(DecodeError, match="damaged"):
        next(results)


def test_leaving_early_leaves_no_thread(clip):
    results = scan(clip, plan_segments(clip[1].duration_s, 2.0))
    next(results)
    results.close()
    assert "read-ahead" not in {thread.name for thread in threading.enumerate()}


def test_being_told_to_stop_ends_it(clip):
    with pytest.raises(JobCancelledError):
        next(scan(clip, plan_segments(clip[1].duration_s, 2.0), should_stop=lambda: True))
    assert "read-ahead" not in {thread.name for thread in threading.enumerate()}
