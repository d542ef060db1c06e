import json

import numpy as np
import pytest

from shared.manifests import Calibration
from tests.unit.worker.training.rule_data import MANIFEST, Darkness, checkpoint, face, logit, medium
from worker.training.data.folders import read_labelled
from worker.training.data.splits import SplitDigest, assign_sets
from worker.training.errors import DataError
from worker.training.evaluation.evaluate import evaluate
from worker.training.evaluation.figures import MIN_COMPARABLE_MEDIA, compute_figures
from worker.training.evaluation.mistakes import worst_mistakes
from worker.training.evaluation.robustness import DISTURBANCES
from worker.training.evaluation.sources import folder_source


@pytest.fixture(scope="module")
def perfect(judged):
    return evaluate(checkpoint(Darkness()), [judged.source()], limit=1, rounds=20).report


@pytest.fixture(scope="module")
def inverted(judged):
    return evaluate(checkpoint(Darkness(slope=-40.0)), [judged.source()], robustness=False, rounds=20)


def test_a_perfect_scorer_makes_no_mistake(perfect):
    for part in ("by_video", "by_frame"):
        measured = perfect[part]
        for name in ("roc_auc", "pr_auc", "f1", "precision", "recall"):
            assert measured[name] == 1.0
            assert measured["intervals"][name] == (1.0, 1.0)
        assert measured["false_positive_rate"] == 0.0
        assert measured["equal_error_rate"] == 0.0
        assert measured["roc"][0] == [0.0, 0.0]
        assert measured["roc"][-1] == [1.0, 1.0]
    assert perfect["worst"] == []
    assert perfect["verdicts"] == {
        "real": {"real": 5, "inconclusive": 0, "fake": 0},
        "fake": {"real": 0, "inconclusive": 0, "fake": 4},
    }


def test_an_inverted_scorer_gets_everything_wrong_and_the_report_lists_it(inverted):
    measured = inverted.report["by_video"]
    assert (measured["roc_auc"], measured["recall"], measured["false_positive_rate"]) == (0.0, 0.0, 1.0)
    assert [row["label"] for row in inverted.report["worst"]] == ["real"] * 5 + ["fake"] * 4
    assert len(inverted.pictures) == 9
    assert all(picture.startswith(b"\xff\xd8") for picture in inverted.pictures)


def test_a_random_scorer_has_an_area_of_one_half_within_its_interval():
    rng = np.random.default_rng(0)
    media = [
        medium(label, face(logit(rng.uniform(0.01, 0.99))), key=f"{label}{row}")
        for label in ("real", "fake")
        for row in range(150)
    ]
    found = compute_figures(media, MANIFEST, rounds=100)["by_video"]
    low, high = found["intervals"]["roc_auc"]
    assert low < 0.5 < high
    assert high - low < 0.2
    assert found["false_positive_rate"] == pytest.approx(0.5, abs=0.12)


def test_a_medium_without_a_face_is_listed_and_not_measured(perfect):
    row = {"dataset": "judged", "key": "test/real/noise.png", "set": "test", "label": "real"}
    assert perfect["unscored"] == [{**row, "reason": "no_usable_face"}]
    assert perfect["counts"]["unscored"] == 1
    assert perfect["by_source"] == {"judged": {"judged": perfect["counts"]["media"], "unscored": 1}}
    assert perfect["counts"]["media"] == perfect["by_video"]["count"] == 9


def test_a_video_is_one_vote_and_its_frames_are_many(perfect):
    assert perfect["by_frame"]["count"] == perfect["counts"]["frames"] == 8 + 12
    assert perfect["counts"]["faces"] == 8 + 24


def test_the_report_names_the_split_and_the_weights(perfect, judged):
    digest = SplitDigest()
    for one in assign_sets(read_labelled(judged.root), {}):
        digest.add(one)
    source = perfect["split"]["sources"]["judged"]
    assert source == {"sha256": digest.hexdigest(), "media": {"test": 9, "validation": 1}}
    assert perfect["split"]["digest"] == digest.hexdigest()[:16]
    assert perfect["checkpoint"]["weights_sha256"] == MANIFEST.weights.sha256


def test_slices_by_set_add_up_to_the_whole(perfect):
    sets = {row["name"]: row for row in perfect["slices"] if row["by"] == "set"}
    assert {name: row["count"] for name, row in sets.items()} == {"test": 8, "validation": 1}
    assert sets["validation"]["roc_auc"] is None
    assert sets["validation"]["intervals"]["roc_auc"] is None


def test_robustness_begins_with_the_untouched_faces(perfect):
    first = perfect["robustness"][0]
    assert (first["disturbance"], first["strength"], first["roc_auc"]) == ("none", None, 1.0)
    assert first["media"] == 2
    assert {row["disturbance"] for row in perfect["robustness"][1:]} == {kind.name for kind in DISTURBANCES}


def test_the_same_evaluation_gives_the_same_report(inverted, judged):
    again = evaluate(checkpoint(Darkness(slope=-40.0)), [judged.source()], robustness=False, rounds=20)
    assert json.dumps(again.report) == json.dumps(inverted.report)
    assert again.pictures == inverted.pictures


