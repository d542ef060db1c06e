import numpy as np

from shared.manifests import Calibration
from tests.unit.worker.training.judged import MANIFEST
from worker.training.verdicts import Verdicts


def test_scores_are_called_as_serving_calls_them():
    calibration = Calibration(temperature=1.0, threshold=0.5, uncertainty_band=(0.4, 0.7))
    verdicts = Verdicts.of(MANIFEST.model_copy(update={"calibration": calibration}))
    scores = np.array([0.39, 0.4, 0.5, 0.69, 0.7])
    assert verdicts.are_inconclusive(scores).tolist() == [False, True, True, True, False]
    assert verdicts.are_fake(scores).tolist() == [False, False, False, False, True]
