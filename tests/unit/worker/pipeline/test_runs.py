import pytest

from worker.pipeline import runs
from worker.pipeline.runs import find_runs, has_run


def test_a_short_run_is_located():
    scores = [0.05] * 40 + [0.95] * 7 + [0.05] * 60
    [run] = find_runs(scores, lambda _count: 0.9)
    assert (run.first, run.last) == (40, 46)
    assert run.fake_score == pytest.approx(0.95)


def test_every_length_has_its_own_bound():
    scores = [0.1] * 20 + [0.8] + [0.1] * 20 + [0.8] * 4
    [run] = find_runs(scores, lambda count: 0.9 if count < 4 else 0.7)
    assert (run.first, run.last) == (41, 44)


def test_adjacent_runs_are_joined_and_others_are_not():
    scores = [0.9] * 5 + [0.1] * 5 + [0.9] * 3
    found = find_runs(scores, lambda _count: 0.85)
    assert [(run.first, run.last) for run in found] == [(0, 4), (10, 12)]
    [whole] = find_runs([0.9] * 100, lambda _count: 0.85)
    assert (whole.first, whole.last) == (0, 99)


@pytest.mark.parametrize("scores", [[], [0.5], [0.2] * 300])
def test_without_a_score_above_the_bound_there_is_no_run(scores):
    assert find_runs(scores, lambda _count: 0.51) == []


def test_the_number_of_windows_grows_with_the_number_of_faces(monkeypatch):
    looked_at = []
    windows = runs.find_windows
    monkeypatch.setattr(runs, "find_windows", lambda *given: looked_at.extend(found := windows(*given)) or found)
    [run] = find_runs([0.9] * 20_000, lambda _count: 0.6)
    assert (run.first, run.last) == (0, 19_999)
    assert len(looked_at) < 10 * 20_000


def test_has_run_agrees_with_find_runs():
    scores = [0.1] * 50 + [0.9] * 6 + [0.1] * 50
    assert has_run(scores, lambda count: 0.85 if count >= 4 else 2.0)
    assert not has_run(scores, lambda count: 0.85 if count >= 8 else 2.0)
    assert not has_run([], lambda _count: 0.0)
