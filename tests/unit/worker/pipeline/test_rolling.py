"""The rolling verdict on scores that a test gives, with the calibration of the shipped checkpoint."""

import json
from itertools import pairwise

import numpy as np
import pytest

from shared.manifests import DEFAULT_CHECKPOINT, PACKAGED_MODELS_DIR, read_manifest
from worker.detection.people import LOOK_SIZE, pack_look
from worker.pipeline.rolling import MAX_PEOPLE, MIN_ALERT_PAUSE_S, RollingVerdict
from worker.pipeline.tracking import ScoredSegment

MANIFEST = read_manifest(PACKAGED_MODELS_DIR / DEFAULT_CHECKPOINT)
SEGMENT_S = 5.0


def look_of(person):
    look = np.random.default_rng(person).normal(size=LOOK_SIZE).astype(np.float32)
    return pack_look(look / np.linalg.norm(look))


def segment_of(index, scores):
    """A segment with ten faces of each person: *scores* is person → score, or None for one that is not scored."""
    people = [
        {
            "person": number,
            "fake_score": score,
            "faces": [
                {
                    "time_s": SEGMENT_S * index + 0.5 * step,
                    "box_px": [200.0 * person, 0.0, 200.0 * person + 80, 100.0],
                    "fake_score": score,
                }
                for step in range(10)
            ],
        }
        for number, (person, score) in enumerate(scores.items())
    ]
    return ScoredSegment(index, {"people": people}, [look_of(person) for person in scores])


def run(verdict, segments, first=0):
    alerts = []
    for index, scores in enumerate(segments, first):
        alerts += verdict.add(segment_of(index, scores), SEGMENT_S * index, SEGMENT_S * (index + 1))
    return [(alert.action, alert.person, round(alert.time_s)) for alert in alerts]


@pytest.fixture
def verdict():
    return RollingVerdict(MANIFEST, window_s=30.0)


def test_a_swap_is_raised_with_its_first_segments_and_cleared_after_it(verdict):
    quiet, swapped = {0: 0.05}, {0: 0.9}
    assert run(verdict, [quiet] * 6 + [swapped] * 4 + [quiet] * 6) == [("raised", 0, 35), ("cleared", 0, 60)]
    assert not verdict.is_alerting


def test_few_faces_need_a_higher_score_than_many(verdict):
    few = segment_of(0, {0: 0.72})
    few.result["people"][0]["faces"] = few.result["people"][0]["faces"][:1]
    assert verdict.add(few, 0.0, SEGMENT_S) == []
    assert run(verdict, [{0: 0.72}], first=1) == [("raised", 0, 10)]


def test_a_weak_swap_is_found_with_its_first_segments(verdict):
    assert run(verdict, [{0: 0.2}] * 6 + [{0: 0.62}] * 8) == [("raised", 0, 35)]


def test_a_swap_near_the_limit_of_many_faces_is_found_once_there_are_as_many(verdict):
    assert run(verdict, [{0: 0.2}] * 6 + [{0: 0.51}] * 8) == [("raised", 0, 50)]


def test_real_faces_raise_nothing(verdict):
    generator = np.random.default_rng(1)
    assert run(verdict, [{0: float(score), 1: 0.1} for score in generator.uniform(0.0, 0.4, 60)]) == []


def test_a_person_raises_at_most_one_alert_a_minute(verdict):
    found = run(verdict, [{0: 0.95}, {0: 0.95}, {0: 0.01}, {0: 0.01}] * 12)
    raised = [time_s for action, _, time_s in found if action == "raised"]
    assert len(raised) > 1
    assert all(later - before >= MIN_ALERT_PAUSE_S for before, later in pairwise(raised))
    assert [action for action, *_ in found] == ["raised", "cleared"] * len(raised)


def test_each_person_has_an_alert_of_their_own(verdict):
    both = [{0: 0.05, 1: 0.05}, {0: 0.95, 1: 0.05}, {0: 0.95, 1: 0.05}, {0: 0.05, 1: 0.95}, {0: 0.05, 1: 0.95}]
    found = run(verdict, both)
    assert found[0] == ("raised", 0, 10)
    assert ("raised", 1, 20) in found
    assert [person["person"] for person in verdict.describe()] == [0, 1]


