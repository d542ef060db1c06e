"""
Grouping the faces of a segment into people, and telling whether two segments show the same person.

Frames are sampled a few times a second, so a face may have moved far between two of them: overlap alone would break
people apart, and position alone would merge those who change places. Place, size and appearance vote together.
"""

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.detection.faces import Box

SIGNATURE_SIDE_PX: Final = 12
APPEARANCE_WEIGHT: Final = 0.65
"""The rest is the vote of place and size."""
MIN_AFFINITY: Final = 0.5
"""Affinity that two sightings of a person reach at least."""
POSITION_MEMORY_S: Final = 1.5
"""How long a place stays a good guess; after that only appearance tells that somebody is back."""
MIN_LOOK_SIMILARITY: Final = 0.9
"""Likeness of two looks, in [-1, 1], from which they are one person's. Of 19,611 pairs of segments that showed
different people, 0.5 % reached it; of 31 that showed the same, 97 % did."""
POSITION_BONUS: Final = 0.2
"""What the same place a moment later adds to that likeness."""
LOOK_SIZE: Final = SIGNATURE_SIDE_PX**2 * 3
LOOK_SCALE: Final = 127.0 * 4.0
"""A unit vector of 432 numbers has hardly one above a quarter: it is kept in bytes by this factor."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """One face in one frame."""

    time_s: float
    box_px: Box
    appearance: NDArray[np.float32]
    """Of the face, by ``compute_appearance``."""


@dataclass(slots=True)
class _Person:
    signature: NDArray[np.float32]
    last: Sighting
    rows: list[int] = field(default_factory=list)
    area_px: float = 0.0


class People(NamedTuple):
    """Who is seen in a segment."""

    numbers: list[int]
    """The person of each sighting: 0 for the one with the most face area in all, then counting up."""
    looks: list[NDArray[np.float32]]
    """What each person looks like, by number: unit vectors like those of ``compute_appearance``."""


def group_into_people(sightings: Sequence[Sighting]) -> People:
    """
    Say which faces belong to one person. Two faces of one frame are never the same person.

    Args:
        sightings: In order of time; those with the same time stand in one frame.
    """
    people: list[_Person] = []
    start = 0
    while start < len(sightings):
        end = start
        while end < len(sightings) and sightings[end].time_s == sightings[start].time_s:
            end += 1
        _assign(people, sightings, range(start, end))
        start = end
    people.sort(key=lambda person: (-person.area_px, person.rows[0]))
    result = [0] * len(sightings)
    for number, person in enumerate(people):
        for row in person.rows:
            result[row] = number
    return People(result, [person.signature for person in people])


def _assign(people: list[_Person], sightings: Sequence[Sighting], rows: range) -> None:
    """Give the faces of one frame to people, best match first; what matches nobody is somebody new."""
    signatures = {row: sightings[row].appearance for row in rows}
    votes = sorted(
        (
            (_affinity(person, sightings[row], signatures[row]), -index, -row)
            for index, person in enumerate(people)
            for row in rows
        ),
        reverse=True,
    )
    free_rows, free_people = set(rows), set(range(len(people)))
    for affinity, index, row in votes:
        if affinity >= MIN_AFFINITY and -row in free_rows and -index in free_people:
            free_rows.remove(-row)
            free_people.remove(-index)
            _add(people[-index], -row, sightings[-row], signatures[-row])
    for row in sorted(free_rows):
        person = _Person(signature=signatures[row], last=sightings[row])
        _add(person, row, sightings[row], signatures[row])
        people.append(person)


def _add(person: _Person, row: int, sighting: Sighting, signature: NDArray[np.float32]) -> None:
    left, top, right, bottom = sighting.box_px
    person.rows.append(row)
    person.area_px += (right - left) * (bottom - top)
    person.last = sighting
    mixed = person.signature * 0.7 + signature * 0.3
    person.signature = np.asarray(mixed / max(float(np.linalg.norm(mixed)), 1e-6), np.float32)


def _affinity(person: _Person, sighting: Sighting, signature: NDArray[np.float32]) -> float:
    appearance = max(0.0, float(person.signature @ signature))
    age = (sighting.time_s - person.last.time_s) / POSITION_MEMORY_S
    place = compute_proximity(person.last.box_px, sighting.box_px) * math.exp(-age * age)
    return APPEARANCE_WEIGHT * appearance + (1 - APPEARANCE_WEIGHT) * place


def compute_proximity(one: Box, other: Box) -> float:
    """1 for the same place and size, towards 0 from a face's width away or at twice the size."""
    sides = math.sqrt(_area(one)), math.sqrt(_area(other))
    distance = math.hypot(one[0] + one[2] - other[0] - other[2], one[1] + one[3] - other[1] - other[3]) / 2
    share = distance / max(1.0, min(sides))
    growth = math.log2(max(1.0, sides[0]) / max(1.0, sides[1]))
    return math.exp(-share * share - growth * growth)


def _area(box: Box) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def compute_appearance(crop: NDArray[np.uint8]) -> NDArray[np.float32]:
    """
    What a face looks like, coarsely: a tiny picture without its brightness and contrast, as a unit vector.

    Args:
        crop: (S, S, 3) uint8 RGB around the face, of any size.

    Chroma faces in it beside luma, since hair, skin and clothes differ more in it than the layout of a face does.
    """
    small = cv2.resize(crop, (SIGNATURE_SIDE_PX, SIGNATURE_SIDE_PX), interpolation=cv2.INTER_AREA)
    planes = cv2.cvtColor(small, cv2.COLOR_RGB2LAB).astype(np.float32).reshape(-1, 3) - 128.0
    planes[:, 0] -= planes[:, 0].mean()
    planes[:, 0] /= max(float(planes[:, 0].std()), 8.0)
    planes[:, 1:] /= 12.0
    vector = planes.reshape(-1)
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-6), np.float32)


def pack_look(look: NDArray[np.float32]) -> str:
    """Write a look, by ``compute_appearance`` or a mean of such, as text of a few hundred characters."""
    steps = np.clip(np.rint(look * LOOK_SCALE), -127, 127).astype(np.int8)
    return base64.b64encode(steps.tobytes()).decode("ascii")


def unpack_look(text: str) -> NDArray[np.float32]:
    """Read what ``pack_look`` wrote, as a unit vector."""
    steps = np.frombuffer(base64.b64decode(text), np.int8).astype(np.float32)
    return np.asarray(steps / max(float(np.linalg.norm(steps)), 1e-6), np.float32)
