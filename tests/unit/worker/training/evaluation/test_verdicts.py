import numpy as np

from shared.evidence import Evidence
from shared.manifests import Bound, Bounds, Calibration
from worker.training.evaluation.verdicts import Verdicts

PLAIN = Calibration(temperature=1.0, threshold=0.6, uncertainty_band=(0.4, 0.6))
MOVING = PLAIN.model_copy(
    update={"bounds": {"video": Bounds(low=Bound(one=-2.0, many=-0.5), high=Bound(one=2.0, many=0.5))}}
)


def calls(calibration, scores, evidence):
    verdicts = Verdicts.from_scores(calibration, np.array(scores), evidence)
    return [
        next(name for name in ("real", "inconclusive", "fake") if getattr(verdicts, name)[row])
        for row in range(len(scores))
    ]


def test_the_band_is_half_open_and_the_threshold_is_fake():
    evidence = [Evidence("image", 1, 1)] * 4
    assert calls(PLAIN, [0.39, 0.4, 0.59, 0.6], evidence) == ["real", "inconclusive", "inconclusive", "fake"]


def test_each_score_is_judged_by_the_limits_of_its_own_evidence():
    few, many = Evidence("video", 1, 1), Evidence("video", 100, 1)
    assert calls(MOVING, [0.7, 0.7, 0.3, 0.3], [few, many, few, many]) == [
        "inconclusive",
        "fake",
        "inconclusive",
        "real",
    ]
