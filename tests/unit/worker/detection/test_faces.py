import cv2
import numpy as np
import pytest

from shared.manifests import DEFAULT_CHECKPOINT, PACKAGED_MODELS_DIR, read_manifest
from tests.clips import scene
from worker.detection.faces import DetectedFace, crop_face, measure_quality, quality_problem
from worker.detection.mtcnn import MTCNN

PREPROCESSING = read_manifest(PACKAGED_MODELS_DIR / DEFAULT_CHECKPOINT).preprocessing


def face(*box):
    return DetectedFace(box_px=box, landmarks_px=(), confidence=1.0)


def gradient(height, width):
    """Red grows to the right, green downwards."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[..., 0] = np.arange(width)
    picture[..., 1] = np.arange(height)[:, None]
    return picture


def test_a_crop_is_the_square_about_the_face_with_its_margin():
    crop = crop_face(gradient(200, 200), (80.0, 90.0, 120.0, 110.0), size_px=60, margin=0.25)
    assert crop.shape == (60, 60, 3)
    # The square reaches from 70 to 130 across and from 70 to 130 down.
    assert (crop[0, 0, 0], crop[0, -1, 0]) == (70, 129)
    assert (crop[0, 0, 1], crop[-1, 0, 1]) == (70, 129)


@pytest.mark.parametrize("box", [(-30, 10, 40, 80), (170, 170, 230, 230), (-50, -50, 250, 250), (500, 500, 540, 540)])
def test_a_crop_beyond_the_frame_repeats_its_edge(box):
    crop = crop_face(gradient(200, 200), box, size_px=64, margin=0.1)
    assert crop.shape == (64, 64, 3)
    assert crop.dtype == np.uint8


def test_size_counts_what_is_inside_the_frame():
    frame = gradient(200, 200)
    assert measure_quality(frame, face(10, 10, 110, 90)).size_px == 80
    assert measure_quality(frame, face(-60, 10, 40, 110)).size_px == 40
    assert measure_quality(frame, face(300, 300, 340, 340)).size_px == 0


@pytest.mark.parametrize(
    ("size_px", "sharpness", "problem"),
    [
        (39.0, 500.0, "face_too_small"),
        (40.0, PREPROCESSING.min_sharpness - 1, "face_too_blurred"),
        (40.0, PREPROCESSING.min_sharpness, None),
    ],
)
def test_quality_problems_are_named(size_px, sharpness, problem):
    assert quality_problem(size_px, sharpness, PREPROCESSING) == problem


def problem_of(frame, found):
    quality = measure_quality(frame, found)
    return quality_problem(quality.size_px, quality.sharpness, PREPROCESSING)


def test_sharp_faces_of_any_size_pass_and_blurred_ones_do_not():
    frame = scene(0, size=(640, 480))
    ((found,),) = MTCNN(min_face_px=40).detect([frame])
    assert problem_of(frame, found) is None
    side = found.box_px[2] - found.box_px[0]
    blurred = cv2.GaussianBlur(frame, (0, 0), side / 12)
    assert problem_of(blurred, found) == "face_too_blurred"
