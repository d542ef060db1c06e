"""
Faces that do not stand upright: pictures turned by a quarter or a half without a word in the file, and people lying.

MTCNN finds a fifth to a half of turned faces, and places their landmarks as if they stood upright, so landmarks do not
show the turn. O-Net does, shown the same face in all four positions: of 560 upright faces it prefers another position
by more than ``DOUBT`` for 2.6 %, of those that are found turned for 82 to 96 %.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from worker.detection.faces import Box, DetectedFace, crop_face
from worker.detection.mtcnn import FINISHED_PX, MTCNN

Picture = NDArray[np.uint8]

POSITIONS: Final = 4
DOUBT: Final = 0.01
"""How much more probable O-Net has to find a face in another position for the face not to count as upright."""
TURNED: Final = 0.05
"""The same for a face among upright ones that is not scored: 1 % of upright faces and two thirds of turned ones."""
PROBES: Final = 2
"""Frames that are looked at in all positions where no face stands upright."""


class Stand(NamedTuple):
    """A face, and how much more probable O-Net finds it in another position; below 0 where it stands upright."""

    face: DetectedFace
    doubt: float


def turn(picture: Picture, quarters: int) -> Picture:
    """Turn (H, W, 3) *picture* counter-clockwise by *quarters* of a full turn."""
    return picture if quarters == 0 else np.ascontiguousarray(np.rot90(picture, quarters))


def turn_back(face: DetectedFace, quarters: int, width_px: int, height_px: int) -> DetectedFace:
    """
    Give a face that was found in a turned picture its place in the picture before.

    Args:
        quarters: By which ``turn`` turned the picture.
        width_px: Of the picture before it was turned.
        height_px: Likewise.
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


def find_position(mtcnn: MTCNN, pictures: Sequence[Picture], min_confidence: float) -> int:
    """
    Say how pictures in which no face stands upright have to be turned.

    Returns:
        Quarters of a full turn, counter-clockwise, after which the most and surest faces stand upright; 0 if none do
        in any position.
    """
    step = max(1, len(pictures) // PROBES)
    probes = pictures[::step][:PROBES]
    sure = {0: 0.0}
    for quarters in range(1, POSITIONS):
        turned = find_standing(mtcnn, [turn(picture, quarters) for picture in probes], min_confidence)
        sure[quarters] = sum(stand.face.confidence for faces in turned for stand in faces if stand.doubt < DOUBT)
    return max(sure, key=lambda quarters: (sure[quarters], -quarters))
