"""
Tracking of people over a whole medium: segments are scored one by one, and each numbers its people separately.

A person of one segment is matched with one of an earlier segment if they look alike; a little less likeness is enough
if the face is in the same place a moment later. A person whom a cut shows from another side may be counted twice.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from worker.detection.people import (
    LOOK_SIZE,
    MIN_LOOK_SIMILARITY,
    POSITION_BONUS,
    POSITION_MEMORY_S,
    compute_proximity,
    unpack_look,
)

MAX_GAP_S: Final = 3.0
"""Longest gap without a face within one interval in which a person is seen."""
MAX_COMPARED: Final = 500
"""How many of the most recently seen people are compared with those of a segment; a film of a crowd has thousands."""
LOOK_UPDATE_RATE: Final = 0.3
"""Weight of a further segment in the moving average of a person's look."""


@dataclass(frozen=True, slots=True)
class ScoredSegment:
    """A segment that was scored."""

    index: int
    result: Mapping[str, Any]
    """The segment's ``SegmentResult.to_json``."""
    looks: Sequence[str] | None
    """Looks of its people, by number; None if an earlier release scored it."""


@dataclass(frozen=True, slots=True)
class Track:
    """One person over the whole medium."""

    person: int
    """Number of the person: 0 for the one with the largest total face area, and so on."""
    faces: tuple[Mapping[str, Any], ...]
    """The person's faces in order of time, each a ``FaceResult.to_json``."""
    numbers: Mapping[int, int]
    """The person's number in each segment, by the segment's index."""
    scored_segments: int
    """Number of segments with a scored face of the person."""

    @property
    def scored(self) -> list[Mapping[str, Any]]:
        """The faces that have a score, in order of time."""
        return [face for face in self.faces if face["fake_score"] is not None]

    @property
    def best_face(self) -> Mapping[str, Any]:
        """The face to show for the person: the largest scored one, or the largest where none was scored."""
        return max(self.scored or self.faces, key=lambda face: (float(face["size_px"]), float(face["confidence"])))

    def seen_intervals(self, step_s: float, max_gap_s: float = MAX_GAP_S) -> list[tuple[float, float]]:
        """
        Return the intervals [start, end) in which the person was seen, in media time.

        Args:
            step_s: Duration that one sampled frame represents.
            max_gap_s: Longest gap within an interval.
        """
        spans: list[tuple[float, float]] = []
        for time_s in (float(face["time_s"]) for face in self.faces):
            if spans and time_s - spans[-1][1] <= max_gap_s:
                spans[-1] = (spans[-1][0], time_s + step_s)
            else:
                spans.append((time_s, time_s + step_s))
        return spans


@dataclass(slots=True, eq=False)
class KnownPerson:
    """A person of earlier segments, with the moving average of their look."""

    look: NDArray[np.float32]
    faces: list[Mapping[str, Any]] = field(default_factory=list)
    numbers: dict[int, int] = field(default_factory=dict)
    scored_segments: int = 0

    def add(self, index: int, person: Mapping[str, Any], look: NDArray[np.float32]) -> None:
        """Add what the segment *index* shows of the person."""
        self.faces += person["faces"]
        self.numbers[index] = int(person["person"])
        self.scored_segments += person["fake_score"] is not None
        mixed = (1.0 - LOOK_UPDATE_RATE) * self.look + LOOK_UPDATE_RATE * look
        self.look = np.asarray(mixed / max(float(np.linalg.norm(mixed)), 1e-6), np.float32)


def track_people(segments: Iterable[ScoredSegment], kind: Literal["image", "video"]) -> list[Track]:
    """
    Match the people of different segments.

    Args:
        segments: Segments in order of time.
        kind: The segments of an image are its pages, between which positions of faces are not compared.

    Returns:
        One track per person, in order of their numbers. Two people of one segment are never matched.
    """
    known: list[KnownPerson] = []
    for segment in segments:
        assign_people(known, segment, compare_positions=kind == "video")
    known.sort(key=lambda person: -sum(_area(face) for face in person.faces))
    return [
        Track(number, tuple(person.faces), person.numbers, person.scored_segments)
        for number, person in enumerate(known)
    ]


def assign_people(known: list[KnownPerson], segment: ScoredSegment, *, compare_positions: bool) -> None:
    """
    Match the people of one segment with *known* ones, best match first; people without a match are added.

    Args:
        known: In order of when they were seen last; the order is updated.
    """
    people = [person for person in segment.result.get("people", ()) if person["faces"]]
    looks = [_unpack_person_look(segment, person) for person in people]
    new = set(range(len(people)))
    recent = known[-MAX_COMPARED:]
    similarity = _compute_similarity(recent, people, looks, compare_positions=compare_positions)
    seen: list[KnownPerson] = []
    while similarity.size and similarity.max() >= MIN_LOOK_SIMILARITY:
        row, column = divmod(int(similarity.argmax()), len(people))
        recent[row].add(segment.index, people[column], looks[column])
        seen.append(recent[row])
        new.remove(column)
        similarity[row, :], similarity[:, column] = -1.0, -1.0
    for person in seen:
        known.remove(person)
    for column in sorted(new):
        seen.append(KnownPerson(looks[column]))
        seen[-1].add(segment.index, people[column], looks[column])
    known += seen


def _unpack_person_look(segment: ScoredSegment, person: Mapping[str, Any]) -> NDArray[np.float32]:
    """Return the person's look; zeros, which match nobody, if an earlier release scored the segment."""
    return unpack_look(segment.looks[person["person"]]) if segment.looks else np.zeros(LOOK_SIZE, np.float32)


def _compute_similarity(
    known: Sequence[KnownPerson],
    people: Sequence[Mapping[str, Any]],
    looks: Sequence[NDArray[np.float32]],
    *,
    compare_positions: bool,
) -> NDArray[np.float64]:
    """Return the similarity of each pair, (known, people): of looks and, if *compare_positions*, of positions."""
    similarity = np.zeros((len(known), len(people)))
    if not similarity.size:
        return similarity
    # einsum and not a BLAS product, whose threads wait for each other on a busy machine: the matrices are small.
    similarity += np.einsum("ks,ps->kp", np.stack([one.look for one in known]), np.stack(looks))
    begin_s = min(float(person["faces"][0]["time_s"]) for person in people)
    # Only people seen recently can still be in the same place, and these are at the end.
    for row in range(len(known) - 1, -1, -1) if compare_positions else ():
        last = known[row].faces[-1]
        if begin_s - float(last["time_s"]) > 2.0 * POSITION_MEMORY_S:
            break
        for column, person in enumerate(people):
            first = person["faces"][0]
            elapsed_s = float(first["time_s"]) - float(last["time_s"])
            fading = math.exp(-((elapsed_s / POSITION_MEMORY_S) ** 2))
            similarity[row, column] += POSITION_BONUS * compute_proximity(last["box_px"], first["box_px"]) * fading
    return similarity


def _area(face: Mapping[str, Any]) -> float:
    left, top, right, bottom = (float(edge) for edge in face["box_px"])
    return max(0.0, right - left) * max(0.0, bottom - top)
