import math

import cv2
import numpy as np
import pytest

from tests.unit.worker.training.conftest import ASTRONAUT, HOPPER
from worker.training.scoring.skin_tone import skin_tone_deg

LANDMARKS = ((35.0, 40.0), (75.0, 40.0), (55.0, 60.0), (40.0, 80.0), (70.0, 80.0))


def plain(lightness, a, b):
    lab = np.full((110, 110, 3), (lightness, a, b), np.float32)
    return np.clip(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB) * 255 + 0.5, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("lightness", "b"), [(70.0, 15.0), (55.0, 20.0), (35.0, 15.0)])
def test_the_angle_follows_the_colour_of_the_cheeks(lightness, b):
    expected = math.degrees(math.atan((lightness - 50) / b))
    assert skin_tone_deg(plain(lightness, 12.0, b), LANDMARKS) == pytest.approx(expected, abs=2.0)


@pytest.mark.parametrize(
    ("picture", "landmarks"),
    [
        (plain(60.0, 0.0, 0.0), LANDMARKS),
        (np.full((110, 110, 3), (255, 230, 200), np.uint8), LANDMARKS),
        (plain(60.0, 12.0, 18.0), tuple((55 + (x - 55) * 0.3, y) for x, y in LANDMARKS)),
        (plain(60.0, 12.0, 18.0), tuple((x - 40, y) for x, y in LANDMARKS)),
        (plain(60.0, 12.0, 18.0), tuple((x / 10, y / 10) for x, y in LANDMARKS)),
    ],
    ids=["grey", "clipped", "turned away", "outside", "tiny"],
)
def test_unmeasurable_faces_give_none(picture, landmarks):
    assert skin_tone_deg(picture, landmarks) is None


def test_a_darker_exposure_of_the_same_face_reads_as_darker_skin():
    # This is the caveat that every report carries, not a virtue.
    bright, dark = ((ASTRONAUT.picture * share).astype(np.uint8) for share in (1.0, 0.5))
    assert skin_tone_deg(dark, ASTRONAUT.landmarks) < skin_tone_deg(bright, ASTRONAUT.landmarks) - 20


def test_portraits_can_be_measured():
    assert skin_tone_deg(ASTRONAUT.picture, ASTRONAUT.landmarks) is not None
    assert skin_tone_deg(HOPPER.picture, HOPPER.landmarks) is not None
