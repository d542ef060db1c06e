import numpy as np
import pytest

from shared.manifests import DEFAULT_CHECKPOINT, PACKAGED_MODELS_DIR, read_manifest
from tests.unit.worker.training.rule_data import face, medium
from worker.training.errors import DataError
from worker.training.evaluation.long_videos import INSERTIONS_S, LENGTHS_S, format_table, judge_long_videos

SHIPPED = read_manifest(PACKAGED_MODELS_DIR / DEFAULT_CHECKPOINT)


def clip(key, odds, count=10, seed=0):
    """A video of one person whose faces have about these log-odds of being fake."""
    calibration = SHIPPED.calibration
    logits = calibration.offset + calibration.temperature * (odds + np.random.default_rng(seed).normal(0, 0.3, count))
    faces = [face(float(value), time_s=row / 2) for row, value in enumerate(logits)]
    return medium("fake" if odds > 0 else "real", *faces, key=key, is_video=True)


def test_real_videos_stay_real_and_longer_insertions_are_found_more_often():
    real = [clip(f"real{number}", -3.5, seed=number) for number in range(12)]
    swapped = [clip("swap", 3.0)]
    shares = judge_long_videos(real, swapped, SHIPPED, rounds=6)
    assert len(shares) == 2 * len(LENGTHS_S) * len(INSERTIONS_S)
    assert all(share.fake == share.not_real == 0.0 for share in shares if share.insertion_s == 0.0)
    for length_s in LENGTHS_S:
        found = [share.fake for share in shares if (share.length_s, share.style) == (length_s, "one person")]
        assert found == sorted(found)
        assert found[-1] == 1.0
    assert "| 600 s, one person | 0% fake, 0% not real |" in format_table(shares)


def test_the_same_seed_draws_the_same_videos():
    real, swapped = [clip("real", -2.0), clip("other", -2.5, seed=1)], [clip("swap", 1.5)]
    assert judge_long_videos(real, swapped, SHIPPED, rounds=2) == judge_long_videos(real, swapped, SHIPPED, rounds=2)


def test_missing_clips_are_an_error():
    with pytest.raises(DataError, match="need a real clip with 8 faces of a person, and a swapped clip"):
        judge_long_videos([clip("real", -3.0, count=3)], [clip("swap", 2.0)], SHIPPED)
