"""
What checkpoints are given: size, sharpness and brightness of faces, counted in bins.

The bins are the same for every checkpoint, so that a count needs no reference and can be compared with one that comes
later. Their edges are near the deciles of the videos in the validation set of swap-lite2.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final


class Property(StrEnum):
    """A property of a face, by its name in ``FaceResult``."""

    SIZE = "size_px"
    """The smaller side of the box, clipped to the frame."""
    SHARPNESS = "sharpness"
    """The variance of the Laplacian, of the face at 96 px in 8-bit luma."""
    LUMA = "luma"
    """The mean luma of the face, in [0, 255]."""


class InputKind(StrEnum):
    """A kind of input. Live streams are compared with the videos of the validation set."""

    IMAGE = "image"
    VIDEO = "video"
    STREAM = "stream"


BINS_VERSION: Final = 1
"""Version of ``EDGES``; counts of another version are not read."""
EDGES: Final[Mapping[Property, tuple[float, ...]]] = {
    Property.SIZE: (60.0, 80.0, 100.0, 120.0, 150.0, 180.0, 210.0, 240.0, 320.0),
    Property.SHARPNESS: (30.0, 50.0, 75.0, 100.0, 150.0, 200.0, 300.0, 500.0, 1000.0),
    Property.LUMA: (40.0, 55.0, 70.0, 80.0, 90.0, 100.0, 110.0, 125.0, 145.0),
}
"""Edges between bins; a bin contains its lower edge."""
INPUT_BINS: Final = 10
"""Number of bins of each property."""
MAX_FACES_OF_JOB: Final = 100
"""A job with more faces counts as so many, so that one long recording does not outweigh all others."""
PROBLEMS: Final = ("face_too_small", "face_too_blurred", "face_turned")
"""Why a face that was found is not scored, as ``FaceResult.problem`` names it."""

Counts = Mapping[Property, tuple[float, ...]]
"""Faces in each bin of each property."""


@dataclass(frozen=True, slots=True)
class FaceCounts:
    """The faces of one job or medium."""

    faces: int
    """Scored faces."""
    bins: Counts
    """Scored faces by bin, scaled down if there are more than ``MAX_FACES_OF_JOB``."""
    problems: Mapping[str, int]
    """Faces that were not scored, by problem."""


def count_faces(faces: Iterable[Mapping[str, Any]]) -> FaceCounts:
    """
    Count the faces of one job or medium.

    Args:
        faces: Each with the fields of ``FaceResult.to_json``. A property that is None, because an earlier release did
            not measure it, is not counted.
    """
    bins = {each: [0] * INPUT_BINS for each in Property}
    problems = dict.fromkeys(PROBLEMS, 0)
    scored = 0
    for face in faces:
        if face["fake_score"] is None:
            problem = face["problem"]
            if problem in problems:
                problems[problem] += 1
            continue
        scored += 1
        for each, counts in bins.items():
            value = face.get(each)
            if value is not None:
                counts[bisect_right(EDGES[each], value)] += 1
    scale = min(1.0, MAX_FACES_OF_JOB / max(1, scored))
    scaled = {each: tuple(round(count * scale, 3) for count in counts) for each, counts in bins.items()}
    return FaceCounts(scored, scaled, problems)
