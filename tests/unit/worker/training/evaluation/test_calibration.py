import math

import numpy as np
import pytest

from shared.evidence import Evidence
from shared.manifests import Calibration
from tests.unit.worker.training.rule_data import face, logit, medium
from worker.training.errors import DataError
from worker.training.evaluation.calibration import MAX_FALSE_POSITIVES, MAX_LOW, MAX_MISSES, MIN_LOW, calibrate
from worker.training.evaluation.verdicts import Verdicts


def media(label, scores, dataset="made"):
    return [
        medium(label, face(logit(score)), key=f"{dataset}-{label}-{number}", dataset=dataset)
        for number, score in enumerate(scores)
    ]


def take_evenly(count, low, high):
    return [low + (high - low) * (number + 0.5) / count for number in range(count)]


def share_called_fake(given, calibration):
    scale = calibration.scale
    called = [one.fake_score(scale) >= calibration.limits(one.evidence(scale)).high for one in given]
    return sum(called) / len(called)


@pytest.mark.parametrize("count", [19, 20, 99, 250])
def test_the_share_of_real_media_above_the_threshold_is_bounded(count):
    reals = media("real", take_evenly(count, 0.02, 0.9))
    calibration = calibrate([*reals, *media("fake", take_evenly(50, 0.3, 0.99))])
    assert share_called_fake(reals, calibration) <= MAX_FALSE_POSITIVES
    one_more = share_called_fake(reals, calibration) * count + 1
    assert one_more / (count + 1) <= MAX_FALSE_POSITIVES + 1e-9 or count < 1 / MAX_FALSE_POSITIVES


@pytest.mark.parametrize("count", [1, 4, 9, 18])
def test_with_few_real_media_none_reaches_the_threshold(count):
    reals = media("real", take_evenly(count, 0.1, 0.8), dataset="few")
    given = [*reals, *media("real", take_evenly(100, 0.01, 0.3)), *media("fake", take_evenly(50, 0.3, 0.99))]
    assert share_called_fake(reals, calibrate(given)) == 0.0


def test_the_hardest_data_set_sets_the_threshold():
    easy = media("real", take_evenly(100, 0.01, 0.2), dataset="easy")
    hard = media("real", take_evenly(100, 0.3, 0.9), dataset="hard")
    fakes = media("fake", take_evenly(50, 0.5, 0.99))
    alone = calibrate([*hard, *fakes])
    both = calibrate([*easy, *hard, *fakes])
    for calibration in (alone, both):
        assert share_called_fake(hard, calibration) <= MAX_FALSE_POSITIVES
    assert both.threshold > calibrate([*easy, *fakes]).threshold


def test_the_share_of_fakes_below_the_band_is_bounded_in_every_data_set():
    easy = media("fake", take_evenly(100, 0.8, 0.99), dataset="easy")
    hard = media("fake", take_evenly(9, 0.2, 0.9), dataset="hard")
    calibration = calibrate([*easy, *hard, *media("real", take_evenly(100, 0.01, 0.5))])
    low, high = calibration.uncertainty_band
    assert high == calibration.threshold
    for given in (easy, hard):
        below = [one.fake_score(calibration.scale) < low for one in given]
        assert sum(below) / len(below) <= MAX_MISSES
    assert min(one.fake_score(calibration.scale) for one in hard) == pytest.approx(low, abs=1e-4)


def test_the_start_of_the_band_stays_within_its_limits():
    certain = calibrate(
        [*media("fake", [0.001, *take_evenly(8, 0.9, 0.99)]), *media("real", take_evenly(50, 0.005, 0.6))]
    )
    assert certain.uncertainty_band[0] == pytest.approx(MIN_LOW, abs=2e-4)
    easy = calibrate([*media("fake", take_evenly(50, 0.96, 0.99)), *media("real", take_evenly(50, 0.005, 0.99))])
    assert easy.uncertainty_band[0] <= MAX_LOW


def video(label, scores, dataset="clips", key=""):
    faces = [face(logit(score), time_s=number / 2) for number, score in enumerate(scores)]
    return medium(label, *faces, key=f"{dataset}-{label}-{key}", dataset=dataset, is_video=True)


def clips(label, means, faces, dataset="clips"):
    return [video(label, [mean] * faces, dataset, str(number)) for number, mean in enumerate(means)]


