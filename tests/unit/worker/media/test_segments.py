from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.media.segments import Segment, plan_segments


@given(st.floats(0.01, 10_000), st.floats(1, 60))
def test_segments_cover_the_video_without_gap_or_overlap(duration_s, segment_seconds):
    segments = plan_segments(duration_s, segment_seconds)
    assert segments[0].start_s == 0.0
    assert segments[-1].end_s == duration_s
    assert [segment.index for segment in segments] == list(range(len(segments)))
    for one, following in pairwise(segments):
        assert one.end_s == following.start_s
    for segment in segments:
        assert segment.end_s - segment.start_s <= 1.5 * segment_seconds + 1e-6


@pytest.mark.parametrize(
    ("duration_s", "count"), [(0.04, 1), (4.9, 1), (5.0, 1), (7.4, 1), (7.5, 2), (10.0, 2), (12.4, 2), (12.5, 3)]
)
def test_a_short_remainder_joins_the_segment_before_it(duration_s, count):
    assert len(plan_segments(duration_s, 5.0)) == count


def test_an_image_is_one_segment():
    assert plan_segments(None, 5.0) == [Segment(0, 0.0, 0.0)]


@pytest.mark.parametrize(
    ("first_s", "cuts"),
    [
        (0.0, [0.0, 5.0, 10.0, 17.0]),
        (1.3, [0.0, 5.0, 10.0, 17.0]),
        # What is left of the first segment is less than half of one.
        (2.6, [0.0, 10.0, 17.0]),
        (5.0, [5.0, 10.0, 17.0]),
        (9.0, [5.0, 17.0]),
        (10.5, [10.0, 17.0]),
        (16.9, [10.0, 17.0]),
    ],
)
def test_segments_before_the_first_frame_are_left_out(first_s, cuts):
    plan = plan_segments(17.0, 5.0, first_s=first_s)
    assert [(part.start_s, part.end_s) for part in plan] == list(pairwise(cuts))
    assert [part.index for part in plan] == list(range(len(plan)))
