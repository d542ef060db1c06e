import dataclasses

import pytest

from shared.evidence import Evidence
from shared.manifests import (
    DEFAULT_CHECKPOINT,
    PACKAGED_MODELS_DIR,
    Bound,
    Bounds,
    Calibration,
    list_manifests,
    read_manifest,
)
from worker.pipeline.results import FaceResult, SegmentResult
from worker.pipeline.scoring import gather_evidence, score_job, score_segment

UNTRAINED = read_manifest(PACKAGED_MODELS_DIR / DEFAULT_CHECKPOINT).model_copy(update={"trained": False})
TRAINED = UNTRAINED.model_copy(
    update={
        "trained": True,
        "calibration": Calibration(temperature=1.0, threshold=0.5, uncertainty_band=(0.4, 0.6)),
    }
)


ONE = Evidence("video", 1, 1)


def face(score, problem=None, time_s=0.0):
    return FaceResult(time_s, (0.0, 0.0, 50.0, 50.0), ((1.0, 2.0),) * 5, 0.99, 50.0, 100.0, problem, score)


@pytest.mark.parametrize(
    ("segments", "verdict", "reasons"),
    [
        ([(0.1, ())], "inconclusive", ("truncated",)),
        ([(0.9, ())], "fake", ("truncated",)),
        ([(None, ("no_face",))], "inconclusive", ("no_face", "truncated")),
    ],
)
def test_a_truncated_file_is_never_real(segments, verdict, reasons):
    result = score_job(segments, 0, TRAINED, ONE, is_truncated=True)
    assert (result.verdict, result.reasons) == (verdict, reasons)


@pytest.mark.parametrize(
    ("segments", "verdict", "reasons"),
    [
        ([(0.1, ())], "inconclusive", ("other_video_tracks",)),
        ([(0.9, ())], "fake", ("other_video_tracks",)),
        ([(None, ("no_face",))], "inconclusive", ("no_face", "other_video_tracks")),
    ],
)
def test_a_file_with_unanalysed_tracks_is_never_real(segments, verdict, reasons):
    result = score_job(segments, 0, TRAINED, ONE, has_other_tracks=True)
    assert (result.verdict, result.reasons) == (verdict, reasons)


def test_a_person_is_the_mean_of_the_faces_and_a_segment_the_highest_person():
    result = score_segment([face(0.2), face(0.9), face(0.4), face(0.7)], [0, 1, 0, 1], frames_decoded=2)
    assert [person.fake_score for person in result.people] == [0.3, 0.8]
    assert (result.fake_score, result.reasons, result.faces_scored) == (0.8, (), 4)


def test_faces_that_were_not_scored_are_kept_and_do_not_count():
    result = score_segment([face(0.2), face(None, "face_too_blurred")], [0, 0], frames_decoded=2)
    assert (result.fake_score, result.faces_found, result.faces_scored) == (0.2, 2, 1)
    assert len(result.people[0].faces) == 2


@pytest.mark.parametrize(
    ("faces", "reasons"),
    [
        ([], ("no_face",)),
        ([face(None, "face_too_small")], ("faces_too_small",)),
        ([face(None, "face_too_small"), face(None, "face_too_blurred")], ("faces_too_blurred", "faces_too_small")),
    ],
)
def test_unscorable_segments_have_reasons_and_no_score(faces, reasons):
    result = score_segment(faces, [0] * len(faces), frames_decoded=1)
    assert (result.fake_score, result.reasons) == (None, reasons)


def test_a_result_survives_its_json_form_without_looks_and_pictures():
    result = score_segment([face(0.25), face(None, "face_too_small", 0.5)], [0, 1], 2, looks=["AA==", "AQ=="])
    assert SegmentResult.from_json(result.to_json()) == dataclasses.replace(result, looks=())
    assert {field.name for field in dataclasses.fields(SegmentResult)} == {*result.to_json(), "looks", "newest_faces"}


@pytest.mark.parametrize(
    ("scores", "failed", "expected"),
    [
        ([0.9, 0.8], 0, (0.85, 0.9, "fake", ())),
        ([0.1, 0.2], 0, (0.15, 0.2, "real", ())),
        ([0.1, 0.9], 0, (0.5, 0.9, "inconclusive", ("uncertain",))),
        ([0.4], 0, (0.4, 0.4, "inconclusive", ("uncertain",))),
        ([0.6], 0, (0.6, 0.6, "fake", ())),
        ([0.1], 1, (0.1, 0.1, "inconclusive", ("segments_failed",))),
        ([0.9], 1, (0.9, 0.9, "fake", ("segments_failed",))),
    ],
)
def test_a_trained_model_decides_by_mean_threshold_and_band(scores, failed, expected):
    result = score_job([(score, ()) for score in scores], failed, TRAINED, ONE)
    assert (result.fake_score, result.peak_score, result.verdict, result.reasons) == expected


@pytest.mark.parametrize("score", [0.0, 0.5, 1.0])
def test_an_untrained_model_never_decides(score):
    result = score_job([(score, ())], 0, UNTRAINED, ONE)
    assert (result.verdict, result.reasons) == ("inconclusive", ("untrained_model",))


