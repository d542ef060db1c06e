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

POSITIONS: Final = 4
TURNED: Final = 0.05
"""How much more probable O-Net finds a face in another position if it is not to be scored among upright ones: 1 % of
upright faces and two thirds of turned ones."""
PROBES: Final = 2
"""Frames that are looked at in all positions where faces were found and none of them stands upright."""
EVERY: Final = 4
"""Frames after which one of those without a face is looked at in all positions again; the first one always is."""


class Stand(NamedTuple):
    """A face, and how much more probable O-Net finds it in another position; below 0 where it stands upright."""

    face: DetectedFace
    doubt: float

    @property
    def is_upright(self) -> bool:
        """Whether O-Net likes no other position better."""
        return self.doubt < 0.0


def turn(picture: Picture, quarters: int) -> Picture:
    """Turn (H, W, 3) *picture* counter-clockwise by *quarters* of a full turn."""
    return picture if quarters == 0 else np.ascontiguousarray(np.rot90(picture, quarters))


def turn_back(face: DetectedFace, quarters: int, width_px: int, height_px: int) -> DetectedFace:
    """
    Give a face that was found in a turned picture its place in the picture before.

    Args:
        quarters: By which ``turn`` turned the picture.
        width_px: Of the picture before it was turned.
        height_px: Of the picture before it was turned.
    """
    if quarters == 0:
        return face

    def place(x: float, y: float) -> tuple[float, float]:
        return [(x, y), (width_px - y, x), (width_px - x, height_px - y), (y, height_px - x)][quarters]

    left, top, right, bottom = face.box_px
    (x, y), (other_x, other_y) = place(left, top), place(right, bottom)
    box: Box = (min(x, other_x), min(y, other_y), max(x, other_x), max(y, other_y))
    return replace(face, box_px=box, landmarks_px=tuple(place(*mark) for mark in face.landmarks_px))


def find_standing(mtcnn: MTCNN, pictures: Sequence[Picture], min_confidence: float) -> list[list[Stand]]:
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
    positions = np.stack([np.rot90(np.stack(crops), quarters, axes=(1, 2)) for quarters in range(POSITIONS)])
    likely = mtcnn.likelihoods(positions.reshape(-1, *positions.shape[2:])).reshape(POSITIONS, -1)
    doubts = iter((likely[1:].max(axis=0) - likely[0]).tolist())
    return [[Stand(face, next(doubts)) for face in faces] for faces in found]


@dataclass(frozen=True, slots=True)
class Posed:
    """A picture in the position in which its faces stand upright, as far as it could be told."""

    quarters: int
    """By which it was turned."""
    picture: Picture
    stands: list[Stand]

    @property
    def has_upright(self) -> bool:
        """Whether a face stands upright in it."""
        return any(stand.is_upright for stand in self.stands)


class Poser:
    """
    Finds the faces of the frames of one stretch of video, or of one picture, and how frames have to be turned for it.

    The position of the frames before holds until another one is better: where faces were found and none stands
    upright, and now and then where nobody is found.

    Args:
        min_confidence: Of the faces to keep.
    """

    def __init__(self, mtcnn: MTCNN, min_confidence: float) -> None:
        self._mtcnn = mtcnn
        self._min_confidence = min_confidence
        self._quarters = 0
        self._unseen = EVERY

    def pose(self, pictures: Sequence[Picture]) -> list[Posed]:
        """Find the faces of the next frames, (H, W, 3) uint8 RGB each."""
        posed = self._posed(pictures, self._quarters)
        unsure = [row for row, one in enumerate(posed) if not one.has_upright]
        suspects = [row for row in unsure if posed[row].stands][:PROBES]
        self._unseen += len(pictures)
        probes = suspects or ([unsure[len(unsure) // 2]] if unsure and self._unseen >= EVERY else [])
        if not probes:
            return posed
        self._unseen = 0
        quarters = self._better([pictures[row] for row in probes], [posed[row] for row in probes])
        if quarters == self._quarters:
            return posed
        for row, one in zip(unsure, self._posed([pictures[row] for row in unsure], quarters), strict=True):
            if one.has_upright:
                posed[row] = one
        if len(unsure) == len(pictures):
            self._quarters = quarters
        return posed

    def _better(self, pictures: Sequence[Picture], now: Sequence[Posed]) -> int:
        """The position in which the surest faces of *pictures* stand upright, surer than *now*; else the one of now."""
        sure = {self._quarters: _surest([one.stands for one in now])}
        for quarters in range(POSITIONS):
            if quarters != self._quarters:
                turned = self._posed(pictures, quarters)
                sure[quarters] = _surest([[stand for stand in one.stands if stand.is_upright] for one in turned])
        return max(sure, key=lambda quarters: (sure[quarters], quarters == self._quarters, -quarters))

    def _posed(self, pictures: Sequence[Picture], quarters: int) -> list[Posed]:
        turned = [turn(picture, quarters) for picture in pictures]
        stands = find_standing(self._mtcnn, turned, self._min_confidence)
        return [Posed(quarters, picture, found) for picture, found in zip(turned, stands, strict=True)]


def _surest(stands: Sequence[Sequence[Stand]]) -> float:
    return sum(max((stand.face.confidence for stand in faces), default=0.0) for faces in stands)
