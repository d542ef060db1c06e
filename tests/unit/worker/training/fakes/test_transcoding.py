import cv2
import numpy as np
import pytest

from tests.unit.worker.training.conftest import astronaut
from worker.training.fakes import transcoding
from worker.training.fakes.transcoding import (
    MAX_CRFS,
    MIN_CRFS,
    MIN_SIDE_PX,
    VIEWS,
    Motion,
    compose,
    draw_chain,
    make_resize,
    make_video,
)

CODECS = sorted(MIN_CRFS)
STILL = Motion(0.0, 0.0, 1.0)


@pytest.fixture(scope="module")
def face():
    return np.ascontiguousarray(astronaut()[40:181, 150:291])  # 141 px: an odd side.


@pytest.mark.parametrize("codec", CODECS)
def test_a_coarser_rate_factor_loses_more_and_the_size_stays(codec, face):
    fine, coarse = (make_video(codec, limits[codec], STILL)(face) for limits in (MIN_CRFS, MAX_CRFS))
    assert fine.shape == coarse.shape == face.shape
    assert fine.dtype == np.uint8
    assert cv2.PSNR(fine, face) > cv2.PSNR(coarse, face) + 4
    assert cv2.PSNR(coarse, face) > 18


@pytest.mark.parametrize("codec", CODECS)
def test_the_returned_frame_is_a_predicted_frame(codec, face):
    still = make_video(codec, MAX_CRFS[codec], STILL)(face)
    moving = make_video(codec, MAX_CRFS[codec], Motion(2.5, 1.5, 1.01))(face)
    assert not np.array_equal(still, moving)


def test_a_chain_is_deterministic_and_equal_for_both_pictures_of_a_pair(face):
    one, other = (draw_chain(np.random.default_rng(5), face.shape[0]) for _ in range(2))
    assert np.array_equal(one(face), other(face))
    assert np.array_equal(one(face), one(face))
    assert not np.array_equal(one(face), draw_chain(np.random.default_rng(6), face.shape[0])(face))


def test_chains_shrink_by_any_share_down_to_three_tenths_and_use_every_codec(face, monkeypatch):
    seen = set()
    for name in ("jpeg", "video"):
        monkeypatch.setattr(
            transcoding,
            f"make_{name}",
            lambda *given, name=name, **_: seen.add(given[0] if name == "video" else name) or np.copy,
        )
    sides = [draw_chain(np.random.default_rng(seed), 141)(face).shape[0] for seed in range(300)]
    assert seen == {"jpeg", *CODECS}
    assert min(sides) >= max(MIN_SIDE_PX, round(0.3 * 141))
    assert min(sides) < 50
    assert sum(side == 141 for side in sides) > 90


def test_views_go_from_clean_to_hard(face):
    assert np.array_equal(VIEWS["clean"](face), face)
    losses = [cv2.PSNR(VIEWS[name](face), face) for name in ("crf28", "crf35")]
    assert losses[0] > losses[1]
    assert VIEWS["half"](face).shape == (70, 70, 3)


def test_composed_transforms_run_in_order(face):
    assert compose([make_resize(60, smooth=False), make_resize(90, smooth=True)])(face).shape == (90, 90, 3)