def test_unscored_segments_do_not_count_in_the_mean():
    result = score_job([(0.9, ()), (None, ("no_face",))], 0, TRAINED, ONE)
    assert (result.fake_score, result.verdict) == (0.9, "fake")


@pytest.mark.parametrize(
    ("segments", "failed", "verdict", "reasons"),
    [
        ([(None, ("no_face",))], 0, "not_applicable", ("no_face",)),
        ([(None, ("faces_too_small",)), (None, ("no_face",))], 0, "inconclusive", ("faces_too_small",)),
        ([(None, ("no_face",))], 1, "inconclusive", ("no_face", "segments_failed")),
    ],
)
@pytest.mark.parametrize("manifest", [TRAINED, UNTRAINED], ids=["trained", "untrained"])
def test_an_unscorable_job_has_no_score_and_is_never_real(manifest, segments, failed, verdict, reasons):
    result = score_job(segments, failed, manifest, ONE)
    assert (result.fake_score, result.peak_score, result.verdict, result.reasons) == (None, None, verdict, reasons)


def test_the_model_description_names_everything_that_defines_the_score():
    description = UNTRAINED.describe(sample_fps=3.0, segment_seconds=4.0)
    assert description["weights_sha256"] == UNTRAINED.weights.sha256
    assert description["sampling"] == {"sample_fps": 3.0, "segment_seconds": 4.0}
    assert {"name", "version", "threshold", "preprocessing", "architecture"} <= set(description)


def moving(**changes):
    bounds = Bounds(low=Bound(one=-1.0, many=-0.5), high=Bound(one=2.0, many=0.5, doubling=0.5))
    calibration = TRAINED.calibration.model_copy(update={"bounds": {"video": bounds}, **changes})
    return TRAINED.model_copy(update={"calibration": calibration})


@pytest.mark.parametrize(
    ("evidence", "verdict"),
    [
        (Evidence("video", 1, 1), "inconclusive"),
        (Evidence("video", 20, 1), "fake"),
        (Evidence("video", 20, 4), "inconclusive"),
        (Evidence("image", 1, 1), "fake"),
    ],
    ids=["one face", "many faces of one person", "the highest of four people", "a kind without bounds"],
)
def test_the_verdict_on_a_score_depends_on_the_evidence(evidence, verdict):
    result = score_job([(0.7, ())], 0, moving(), evidence)
    assert result.verdict == verdict
    assert (result.fake_score >= result.limits.high) == (verdict == "fake")


@pytest.mark.parametrize(
    ("score", "bits", "verdict", "reasons"),
    [
        (0.1, 0.02, "inconclusive", ("heavily_compressed",)),
        (0.1, 0.03, "real", ()),
        (0.1, None, "real", ()),
        (0.5, 0.02, "inconclusive", ("uncertain", "heavily_compressed")),
        (0.9, 0.02, "fake", ("heavily_compressed",)),
        (0.9, 0.03, "fake", ()),
    ],
)
def test_a_heavily_compressed_video_is_never_real(score, bits, verdict, reasons):
    result = score_job([(score, ())], 0, moving(min_bits_per_pixel=0.03), Evidence("video", 10, 1, bits))
    assert (result.verdict, result.reasons) == (verdict, reasons)


@pytest.mark.parametrize("name", sorted(list_manifests(PACKAGED_MODELS_DIR)))
def test_no_packaged_checkpoint_judges_a_video_at_crf_40_real(name):
    manifest = read_manifest(PACKAGED_MODELS_DIR / name)
    # What swaps of a single face spend at CRF 40 was measured: 0.009 to 0.024 bits a pixel, and 0.030 at most at 38.
    verdicts = [score_job([(0.0, ())], 0, manifest, Evidence("video", 10, 1, bits)) for bits in (0.024, 0.1)]
    assert (verdicts[0].verdict, verdicts[0].reasons) == ("inconclusive", ("heavily_compressed",))
    assert verdicts[1].verdict == "real"


def test_evidence_counts_the_faces_of_each_segments_highest_person():
    low, high, unseen = face(0.2), face(0.8), face(None, "face_too_small")
    segments = [
        score_segment([low, high, high, unseen], [0, 1, 1, 1], 4),
        score_segment([low, unseen], [0, 1], 2),
        score_segment([], [], 2),
    ]
    found = gather_evidence([segment.to_json() for segment in segments], "video", 0.1)
    assert found == Evidence("video", faces=3, people=round(2**0.5, 3), bits_per_pixel=0.1)
    assert gather_evidence([segments[2].to_json()], "video") == Evidence("video", 0, 0)


def test_one_crowded_segment_barely_moves_the_limits():
    alone = score_segment([face(0.9)] * 10, [0] * 10, 10)
    crowd = score_segment([face(0.9)] * 10, range(10), 10)
    before, after = (
        moving().calibration.limits(gather_evidence([part.to_json() for part in parts], "video")).high
        for parts in ([alone] * 20, [alone] * 20 + [crowd])
    )
    assert before <= after < before + 0.03
