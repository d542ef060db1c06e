from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from api.embedded.demo_videos import ASTRONAUT_LANDMARKS, HOPPER_LANDMARKS, swap_face
from shared.manifests import DEFAULT_CHECKPOINT, PACKAGED_MODELS_DIR
from tests.clips import astronaut, hopper
from worker.explain.faces import cut_face
from worker.explain.maps import Explainer
from worker.media.decoding import Frame
from worker.pipeline.detector import Detector
from worker.pipeline.results import FaceResult

HOPPER_SCALE = 280 / 340
"""From the portrait that the demo's landmarks belong to, to that of the tests."""


@dataclass(frozen=True, eq=False)
class Scored:
    """A scored face, its frame and its crop."""

    frame: Frame
    face: FaceResult
    crop: NDArray[np.uint8]


@pytest.fixture(scope="session")
def detector() -> Detector:
    return Detector.load(PACKAGED_MODELS_DIR, DEFAULT_CHECKPOINT, "cpu")


@pytest.fixture(scope="session")
def explainer() -> Explainer:
    return Explainer.load(PACKAGED_MODELS_DIR, DEFAULT_CHECKPOINT)


@pytest.fixture(scope="session")
def real(detector: Detector) -> Scored:
    """Grace Hopper's portrait."""
    return score(detector, Frame(0.0, hopper()))


@pytest.fixture(scope="session")
def swapped(detector: Detector) -> Scored:
    """The same portrait with the astronaut's face, as the demo swaps it."""
    return score(detector, Frame(0.0, swapped_portrait()))


def swapped_portrait() -> NDArray[np.uint8]:
    marks = [(x * HOPPER_SCALE, y * HOPPER_SCALE) for x, y in HOPPER_LANDMARKS]
    face, target = Image.fromarray(astronaut()), Image.fromarray(hopper())
    return np.asarray(swap_face(face, ASTRONAUT_LANDMARKS, target, marks))


def score(detector: Detector, frame: Frame) -> Scored:
    [person] = detector.score_segment([frame]).people
    [face] = person.faces
    return Scored(frame, face, cut_face(frame, face, detector.manifest.preprocessing))
