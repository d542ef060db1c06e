"""Aligning the segments of two jobs."""

import itertools
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from shared.jobs.differences import MAX_INTERVALS, ScoredInterval, align, largest


class Row(NamedTuple):
    start_s: float
    end_s: float
    fake_score: float | None


def rows(*cuts, scores):
    return [Row(start, end, score) for start, end, score in zip(cuts, cuts[1:], scores, strict=False)]


def found(before, after):
    return [(each.start_s, each.end_s, each.before, each.after) for each in align(before, after)]


def test_equal_cuts_are_compared_one_by_one():
    assert found(rows(0, 5, 9, scores=[0.1, 0.2]), rows(0, 5, 9, scores=[0.3, None])) == [
        (0, 5, 0.1, 0.3),
        (5, 9, 0.2, None),
    ]


def test_pages_are_matched_by_number():
    pages = [Row(0, 0, 0.1), Row(1, 1, 0.2)]
    assert found(pages, [Row(0, 0, 0.3), Row(1, 1, 0.4)]) == [(0, 0, 0.1, 0.3), (1, 1, 0.2, 0.4)]


def test_a_page_is_not_the_video_that_follows_it():
    motion_photo = [Row(0, 0, 0.1), Row(1, 3, 0.2)]
    assert found(motion_photo, motion_photo) == [(0, 0, 0.1, 0.1), (1, 3, 0.2, 0.2)]


def test_time_that_one_job_alone_covers_is_listed():
    assert found(rows(0, 4, scores=[0.1]), rows(2, 6, scores=[0.2])) == [
        (0, 2, 0.1, None),
        (2, 4, 0.1, 0.2),
        (4, 6, None, 0.2),
    ]


@given(st.lists(st.integers(1, 9), min_size=1), st.lists(st.integers(1, 9), min_size=1))
def test_all_time_is_covered_once(first, second):
    def build(lengths):
        ends = [sum(lengths[: n + 1]) for n in range(len(lengths))]
        return rows(0, *ends, scores=[n / 100 for n in range(len(lengths))])

    before, after = build(first), build(second)
    intervals = align(before, after)
    assert intervals[0].start_s == 0
    assert intervals[-1].end_s == max(sum(first), sum(second))
    assert all(one.end_s == next_one.start_s for one, next_one in itertools.pairwise(intervals))
    for interval in intervals:
        for row_list, score in ((before, interval.before), (after, interval.after)):
            covering = [r.fake_score for r in row_list if r.start_s <= interval.start_s and interval.end_s <= r.end_s]
            assert covering == ([] if score is None else [score])


def test_the_largest_differences_are_reported_in_order_of_time():
    small = [ScoredInterval(n, n + 1, 0.5, 0.5 + n / 1000) for n in range(MAX_INTERVALS)]
    unmatched = ScoredInterval(200, 201, None, 0.1)
    large = ScoredInterval(150, 151, 0.0, 1.0)
    assert largest([unmatched, large, *small]) == [*small[2:], large, unmatched]
