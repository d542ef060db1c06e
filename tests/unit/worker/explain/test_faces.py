from dataclasses import replace

import numpy as np
import pytest

from tests.clips import hopper
from tests.unit.worker.explain.conftest import score
from worker.explain.faces import cut_face
from worker.media.decoding import Frame
from worker.pipeline.results import FaceResult


def test_a_cut_face_is_the_crop_that_was_scored(detector, swapped):
    assert swapped.crop.shape == (224, 224, 3)
    assert detector.score_crops([swapped.crop]) == [swapped.face.fake_score]


@pytest.mark.parametrize("quarters", [1, 2, 3])
@pytest.mark.parametrize("scale", [(1.0, 1.0), (2.0, 3.0)], ids=["at its own size", "looked at smaller"])
def test_a_turned_face_is_cut_upright(detector, real, quarters, scale):
    turned = Frame(0.0, np.ascontiguousarray(np.rot90(hopper(), quarters)), scale)
    found = score(detector, turned)
    assert found.face.turned_deg == (4 - quarters) % 4 * 90
    assert detector.score_crops([found.crop]) == [found.face.fake_score]
    assert np.array_equal(found.crop, real.crop)


def test_a_face_from_json_is_cut_at_most_a_pixel_beside(detector, swapped):
    stored = FaceResult.from_json(swapped.face.to_json())
    assert stored.box_px != swapped.face.box_px
    crop = cut_face(swapped.frame, stored, detector.manifest.preprocessing)
    assert detector.score_crops([crop])[0] == pytest.approx(swapped.face.fake_score, abs=0.03)


def test_a_box_that_leaves_the_frame_is_cut_with_repeated_edges(detector, real):
    outside = replace(real.face, box_px=(-40.0, -40.0, 60.0, 60.0))
    crop = cut_face(real.frame, outside, detector.manifest.preprocessing)
    assert crop.shape == (224, 224, 3)
    assert np.array_equal(crop[0, 0], real.frame.pixels[0, 0])
