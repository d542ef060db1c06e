"""
Faces that do not stand upright: pictures turned by a quarter or a half without a word in the file, and people lying.

MTCNN finds a fifth to a half of turned faces, and places their landmarks as if they stood upright, so landmarks do not
show the turn. O-Net does, shown the same face in all four positions: of 310 upright faces it prefers another position
for 5 %, of those that are found turned for 89 to 100 %.
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
"""How much more probable O-Net finds a face in another position if it is not to be scored among upright ones: 1 % of
upright faces and two thirds of turned ones."""
MAX_PROBED_FRAMES: Final = 2
"""Frames that are looked at in all positions where faces were found and none of them faces upright."""
PROBE_INTERVAL_FRAMES: Final = 4
"""Frames after which one of those without a face is looked at in all positions again; the first one always is."""


class OrientedFace(NamedTuple):
    """A face, and how much more probable O-Net finds it in another position; below 0 where it faces upright."""

    face: DetectedFace
    turned_gain: float

    @property
    def is_upright(self) -> bool:
        """Whether O-Net likes no other position better."""
        return self.turned_gain < 0.0


def turn(picture: Picture, quarter_turns: int) -> Picture:
    """Turn (H, W, 3) *picture* counter-clockwise by *quarter_turns* of a full turn."""
    return picture if quarter_turns == 0 else np.ascontiguousarray(np.rot90(picture, quarter_turns))


def turn_back(face: DetectedFace, quarter_turns: int, width_px: int, height_px: int) -> DetectedFace:
    """
    Give a face that was found in a turned picture its place in the picture before.

    Args:
        quarter_turns: By which ``turn`` turned the picture.
        width_px: Of the picture before it was turned.
        height_px: Of the picture before it was turned.
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
    Find the faces of each picture, largest first, with what speaks against each one's standing upright.

    Args:
        pictures: (H, W, 3) uint8 RGB each.
        min_confidence: Of the faces to keep.
    """
    found = [[face for face in faces if face.confidence >= min_confidence] for faces in mtcnn.detect(pictures)]
    crops = [
        crop_face(picture, face.box_px, size_px=FINISHED_PX, margin=0.0)
        for picture, faces in zip(pictures, found, strict=True)
        for face in faces
    ]
    if not crops:
        return [[] for _ in pictures]
    positions = np.stack(
        [np.rot90(np.stack(crops), quarter_turns, axes=(1, 2)) for quarter_turns in range(QUARTER_TURNS)]
    )
    likely = mtcnn.estimate_probabilities(positions.reshape(-1, *positions.shape[2:])).reshape(QUARTER_TURNS, -1)
    doubts = iter((likely[1:].max(axis=0) - likely[0]).tolist())
    return [[OrientedFace(face, next(doubts)) for face in faces] for faces in found]


@dataclass(frozen=True, slots=True)
class OrientedFrame:
    """A picture in the position in which its faces stand upright, as far as it could be told."""

    quarter_turns: int
    """By which it was turned."""
    picture: Picture
    faces: list[OrientedFace]

    @property
    def has_upright(self) -> bool:
        """Whether a face faces upright in it."""
        return any(stand.is_upright for stand in self.faces)


class OrientationTracker:
    """
    Finds the faces of the frames of one stretch of video, or of one picture, and how frames have to be turned for it.

    The position of the frames before holds until another one is better: where faces were found and none faces
    upright, and now and then where nobody is found.

    Args:
        min_confidence: Of the faces to keep.
    """

    def __init__(self, mtcnn: MTCNN, min_confidence: float) -> None:
        self._mtcnn = mtcnn
        self._min_confidence = min_confidence
        self._quarters = 0
        self._unseen = PROBE_INTERVAL_FRAMES

    def pose(self, pictures: Sequence[Picture]) -> list[OrientedFrame]:
        """Find the faces of the next frames, (H, W, 3) uint8 RGB each."""
        oriented = self._detect_turned(pictures, self._quarters)
        unsure = [row for row, one in enumerate(oriented) if not one.has_upright]
        suspects = [row for row in unsure if oriented[row].faces][:MAX_PROBED_FRAMES]
        self._unseen += len(pictures)
        probes = suspects or ([unsure[len(unsure) // 2]] if unsure and self._unseen >= PROBE_INTERVAL_FRAMES else [])
        if not probes:
            return oriented
        self._unseen = 0
        quarter_turns = self._find_better_turn([pictures[row] for row in probes], [oriented[row] for row in probes])
        if quarter_turns == self._quarters:
            return oriented
        for row, one in zip(unsure, self._detect_turned([pictures[row] for row in unsure], quarter_turns), strict=True):
            if one.has_upright:
                oriented[row] = one
        if len(unsure) == len(pictures):
            self._quarters = quarter_turns
        return oriented

    def _find_better_turn(self, pictures: Sequence[Picture], now: Sequence[OrientedFrame]) -> int:
        """The position in which the surest faces of *pictures* stand upright, surer than *now*; else the one of now."""
        sure = {self._quarters: _sum_confidence([one.faces for one in now])}
        for quarter_turns in range(QUARTER_TURNS):
            if quarter_turns != self._quarters:
                turned = self._detect_turned(pictures, quarter_turns)
                sure[quarter_turns] = _sum_confidence(
                    [[stand for stand in one.faces if stand.is_upright] for one in turned]
                )
        return max(
            sure, key=lambda quarter_turns: (sure[quarter_turns], quarter_turns == self._quarters, -quarter_turns)
        )

    def _detect_turned(self, pictures: Sequence[Picture], quarter_turns: int) -> list[OrientedFrame]:
        turned = [turn(picture, quarter_turns) for picture in pictures]
        faces = detect_with_orientation(self._mtcnn, turned, self._min_confidence)
        return [OrientedFrame(quarter_turns, picture, found) for picture, found in zip(turned, faces, strict=True)]


def _sum_confidence(faces: Sequence[Sequence[OrientedFace]]) -> float:
    return sum(max((stand.face.confidence for stand in faces), default=0.0) for faces in faces)
