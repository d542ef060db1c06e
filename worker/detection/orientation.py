"""
Orientation of faces: pictures turned by quarter turns without orientation metadata, and people who lie down.

MTCNN detects a fifth to a half of turned faces, but places their landmarks as if the faces were upright, so landmarks
do not reveal the rotation. O-Net's probability does, compared between the four orientations of a face: it prefers
another orientation for 5 % of 310 upright faces, and for 89 to 100 % of the turned faces that are detected.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from worker.detection.faces import Box, DetectedFace, crop_face
from worker.detection.mtcnn import FINISHED_PX, MTCNN

Picture = NDArray[np.uint8]

QUARTER_TURNS: Final = 4
MIN_TURNED_GAIN: Final = 0.05
"""Turned gain from which a face beside upright ones is not scored: that of 1 % of upright and two thirds of turned
faces."""
MAX_PROBED_FRAMES: Final = 2
"""Most frames of a chunk with faces, none of them upright, that are searched in all orientations."""
PROBE_INTERVAL_FRAMES: Final = 4
"""Interval at which a frame without faces is searched in all orientations; the first one always is."""


class OrientedFace(NamedTuple):
    """A detected face with the evidence that it is turned."""

    face: DetectedFace
    turned_gain: float
    """How much O-Net's probability rises in the best other orientation; negative for an upright face."""

    @property
    def is_upright(self) -> bool:
        """Whether O-Net prefers no other orientation."""
        return self.turned_gain < 0.0


def turn(picture: Picture, quarter_turns: int) -> Picture:
    """Turn (H, W, 3) *picture* counter-clockwise by *quarter_turns*."""
    return picture if quarter_turns == 0 else np.ascontiguousarray(np.rot90(picture, quarter_turns))


def turn_back(face: DetectedFace, quarter_turns: int, width_px: int, height_px: int) -> DetectedFace:
    """
    Map a face that was detected in a turned picture to the original picture.

    Args:
        quarter_turns: Quarter turns by which ``turn`` turned the picture.
        width_px: Width of the original picture.
        height_px: Height of the original picture.
    """
    if quarter_turns == 0:
        return face

    def place(x: float, y: float) -> tuple[float, float]:
        return [(x, y), (width_px - y, x), (width_px - x, height_px - y), (y, height_px - x)][quarter_turns]

    left, top, right, bottom = face.box_px
    (x, y), (other_x, other_y) = place(left, top), place(right, bottom)
    box: Box = (min(x, other_x), min(y, other_y), max(x, other_x), max(y, other_y))
    return replace(face, box_px=box, landmarks_px=tuple(place(*mark) for mark in face.landmarks_px))


def detect_with_orientation(
    mtcnn: MTCNN, pictures: Sequence[Picture], min_confidence: float
) -> list[list[OrientedFace]]:
    """
    Detect the faces of each picture, largest first, and whether each is upright.

    Args:
        pictures: (H, W, 3) uint8 RGB each.
        min_confidence: Lowest confidence of the faces to keep.
    """
    found = [[face for face in faces if face.confidence >= min_confidence] for faces in mtcnn.detect(pictures)]
    crops = [
        crop_face(picture, face.box_px, size_px=FINISHED_PX, margin=0.0)
        for picture, faces in zip(pictures, found, strict=True)
        for face in faces
    ]
    if not crops:
        return [[] for _ in pictures]
    orientations = np.stack(
        [np.rot90(np.stack(crops), quarter_turns, axes=(1, 2)) for quarter_turns in range(QUARTER_TURNS)]
    )
    probabilities = mtcnn.estimate_probabilities(orientations.reshape(-1, *orientations.shape[2:])).reshape(
        QUARTER_TURNS, -1
    )
    gains = iter((probabilities[1:].max(axis=0) - probabilities[0]).tolist())
    return [[OrientedFace(face, next(gains)) for face in faces] for faces in found]


@dataclass(frozen=True, slots=True)
class OrientedFrame:
    """A frame, turned so that its faces are upright if the turn could be determined."""

    quarter_turns: int
    """Counter-clockwise quarter turns by which the frame was turned."""
    picture: Picture
    """The turned frame."""
    faces: list[OrientedFace]

    @property
    def has_upright(self) -> bool:
        """Whether a face is upright in the turned frame."""
        return any(face.is_upright for face in self.faces)


class OrientationTracker:
    """
    Detector of faces in the frames of one segment that also finds how the frames have to be turned.

    The orientation of earlier frames is kept until another one is better. Others are tried on frames whose faces are
    all turned, and at intervals on frames without faces.

    Args:
        min_confidence: Lowest confidence of the faces to keep.
    """

    def __init__(self, mtcnn: MTCNN, min_confidence: float) -> None:
        self._mtcnn = mtcnn
        self._min_confidence = min_confidence
        self._quarter_turns = 0
        self._frames_since_probe = PROBE_INTERVAL_FRAMES

    def detect(self, pictures: Sequence[Picture]) -> list[OrientedFrame]:
        """Detect the faces of the next frames, (H, W, 3) uint8 RGB each."""
        oriented = self._detect_turned(pictures, self._quarter_turns)
        unsure = [row for row, frame in enumerate(oriented) if not frame.has_upright]
        suspects = [row for row in unsure if oriented[row].faces][:MAX_PROBED_FRAMES]
        self._frames_since_probe += len(pictures)
        probes = suspects or (
            [unsure[len(unsure) // 2]] if unsure and self._frames_since_probe >= PROBE_INTERVAL_FRAMES else []
        )
        if not probes:
            return oriented
        self._frames_since_probe = 0
        quarter_turns = self._find_better_turn([pictures[row] for row in probes], [oriented[row] for row in probes])
        if quarter_turns == self._quarter_turns:
            return oriented
        again = self._detect_turned([pictures[row] for row in unsure], quarter_turns)
        for row, frame in zip(unsure, again, strict=True):
            if frame.has_upright:
                oriented[row] = frame
        if len(unsure) == len(pictures):
            self._quarter_turns = quarter_turns
        return oriented

    def _find_better_turn(self, pictures: Sequence[Picture], current: Sequence[OrientedFrame]) -> int:
        """Return the turn with the highest total confidence of upright faces; by default the current turn."""
        confidence = {self._quarter_turns: _sum_confidence([frame.faces for frame in current])}
        for quarter_turns in range(QUARTER_TURNS):
            if quarter_turns != self._quarter_turns:
                turned = self._detect_turned(pictures, quarter_turns)
                confidence[quarter_turns] = _sum_confidence(
                    [[face for face in frame.faces if face.is_upright] for frame in turned]
                )

        def rank(quarter_turns: int) -> tuple[float, bool, int]:
            return confidence[quarter_turns], quarter_turns == self._quarter_turns, -quarter_turns

        return max(confidence, key=rank)

    def _detect_turned(self, pictures: Sequence[Picture], quarter_turns: int) -> list[OrientedFrame]:
        turned = [turn(picture, quarter_turns) for picture in pictures]
        faces = detect_with_orientation(self._mtcnn, turned, self._min_confidence)
        return [OrientedFrame(quarter_turns, picture, found) for picture, found in zip(turned, faces, strict=True)]


def _sum_confidence(frames: Sequence[Sequence[OrientedFace]]) -> float:
    """Return the sum over frames of the highest confidence of a face."""
    return sum(max((item.face.confidence for item in faces), default=0.0) for faces in frames)
