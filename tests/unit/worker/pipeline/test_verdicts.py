import dataclasses

import numpy as np
import pytest

from shared.evidence import Evidence
from shared.manifests import DEFAULT_CHECKPOINT, PACKAGED_MODELS_DIR, read_manifest
from worker.pipeline.scoring import score_job
from worker.pipeline.tracking import Track
from worker.pipeline.verdicts import MAX_LISTED, judge_people

SHIPPED = read_manifest(PACKAGED_MODELS_DIR / DEFAULT_CHECKPOINT)
FPS = 2.0
IN_SEGMENT = 10


def track(scores, person=0, start_s=0.0):
    faces = tuple(
        {
            "time_s": start_s + row / FPS,
            "box_px": [0.0, 0.0, 90.0, 90.0],
            "size_px": 90.0,
            "sharpness": 100.0,
            "luma": 100.0,
            "confidence": 0.99,
            "problem": None,
            "fake_score": score,
        }
        for row, score in enumerate(scores)
    )
    segments = -(-len(scores) // IN_SEGMENT)
    return Track(person, faces, dict.fromkeys(range(segments), person), segments)


def judged(*tracks, kind="video", manifest=SHIPPED):
    end_s = max((len(one.faces) for one in tracks), default=0) / FPS
    findings = judge_people(tracks, kind, manifest, 1.0 / FPS, end_s)
    means = [(float(np.mean([face["fake_score"] for face in one.scored])), ()) for one in tracks if one.scored]
    highest = Evidence(kind, max((len(one.scored) for one in tracks), default=0), 1)
    return findings, score_job(means, 0, manifest, highest, findings)


def real_faces(count, seed=0):
    """Make scores like those of real faces: low and scattered, with a few high ones."""
    odds = np.random.default_rng(seed).normal(-3.3, 0.4, count)
    return list(1.0 / (1.0 + np.exp(-odds)))


@pytest.mark.parametrize("seconds", [5, 10])
@pytest.mark.parametrize("minutes", [1, 10, 60])
def test_a_short_swap_in_a_long_video_is_fake_and_located(seconds, minutes):
    count, length = int(minutes * 60 * FPS), int(seconds * FPS)
    scores = real_faces(count)
    scores[count // 2 : count // 2 + length] = [0.94] * length
    findings, result = judged(track(scores))
    assert (result.verdict, result.reasons) == ("fake", ("short_manipulation",))
    assert result.fake_score < result.limits.low or minutes == 1
    [stretch] = findings.suspicious
    assert stretch.start_s == pytest.approx(count / 2 / FPS, abs=0.5)
    assert stretch.end_s == pytest.approx((count / 2 + length) / FPS, abs=0.5)
    assert stretch.fake_score > 0.9
    assert findings.people[0].verdict == "fake"


def test_a_run_across_an_absence_is_two_stretches():
    scores = track([0.95] * 20)
    later = tuple({**face, "time_s": face["time_s"] + 60.0} for face in scores.faces[10:])
    findings, _ = judged(dataclasses.replace(scores, faces=scores.faces[:10] + later))
    assert [(one.start_s, one.faces) for one in findings.suspicious] == [(0.0, 10), (65.0, 10)]


def test_a_person_shown_briefly_beside_a_real_one_is_judged_separately():
    findings, result = judged(track(real_faces(200)), track([0.95] * 8, person=1, start_s=30.0))
    assert [person.verdict for person in findings.people] == ["real", "fake"]
    assert result.verdict == "fake"
    [stretch] = findings.suspicious
    assert (stretch.person, stretch.start_s, stretch.end_s) == (1, 30.0, 34.0)


@pytest.mark.parametrize("people", [1, 5, 60])
@pytest.mark.parametrize("seed", range(3))
def test_any_number_of_scattered_real_faces_is_real(people, seed):
    tracks = [track(real_faces(20, 1000 * seed + person), person) for person in range(people)]
    findings, result = judged(*tracks)
    assert (result.verdict, findings.suspicious) == ("real", ())


def test_a_slightly_suspicious_stretch_is_inconclusive():
    scores = real_faces(600)
    bound = SHIPPED.calibration.limits(Evidence("video", 10, 1)).high
    scores[100:110] = [bound + 0.03] * 10
    findings, result = judged(track(scores))
    assert (result.verdict, result.reasons) == ("inconclusive", ("short_manipulation",))
    assert len(findings.suspicious) == 1


def test_thresholds_rise_with_the_number_of_people():
    alone = SHIPPED.calibration.limits(Evidence("video", 20, 1)).high + 0.01
    suspect = track([alone] * 20)
    assert judged(suspect)[0].people[0].verdict == "fake"
    others = [track(real_faces(20, person), person) for person in range(1, 12)]
    assert judged(suspect, *others)[0].people[0].verdict != "fake"


def test_images_have_people_and_no_stretches():
    findings, result = judged(track([0.99]), track([0.02], person=1), kind="image")
    assert [person.verdict for person in findings.people] == ["fake", "real"]
    assert findings.suspicious == ()
    assert (result.verdict, result.reasons) == ("fake", ("one_person",))


def on_pages(scores, *numbers):
    """Make a track of one person on the pages *numbers* of an image."""
    one = track(scores)
    faces = tuple({**face, "time_s": float(number)} for face, number in zip(one.faces, numbers, strict=True))
    return dataclasses.replace(one, faces=faces, numbers=dict.fromkeys(numbers, 0), scored_segments=len(numbers))


def test_an_altered_page_among_many_real_ones_of_the_same_person_is_found():
    scores = [0.02, 0.03, 0.02, 0.93, 0.02, 0.03]
    findings, result = judged(on_pages(scores, 0, 1, 2, 3, 4, 5), kind="image")
    assert (result.verdict, result.reasons) == ("inconclusive", ("short_manipulation",))
    assert [(one.start_s, one.end_s, one.faces) for one in findings.suspicious] == [(3.0, 3.0, 1)]
    scores[3] = 0.03
    findings, result = judged(on_pages(scores, 0, 1, 2, 3, 4, 5), kind="image")
    assert (result.verdict, findings.suspicious) == ("real", ())


def test_pages_on_which_a_person_is_seen_are_named():
    one = on_pages([0.02, 0.03, 0.02], 0, 1, 3)
    [person] = judge_people([one], "image", SHIPPED, 1.0 / FPS, 4.0).people
    assert person.seen == ((0.0, 1.0), (3.0, 3.0))


def test_people_without_a_score_have_no_verdict():
    findings, _ = judged(track([None, None]), track([0.02] * 4, person=1))
    assert [(person.fake_score, person.verdict) for person in findings.people] == [(None, None), (0.02, "real")]
    assert judged()[0].worst is None


def test_an_untrained_checkpoint_gives_no_verdict():
    untrained = SHIPPED.model_copy(update={"trained": False})
    findings, result = judged(track([0.99] * 20), manifest=untrained)
    assert (findings.worst, findings.suspicious) == ("inconclusive", ())
    assert (result.verdict, result.reasons) == ("inconclusive", ("untrained_model",))


def test_without_evidence_limits_only_a_stretch_is_inconclusive():
    calibration = SHIPPED.calibration.model_copy(update={"bounds": None})
    plain = SHIPPED.model_copy(update={"calibration": calibration})
    scores = [0.02] * 100
    scores[50] = 0.99
    assert judged(track(scores), manifest=plain)[1].verdict == "real"
    scores[50:60] = [0.99] * 10
    result = judged(track(scores), manifest=plain)[1]
    assert (result.verdict, result.reasons) == ("inconclusive", ("short_manipulation",))


def test_a_result_names_the_most_suspicious_of_very_many_people():
    tracks = [track([0.02] * 4, person) for person in range(3 * MAX_LISTED)]
    tracks.append(track([0.99] * 40, 3 * MAX_LISTED))
    document = judged(*tracks)[0].to_json()
    assert document["people_total"] == 3 * MAX_LISTED + 1
    assert len(document["people"]) == MAX_LISTED
    assert document["people"][-1]["verdict"] == "fake"


@pytest.mark.parametrize("poor", [{"size_px": 50.0}, {"sharpness": 25.0}, {"luma": 20.0}], ids=str)
def test_one_or_two_poor_faces_are_never_enough_for_real(poor):
    def seen(count, but=0):
        whole = track([0.02] * count)
        faces = [face if row < but else {**face, **poor} for row, face in enumerate(whole.faces)]
        return dataclasses.replace(whole, faces=tuple(faces))

    result = judged(seen(2))[1]
    assert (result.verdict, result.reasons) == ("inconclusive", ("little_evidence",))
    assert judged(seen(1), kind="image")[1].reasons == ("little_evidence",)
    assert judged(seen(3))[1].verdict == "real"
    assert judged(seen(2, but=1))[1].verdict == "real"
    assert judged(track([0.99]), kind="image")[1].verdict == "fake"


@pytest.mark.parametrize(("size_px", "reasons"), [(90.0, ("faces_turned",)), (30.0, ())])
def test_a_turned_person_beside_a_real_one_prevents_real(size_px, reasons):
    beside = track([None] * 4, person=1)
    turned = tuple({**face, "problem": "face_turned", "size_px": size_px} for face in beside.faces)
    beside = dataclasses.replace(beside, faces=turned, scored_segments=0)
    result = judged(track([0.02] * 20), beside)[1]
    assert (result.verdict, result.reasons) == ("inconclusive" if reasons else "real", reasons)
