import numpy as np
import pytest

from worker.pipeline.runs import find_runs


def test_a_short_stretch_is_found_where_it_lies():
    scores = [0.05] * 40 + [0.95] * 7 + [0.05] * 60
    [run] = find_runs(scores, lambda _count: 0.9)
    assert (run.first, run.last) == (40, 46)
    assert run.fake_score == pytest.approx(0.95)


def test_every_length_has_its_own_bound():
    scores = [0.1] * 20 + [0.8] + [0.1] * 20 + [0.8] * 4
    [run] = find_runs(scores, lambda count: 0.9 if count < 4 else 0.7)
    assert (run.first, run.last) == (41, 44)


def test_neighbours_are_joined_and_others_are_not():
    scores = [0.9] * 5 + [0.1] * 5 + [0.9] * 3
    runs = find_runs(scores, lambda _count: 0.85)
    assert [(run.first, run.last) for run in runs] == [(0, 4), (10, 12)]
    [whole] = find_runs([0.9] * 100, lambda _count: 0.85)
    assert (whole.first, whole.last) == (0, 99)


@pytest.mark.parametrize("scores", [[], [0.5], [0.2] * 300])
def test_where_nothing_reaches_the_bound_there_is_no_stretch(scores):
    assert find_runs(scores, lambda _count: 0.51) == []


def test_hours_of_video_take_no_time_to_speak_of():
    rng = np.random.default_rng(0)
    scores = rng.uniform(0.0, 0.3, 20_000)
    scores[5_000:5_040] = 0.9
    lengths = set()

    def bound(count):
        lengths.add(count)
        return 0.6

    [run] = find_runs(list(scores), bound)
    assert 4_995 <= run.first <= 5_000
    assert 5_039 <= run.last <= 5_045
    assert len(lengths) < 40, "the cost must grow as n log n, not as n²"