def test_many_faces_get_lower_limits_when_their_means_vary_less():
    singles = [
        *clips("real", take_evenly(100, 0.01, 0.9), 1, "crops"),
        *clips("fake", take_evenly(100, 0.4, 0.99), 1, "crops"),
    ]
    many = [*clips("real", take_evenly(40, 0.05, 0.4), 12), *clips("fake", take_evenly(40, 0.3, 0.95), 12)]
    calibration = calibrate([*singles, *many])
    thresholds = [calibration.limits(Evidence("video", count, 1)).high for count in (1, 2, 12, 100)]
    assert thresholds == sorted(thresholds, reverse=True)
    assert thresholds[0] - thresholds[-1] > 0.1
    for given in (singles[:100], many[:40]):
        verdicts = Verdicts.from_scores(
            calibration,
            np.array([one.fake_score(calibration.scale) for one in given]),
            [one.evidence(calibration.scale) for one in given],
        )
        assert verdicts.fake.mean() <= MAX_FALSE_POSITIVES


@pytest.mark.parametrize("count", [2, 3, 5, 20])
def test_the_bound_holds_for_any_number_of_faces(count):
    singles = [
        *clips("real", take_evenly(300, 0.01, 0.95), 1, "crops"),
        *clips("fake", take_evenly(300, 0.3, 0.99), 1, "crops"),
    ]
    reals = clips("real", take_evenly(40, 0.05, 0.8), count, "few")
    calibration = calibrate([*singles, *reals, *clips("fake", take_evenly(40, 0.3, 0.95), count, "few")])
    for given in (singles[:300], reals):
        assert share_called_fake(given, calibration) <= MAX_FALSE_POSITIVES


def test_scores_below_one_half_are_never_called_fake():
    given = [*clips("real", take_evenly(40, 0.001, 0.01), 20), *clips("fake", take_evenly(40, 0.99, 0.999), 20)]
    low, high = calibrate(given).limits(Evidence("video", 20, 1))
    assert low <= high
    assert high >= 0.5


def test_real_media_of_one_kind_and_fakes_of_another_cannot_be_compared():
    with pytest.raises(DataError, match="of one kind"):
        calibrate([*media("real", take_evenly(20, 0.1, 0.4)), *clips("fake", take_evenly(20, 0.6, 0.9), 5)])


def test_limits_rise_with_the_number_of_people():
    reals = [
        medium("real", face(logit(score)), key=str(n), is_video=False)
        for n, score in enumerate(take_evenly(200, 0.02, 0.8))
    ]
    fakes = [
        medium("fake", face(logit(score)), key=str(n), is_video=False)
        for n, score in enumerate(take_evenly(50, 0.3, 0.99))
    ]
    calibration = calibrate([*reals, *fakes])
    one, two, eight = (calibration.limits(Evidence("image", 1, people)).high for people in (1, 2, 8))
    assert one < two < eight
    rng = np.random.default_rng(0)
    scores = np.array([one.fake_score(calibration.scale) for one in reals])
    groups = rng.choice(scores, (4000, 8)).max(axis=1)
    assert (groups >= one).mean() > 0.2, "without a correction a group is called fake often"
    assert (groups >= eight).mean() <= 0.1


def test_an_offset_centres_shifted_scores():
    truth = [*[("fake", 0.8)] * 8, *[("real", 0.8)] * 2, *[("real", 0.2)] * 8, *[("fake", 0.2)] * 2]
    given = [medium(label, face(logit(score) + 2.0), key=str(number)) for number, (label, score) in enumerate(truth)]
    calibration = calibrate(given)
    assert calibration.offset == pytest.approx(2.0, abs=0.26)
    assert calibration.temperature == pytest.approx(1.0, rel=0.1)


def test_min_bits_per_pixel_is_copied_to_the_calibration():
    given = [*media("real", take_evenly(20, 0.1, 0.4)), *media("fake", take_evenly(20, 0.6, 0.9))]
    assert calibrate(given).min_bits_per_pixel is None
    assert calibrate(given, min_bits_per_pixel=0.03).min_bits_per_pixel == 0.03


def test_temperature_corrects_overconfident_and_underconfident_scores():
    truth = [*[("fake", 0.8)] * 8, *[("real", 0.8)] * 2, *[("real", 0.2)] * 8, *[("fake", 0.2)] * 2]
    for factor in (3.0, 0.5):
        given = [
            medium(label, face(logit(score) * factor), key=str(number)) for number, (label, score) in enumerate(truth)
        ]
        assert calibrate(given).temperature == pytest.approx(factor, rel=0.05)


def test_an_unreachable_threshold_is_a_valid_calibration():
    certain = [medium("real", face(80.0), key=str(number)) for number in range(30)]
    calibration = calibrate([*certain, *media("fake", [0.5] * 30)])
    assert isinstance(calibration, Calibration)
    assert calibration.threshold == 1.0
    assert math.isfinite(calibration.temperature)


@pytest.mark.parametrize("label", ["real", "fake"])
def test_both_classes_are_needed(label):
    with pytest.raises(DataError, match="real and fake"):
        calibrate(media(label, [0.2, 0.8]))