def test_a_report_covers_only_the_requested_sets(judged):
    report = evaluate(
        checkpoint(Darkness()), [judged.source()], sets=["validation"], robustness=False, rounds=20
    ).report
    assert report["counts"] == {"media": 1, "real": 1, "fake": 0, "groups": 1, "frames": 12, "faces": 24, "unscored": 0}
    assert report["by_video"]["roc"] == []
    with pytest.raises(DataError, match="no medium of train"):
        evaluate(checkpoint(Darkness()), [judged.source()], sets=["train"])


def test_fakes_are_compared_with_their_own_originals():
    media = [
        medium("real", face(0.0), key="first"),
        medium("real", face(2.0), key="second"),
        medium("fake", face(1.0), original="first"),
        medium("fake", face(1.5), original="second"),
        medium("fake", face(0.5), original="first"),
        medium("fake", face(9.0), original="not scored"),
    ]
    found = compute_figures(media, MANIFEST, rounds=100)["pairs_above"]
    assert (found["count"], found["share"]) == (3, pytest.approx(2 / 3))


def test_rare_fakes_lower_precision_and_widen_its_interval():
    media = [medium("real", face(1.0 if row < 10 else -1.0), key=f"real{row}") for row in range(100)]
    media += [medium("fake", face(1.0 if row < 80 else -1.0), key=f"fake{row}") for row in range(100)]
    rows = compute_figures(media, MANIFEST, rounds=100)["by_video"]["by_fake_share"]
    assert [row["fake_share"] for row in rows] == [0.01, 0.1, 0.5]
    assert [row["precision"] for row in rows] == pytest.approx([0.0748, 0.4706, 0.8889], abs=1e-4)
    assert rows[2]["f1"] == pytest.approx(2 * 0.8889 * 0.8 / 1.6889, abs=1e-4)
    for row in rows:
        for name in ("precision", "f1"):
            low, high = row["intervals"][name]
            assert low < row[name] < high


def test_few_media_without_a_false_positive_keep_a_wide_interval():
    media = [medium("real", face(-1.0), key=f"real{row}") for row in range(100)]
    media += [medium("fake", face(1.0), key=f"fake{row}") for row in range(100)]
    row = compute_figures(media, MANIFEST, rounds=20)["by_video"]["by_fake_share"][0]
    assert row["precision"] == 1.0
    low, high = row["intervals"]["precision"]
    # Up to 3.6 % of real media may be called fake, and there are 99 of them to a fake.
    assert low == pytest.approx(0.01 / (0.01 + 0.99 * 0.0362), rel=0.01)
    assert high == 1.0


def test_media_of_one_class_have_no_precision_at_any_share():
    row = compute_figures([medium("real", face(1.0))], MANIFEST, rounds=10)["by_video"]["by_fake_share"][0]
    assert row == {"fake_share": 0.01, "precision": None, "f1": None, "intervals": {"precision": None, "f1": None}}


def test_a_slice_with_few_media_of_a_class_is_marked():
    media = [medium("real", face(0.0, size_px=50.0), key=f"small{row}") for row in range(MIN_COMPARABLE_MEDIA)]
    media += [medium("fake", face(0.0, size_px=50.0), key=f"fake{row}") for row in range(MIN_COMPARABLE_MEDIA - 1)]
    media += [medium("real", face(0.0, size_px=500.0), key="large")]
    slices = compute_figures(media, MANIFEST, rounds=10)["slices"]
    few = {row["name"]: row["too_few"] for row in slices if row["by"] == "face size (px)"}
    assert few == {"below 64": ["fake"], "192 and more": ["real"]}


def test_scores_within_the_band_are_inconclusive():
    calibration = Calibration(temperature=1.0, threshold=0.5, uncertainty_band=(0.4, 0.7))
    manifest = MANIFEST.model_copy(update={"calibration": calibration})
    media = [medium("real", face(logit(score)), key=str(score)) for score in (0.3, 0.45, 0.6, 0.71)]
    assert compute_figures(media, manifest, rounds=10)["verdicts"]["real"] == {"real": 1, "inconclusive": 2, "fake": 1}


def test_the_worst_mistakes_come_first_with_their_most_wrong_face():
    media = [
        medium("real", face(0.5), key="slightly"),
        medium("real", face(1.0), face(6.0, time_s=1.0), key="badly"),
        medium("real", face(-3.0), key="right"),
        medium("fake", face(-2.0), face(-4.0, time_s=1.0), key="missed"),
    ]
    worst = worst_mistakes(media, MANIFEST)
    assert [(one.key, shown.logit) for one, shown in worst] == [("badly", 6.0), ("slightly", 0.5), ("missed", -4.0)]


def test_other_settings_use_another_cache_folder(judged, tmp_path, monkeypatch):
    built = []
    monkeypatch.setattr(
        "worker.training.evaluation.sources.build_source_cache", lambda *given, **_: built.append((given[2], given[3]))
    )
    sampling = MANIFEST.sampling.model_copy(update={"sample_fps": 5.0})
    for manifest in (MANIFEST, MANIFEST.model_copy(update={"sampling": sampling})):
        folder_source(judged.root, manifest, tmp_path)
    folder_source(judged.root, MANIFEST, tmp_path, kind="real")
    assert len({folder for folder, _ in built}) == 3
    assert [settings.sample_fps for _, settings in built] == [2.0, 5.0, 2.0]
    assert built[0][1].min_sharpness == MANIFEST.preprocessing.min_sharpness