def test_an_alert_is_cleared_when_the_person_has_gone(verdict):
    assert run(verdict, [{0: 0.95}] * 2 + [{}] * 7) == [("raised", 0, 5), ("cleared", 0, 40)]


def test_a_score_between_the_limits_changes_nothing(verdict):
    assert run(verdict, [{0: 0.9}] * 2 + [{0: 0.55}] * 6) == [("raised", 0, 5)]


def test_a_score_near_the_limit_does_not_raise_and_clear_in_turn_when_segments_are_short(verdict):
    found = []
    for index in range(300):
        segment = segment_of(index, {0: 0.54})
        del segment.result["people"][0]["faces"][2:]
        found += [alert.action for alert in verdict.add(segment, float(index), index + 1.0)]
    assert found == ["raised"]


def test_a_threshold_of_ones_own_takes_the_place_of_the_limit():
    strict = RollingVerdict(MANIFEST, window_s=30.0, threshold=0.95)
    assert run(strict, [{0: 0.9}] * 6) == []
    assert run(strict, [{0: 0.99}] * 6, first=6) != []


def test_a_checkpoint_that_is_not_trained_raises_nothing():
    untrained = MANIFEST.model_copy(update={"trained": False})
    assert run(RollingVerdict(untrained, window_s=30.0), [{0: 0.99}] * 6) == []


def test_another_reader_goes_on_from_the_state(verdict):
    segments = [{0: 0.05, 1: 0.2}] * 3 + [{0: 0.9, 1: 0.2}] * 3 + [{0: 0.05, 1: 0.9}] * 6
    whole = run(RollingVerdict(MANIFEST, window_s=30.0), segments)
    found = []
    for index, scores in enumerate(segments):
        found += run(verdict, [scores], first=index)
        state = json.loads(json.dumps(verdict.to_json()))
        verdict = RollingVerdict.from_json(state, MANIFEST, window_s=30.0)
    assert found == whole != []


def test_a_crowd_does_not_fill_the_memory(verdict):
    for index in range(3 * MAX_PEOPLE // 10):
        run(verdict, [dict.fromkeys(range(10 * index, 10 * index + 10), 0.1)], first=index)
    assert len(verdict.to_json()["people"]) <= MAX_PEOPLE
    assert len(json.dumps(verdict.to_json())) < 400_000


def test_the_newest_segment_is_described_person_by_person(verdict):
    run(verdict, [{0: 0.05, 1: 0.1}, {1: 0.3}])
    [newest] = verdict.describe_newest()
    assert (newest["person"], newest["fake_score"], newest["faces"]) == (1, 0.3, 10)
    assert newest["rolling_score"] == 0.2
    first, second = verdict.describe()
    assert (first["person"], first["fake_score"], first["verdict"]) == (0, 0.05, "real")
    assert newest["fake_from"] == second["fake_from"]
    assert 0 < second["real_below"] < second["fake_from"] < 1
    assert verdict.numbers == {0: 1}, "the only person of the segment is the second of the stream"
    run(verdict, [{}], first=2)
    assert (verdict.describe_newest(), verdict.numbers) == ([], {})


def test_a_second_swap_within_a_minute_raises_no_alert_and_is_not_kept_silent(verdict):
    quiet, swapped = {0: 0.05}, {0: 0.95}
    assert run(verdict, [swapped, quiet, quiet]) == [("raised", 0, 5), ("cleared", 0, 15)]
    assert not verdict.describe()[0]["is_held_back"]
    assert run(verdict, [swapped], first=3) == []
    assert verdict.describe()[0]["is_held_back"]
    assert run(verdict, [quiet, quiet], first=4) == []
    assert not verdict.describe()[0]["is_held_back"]
    assert run(verdict, [swapped] * 10, first=6) == [("raised", 0, 65)]
    assert not verdict.describe()[0]["is_held_back"]
    assert verdict.describe()[0]["verdict"] == "fake"


def test_what_the_window_still_has_of_a_swap_is_not_held_against_a_person(verdict):
    assert run(verdict, [{0: 0.95}] * 5 + [{0: 0.05}] * 2) == [("raised", 0, 5), ("cleared", 0, 35)]
    [person] = verdict.describe()
    assert person["verdict"] == "fake", "the mean over the window is above the limit"
    assert not person["is_held_back"]
