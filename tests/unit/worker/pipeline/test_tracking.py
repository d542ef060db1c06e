import numpy as np

from tests.clips import astronaut, hopper
from worker.detection.people import compute_appearance, pack_look, unpack_look
from worker.pipeline import tracking
from worker.pipeline.results import FaceResult
from worker.pipeline.scoring import score_segment
from worker.pipeline.tracking import ScoredSegment, track_people

ONE, OTHER = astronaut()[20:220, 60:260], hopper()[20:220, 40:240]


def look(crop, seed=0):
    noise = np.random.default_rng(seed).normal(0, 6, crop.shape)
    return pack_look(compute_appearance(np.clip(crop + noise, 0, 255).astype(np.uint8)))


def part(index, *people, score=0.1, length_s=5.0, has_looks=True):
    """Make a segment with two faces of each of *people*: pairs of a picture and a side in pixels."""
    faces, numbers, looks = [], [], []
    for number, (crop, side) in enumerate(people):
        left = 300.0 * number
        for time_s in (index * length_s, (index + 1) * length_s - 0.5):
            box = (left, 10.0, left + side, 10.0 + side)
            faces.append(FaceResult(time_s, box, ((1.0, 2.0),) * 5, 0.99, side, 99.0, None, score))
            numbers.append(number)
        looks.append(look(crop, index))
    result = score_segment(faces, numbers, 2, looks=looks)
    return ScoredSegment(index, result.to_json(), result.looks if has_looks else None)


def test_position_identifies_a_person_a_moment_later_but_not_on_another_page():
    resembling = (0.6 * ONE + 0.4 * OTHER).astype(np.uint8)
    parts = [part(0, (ONE, 90.0)), part(1, (resembling, 90.0))]
    assert len(track_people(parts, "video")) == 1
    assert len(track_people(parts, "image")) == 2


def test_a_look_survives_packing():
    before = compute_appearance(ONE)
    assert float(before @ unpack_look(pack_look(before))) > 0.999
    assert len(pack_look(before)) < 600


def test_a_person_is_tracked_over_segments_with_different_numbers():
    tracks = track_people([part(0, (ONE, 90.0), (OTHER, 60.0)), part(1, (OTHER, 61.0), (ONE, 60.0)), part(2)], "video")
    assert [track.numbers for track in tracks] == [{0: 0, 1: 1}, {0: 1, 1: 0}]
    assert [len(track.faces) for track in tracks] == [4, 4]
    assert [track.scored_segments for track in tracks] == [2, 2]


def test_a_person_who_returns_is_recognised():
    tracks = track_people([part(0, (ONE, 90.0)), part(1, (OTHER, 90.0)), part(7, (ONE, 90.0))], "video")
    assert [track.numbers for track in tracks] == [{0: 0, 7: 0}, {1: 0}]
    assert tracks[0].seen_intervals(0.5) == [(0.0, 0.5), (4.5, 5.0), (35.0, 35.5), (39.5, 40.0)]


def test_two_people_of_one_segment_are_never_merged():
    tracks = track_people([part(0, (ONE, 90.0)), part(1, (ONE, 90.0), (ONE, 88.0))], "video")
    assert sorted(len(track.faces) for track in tracks) == [2, 4]


def test_people_are_numbered_by_face_area():
    tracks = track_people([part(0, (ONE, 50.0)), part(1, (OTHER, 90.0))], "video")
    assert [track.numbers for track in tracks] == [{1: 0}, {0: 0}]


def test_segments_of_a_release_without_looks_are_not_linked():
    tracks = track_people([part(0, (ONE, 90.0)), part(1, (ONE, 90.0), has_looks=False)], "video")
    assert len(tracks) == 2


def test_the_largest_scored_face_is_shown():
    small = {"time_s": 0.0, "box_px": [0, 0, 9, 9], "size_px": 60.0, "confidence": 1.0, "fake_score": 0.3}
    large = {**small, "time_s": 1.0, "size_px": 90.0}
    unscored = {**small, "time_s": 2.0, "size_px": 200.0, "fake_score": None}
    result = {"people": [{"person": 0, "fake_score": 0.3, "faces": [small, large, unscored]}]}
    [track] = track_people([ScoredSegment(0, result, None)], "video")
    assert track.best_face == large


def test_only_the_most_recently_seen_people_are_compared(monkeypatch):
    monkeypatch.setattr(tracking, "MAX_COMPARED", 1)
    crowd = [part(0, (ONE, 90.0)), part(9, (OTHER, 90.0)), part(10, (OTHER, 90.0)), part(20, (ONE, 90.0))]
    assert sorted(len(track.faces) for track in track_people(crowd, "video")) == [2, 2, 4]
