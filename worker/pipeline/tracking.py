"""
Following people over a whole medium: segments are scored one by one, and each numbers its people for itself.

A person of one segment is taken for one of an earlier segment if they look alike, or a little less alike where the
face is in the same place a moment later. Whom a cut shows from another side may be counted again.
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
"""Somebody who is not found for longer than this is said to be away meanwhile."""
MAX_COMPARED: Final = 500
"""People who were seen last, among whom somebody in a segment is looked for: a film of a crowd has thousands."""
LOOK_UPDATE_RATE: Final = 0.3
"""How much of a person's look is renewed in each further segment."""


@dataclass(frozen=True, slots=True)
class ScoredSegment:
    """A segment that was looked at."""

    index: int
    result: Mapping[str, Any]
    """As ``SegmentResult.to_json`` gives it."""
    looks: Sequence[str] | None
    """Of its people, by number; None where a release from before scored it."""


@dataclass(frozen=True, slots=True)
class Track:
    """One person over the whole medium."""

    person: int
    """0 for the one with the most face area in all, then counting up."""
    faces: tuple[Mapping[str, Any], ...]
    """In order of time, as ``FaceResult.to_json`` gives each."""
    numbers: Mapping[int, int]
    """The person's number in each segment, by the segment's index."""
    scored_segments: int
    """Those with a scored face of the person."""

    @property
    def scored(self) -> list[Mapping[str, Any]]:
        """The faces that have a score, in order of time."""
        return [face for face in self.faces if face["fake_score"] is not None]

    @property
    def best_face(self) -> Mapping[str, Any]:
        """The face to show for the person: the largest scored one, or the largest where none was scored."""
        return max(self.scored or self.faces, key=lambda face: (float(face["size_px"]), float(face["confidence"])))

    def seen(self, step_s: float, max_gap_s: float = MAX_GAP_S) -> list[tuple[float, float]]:
        """
        When the person was seen: [start, end) in seconds of the medium.

        Args:
            step_s: What one sampled frame stands for.
            max_gap_s: How long the person may be missing without being away.
        """
        spans: list[tuple[float, float]] = []
        for time_s in (float(face["time_s"]) for face in self.faces):
            if spans and time_s - spans[-1][1] <= max_gap_s:
                spans[-1] = (spans[-1][0], time_s + step_s)
            else:
                spans.append((time_s, time_s + step_s))
        return spans


@dataclass(slots=True, eq=False)
class _KnownPerson:
    look: NDArray[np.float32]
    faces: list[Mapping[str, Any]] = field(default_factory=list)
    numbers: dict[int, int] = field(default_factory=dict)
    scored_segments: int = 0

    def add(self, index: int, person: Mapping[str, Any], look: NDArray[np.float32]) -> None:
        self.faces += person["faces"]
        self.numbers[index] = int(person["person"])
        self.scored_segments += person["fake_score"] is not None
        mixed = (1.0 - LOOK_UPDATE_RATE) * self.look + LOOK_UPDATE_RATE * look
        self.look = np.asarray(mixed / max(float(np.linalg.norm(mixed)), 1e-6), np.float32)


def track_people(parts: Iterable[ScoredSegment], kind: Literal["image", "video"]) -> list[Track]:
    """
    Say which people of different segments are the same.

    Args:
        parts: In order of time.
        kind: The segments of an image are its pages: where a face is on one says nothing of those on another.

    Returns:
        In order of their numbers. Two people of one segment are never the same.
    """
    known: list[_KnownPerson] = []
    for part in parts:
        _assign(known, part, is_in_time=kind == "video")
    known.sort(key=lambda person: -sum(_area(face) for face in person.faces))
    return [
        Track(number, tuple(person.faces), person.numbers, person.scored_segments)
        for number, person in enumerate(known)
    ]


def _assign(known: list[_KnownPerson], part: ScoredSegment, *, is_in_time: bool) -> None:
    """
    Give the people of one segment to those known from earlier ones, best match first; the rest are new.

    Args:
        known: In the order in which they were seen last, and so left behind.
    """
    people = [person for person in part.result.get("people", ()) if person["faces"]]
    looks = [_unpack_person_look(part, person) for person in people]
    new = set(range(len(people)))
    recent = known[-MAX_COMPARED:]
    likeness = _compute_similarity(recent, people, looks, is_in_time=is_in_time)
    seen: list[_KnownPerson] = []
    while likeness.size and likeness.max() >= MIN_LOOK_SIMILARITY:
        row, column = divmod(int(likeness.argmax()), len(people))
        recent[row].add(part.index, people[column], looks[column])
        seen.append(recent[row])
        new.remove(column)
        likeness[row, :], likeness[:, column] = -1.0, -1.0
    for one in seen:
        known.remove(one)
    for column in sorted(new):
        seen.append(_KnownPerson(looks[column]))
        seen[-1].add(part.index, people[column], looks[column])
    known += seen


def _unpack_person_look(part: ScoredSegment, person: Mapping[str, Any]) -> NDArray[np.float32]:
    """What a person looks like; like nobody if a release from before scored the segment."""
    return unpack_look(part.looks[person["person"]]) if part.looks else np.zeros(LOOK_SIZE, np.float32)


def _compute_similarity(
    known: Sequence[_KnownPerson],
    people: Sequence[Mapping[str, Any]],
    looks: Sequence[NDArray[np.float32]],
    *,
    is_in_time: bool,
) -> NDArray[np.float64]:
    """(known, people) likeness of each pair: by looks and, *is_in_time*, by place."""
    likeness = np.zeros((len(known), len(people)))
    if not likeness.size:
        return likeness
    # Without BLAS, whose threads wait for each other on a busy machine, for some thousand multiplications.
    likeness += np.einsum("ks,ps->kp", np.stack([one.look for one in known]), np.stack(looks))
    begin_s = min(float(person["faces"][0]["time_s"]) for person in people)
    # Those who were seen last stand last, and only they can be in the same place still.
    for row in range(len(known) - 1, -1, -1) if is_in_time else ():
        last = known[row].faces[-1]
        if begin_s - float(last["time_s"]) > 2.0 * POSITION_MEMORY_S:
            break
        for column, person in enumerate(people):
            first = person["faces"][0]
            max_gap_s = float(first["time_s"]) - float(last["time_s"])
            fading = math.exp(-((max_gap_s / POSITION_MEMORY_S) ** 2))
            likeness[row, column] += POSITION_BONUS * compute_proximity(last["box_px"], first["box_px"]) * fading
    return likeness


def _area(face: Mapping[str, Any]) -> float:
    left, top, right, bottom = (float(edge) for edge in face["box_px"])
    return max(0.0, right - left) * max(0.0, bottom - top)
