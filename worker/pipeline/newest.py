"""Pictures of the newest face of each person in a segment of a live stream, for people who follow it."""

from collections import deque
from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.pipeline.results import FacePicture

SIDE_PX: Final = 112
QUALITY: Final = 80
MAX_HELD: Final = 256
"""Faces of a segment that are held until its people are known: a second of a crowd, or all of a conversation."""
MAX_PEOPLE: Final = 12
"""People of a segment of whom a picture is kept: those with the most face area."""


class NewestFaces:
    """Collects the faces of a segment, in order of time, and chooses the newest of each person."""

    def __init__(self) -> None:
        self._count = 0
        self._held: deque[tuple[int, float, NDArray[np.uint8]]] = deque(maxlen=MAX_HELD)
        """Number of the face, time and picture."""

    def add(self, time_s: float, crop: NDArray[np.uint8]) -> None:
        """Add the next face: a square crop, (S, S, 3) uint8 RGB."""
        small = cv2.resize(crop, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA)
        self._held.append((self._count, time_s, np.asarray(small, np.uint8)))
        self._count += 1

    def choose(self, people: Sequence[int]) -> tuple[FacePicture, ...]:
        """
        Return the newest face of each person as a JPEG, in order of the people's numbers.

        Args:
            people: The person's number of each face that was added.
        """
        newest = {people[number]: (time_s, small) for number, time_s, small in self._held}
        return tuple(
            FacePicture(person, time_s, _encode(small))
            for person, (time_s, small) in sorted(newest.items())
            if person < MAX_PEOPLE
        )


def _encode(picture: NDArray[np.uint8]) -> bytes:
    done, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    if not done:
        raise RuntimeError("a face could not be written as a JPEG")
    return bytes(data)
