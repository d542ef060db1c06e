import cv2
import numpy as np
import pytest

from shared.manifests import Scale
from tests.unit.worker.training.conftest import ASTRONAUT
from tests.unit.worker.training.rule_data import Darkness, Detail, checkpoint
from worker.training.evaluation.robustness import (
    DISTURBANCES,
    FACES_PER_MEDIUM,
    Disturbance,
    make_blur,
    make_shrink,
    robustness_curves,
)
from worker.training.scoring.scored_media import score_caches

KINDS = {kind.name: kind for kind in DISTURBANCES}


def curves(judged, network, *names, limit=60):
    judge, caches = checkpoint(network), [judged.source().cache]
    media = score_caches(judge, caches, sets=["test"])
    return robustness_curves(judge, caches, media, limit=limit, disturbances=[KINDS[name] for name in names]), media


@pytest.mark.parametrize("kind", DISTURBANCES, ids=lambda kind: kind.name)
def test_a_disturbance_grows_with_its_strength(kind):
    picture = ASTRONAUT.picture[50:190, 60:190]

    def error(strength):
        changed = kind.transform(strength)(picture)
        back = cv2.resize(changed, picture.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        return np.abs(back.astype(float) - picture).mean()

    errors = [error(strength) for strength in kind.strengths]
    assert errors == sorted(errors)
    assert errors[0] > 0


def test_shrinking_keeps_the_shape_and_a_minimum_side():
    picture = np.zeros((100, 60, 3), np.uint8)
    assert make_shrink(0.5)(picture).shape == (50, 30, 3)
    assert make_shrink(0.01)(picture).shape == (16, 16, 3)


def test_blur_keeps_the_mean():
    picture = ASTRONAUT.picture
    assert make_blur(2.0)(picture).mean() == pytest.approx(picture.mean(), abs=1.0)


def test_the_untouched_point_has_the_scores_of_the_evaluation(judged):
    points, media = curves(judged, Darkness(middle=0.2, slope=5.0))
    scores = [one.fake_score(Scale(1.0)) for one in media if one.is_fake]
    assert points[0].mean_score_fake == pytest.approx(np.mean(scores), abs=0.01)
    assert points[0].media == len(media)


def test_a_brightness_rule_is_robust_to_compression_and_blur(judged):
    points, _ = curves(judged, Darkness(), "jpeg", "blur")
    assert len(points) == 1 + len(KINDS["jpeg"].strengths) + len(KINDS["blur"].strengths)
    for point in points:
        assert point.roc_auc == 1.0
        assert (point.recall, point.false_positive_rate) == (1.0, 0.0)


def test_a_detail_rule_fails_under_blur(judged):
    points, _ = curves(judged, Detail(), "blur")
    scores = [point.mean_score_real for point in points]
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] < 0.6 * scores[0]


def test_a_limit_holds_for_each_label(judged):
    points, _ = curves(judged, Darkness(), limit=2)
    assert points[0].media == 4


def test_a_few_faces_of_each_video_are_scored_again(judged):
    seen = []

    def watched(picture):
        seen.append(picture)
        return picture

    judge, caches = checkpoint(Darkness()), [judged.source().cache]
    media = score_caches(judge, caches, sets=["validation"])
    watching = Disturbance("watching", "nothing", (1.0,), lambda _: watched)
    clean, point = robustness_curves(judge, caches, media, disturbances=[watching])
    assert len(seen) == FACES_PER_MEDIUM
    assert point.mean_score_real == clean.mean_score_real
    assert point.roc_auc is None
    assert point.mean_score_fake is None
