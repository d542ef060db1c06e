"""Choosing the people and faces that an explanation shows, and the segments that are decoded again for them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from worker.media.segments import Segment
from worker.pipeline.results import FaceResult, PersonResult

PEOPLE: Final = 10
"""The most people that are explained, the most suspicious ones."""
THUMBNAILS: Final = 6
"""The most faces of a person that are shown over time."""
MAX_SEGMENTS: Final = 30
"""The most segments that are decoded again."""
MAX_MEDIA_S: Final = 150.0
"""The most seconds of media that are decoded again, unless a single segment is longer. Highest faces come first, the
most suspicious ones before others; people and thumbnails that would need further segments are left out."""
MAX_KEPT: Final = 32
"""The most segments of which faces of a person are kept to choose thumbnails from."""


@dataclass(frozen=True, slots=True)
class ChosenFace:
    """A scored face, and the index of its segment."""

    segment: int
    face: FaceResult

    @property
    def score(self) -> float:
        """The score of the face."""
        return self.face.fake_score or 0.0


@dataclass(frozen=True, slots=True)
class ChosenPerson:
    """A person with the faces to be shown."""

    person: int
    highest: ChosenFace
    """The face with the highest score; of equal ones the first."""
    thumbnails: tuple[ChosenFace, ...]
    """In order of time."""


@dataclass(slots=True)
class _Candidates:
    """Faces of one person over time, of every *stride*-th segment with this person, so that their number is bounded."""

    segments: list[list[ChosenFace]] = field(default_factory=list)
    stride: int = 1
    count: int = 0

    def add(self, faces: list[ChosenFace]) -> None:
        """Add the faces of the next segment with this person."""
        if self.count % self.stride == 0:
            self.segments.append(faces)
        self.count += 1
        if len(self.segments) > MAX_KEPT:
            self.segments = self.segments[::2]
            self.stride *= 2

    def faces(self) -> list[ChosenFace]:
        """Return the faces that were kept, in order."""
        return [face for faces in self.segments for face in faces]


@dataclass(slots=True)
class _Decoded:
    """The segments that will be decoded again, in the order in which they were taken."""

    plan: Mapping[int, Segment]
    segments: set[int] = field(default_factory=set)
    seconds: float = 0.0

    def take(self, index: int) -> bool:
        """Take a segment; return False if it would be too much."""
        if index in self.segments:
            return True
        seconds = self.seconds + self.plan[index].end_s - self.plan[index].start_s
        if self.segments and (len(self.segments) >= MAX_SEGMENTS or seconds > MAX_MEDIA_S):
            return False
        self.segments.add(index)
        self.seconds = seconds
        return True


@dataclass(slots=True)
class FaceChoice:
    """
    Collects scored faces segment by segment, and keeps a few of the most suspicious people.

    Memory grows neither with the length of the media nor with the number of people. The same faces give the same
    choice.

    Args:
        people: The most people to choose.
    """

    people: int = PEOPLE
    _highest: dict[int, ChosenFace] = field(default_factory=dict)
    _candidates: dict[int, _Candidates] = field(default_factory=dict)

    def add(self, segment: int, people: Iterable[Mapping[str, Any]]) -> None:
        """
        Add the faces of the next segment.

        Args:
            segment: Its index.
            people: As the segment's result holds them.
        """
        for data in people:
            person = PersonResult.from_json(dict(data))
            scored = [ChosenFace(segment, face) for face in person.faces if face.fake_score is not None]
            if not scored:
                continue
            known = self._highest.get(person.person)
            top = max(scored, key=lambda chosen: chosen.score)
            if known is None or top.score > known.score:
                self._highest[person.person] = top
            # A few of each segment are enough, so that memory does not grow with the rate of sampling.
            self._candidates.setdefault(person.person, _Candidates()).add(_spread(scored, THUMBNAILS))
        if len(self._highest) > 4 * self.people:
            # Those who are left out now can only be chosen for a higher face that is still to come.
            for each in self._rank()[2 * self.people :]:
                del self._highest[each], self._candidates[each]

    def _rank(self) -> list[int]:
        """Return the people by the scores of their highest faces, highest first."""
        return sorted(self._highest, key=lambda person: (-self._highest[person].score, person))

    def choose(self, plan: Mapping[int, Segment]) -> list[ChosenPerson]:
        """
        Return people by the scores of their highest faces, highest first.

        Args:
            plan: The segments that were added, by index. At most ``MAX_SEGMENTS`` and ``MAX_MEDIA_S`` of them are
                chosen from.
        """
        decoded = _Decoded(plan)
        ranked = [person for person in self._rank()[: self.people] if decoded.take(self._highest[person].segment)]
        kept: dict[int, list[ChosenFace]] = {person: [] for person in ranked}
        wanted = {person: _spread_in_time(self._candidates[person].faces(), THUMBNAILS) for person in ranked}
        for place in range(THUMBNAILS):
            for person in ranked:
                if place < len(wanted[person]):
                    chosen = wanted[person][place]
                    if decoded.take(chosen.segment):
                        kept[person].append(chosen)
        return [
            ChosenPerson(person, self._highest[person], tuple(sorted(kept[person], key=lambda one: one.face.time_s)))
            for person in ranked
        ]


def _spread(faces: Sequence[ChosenFace], count: int) -> list[ChosenFace]:
    """Return at most *count* of *faces*, evenly spaced by their number."""
    if len(faces) <= count:
        return list(faces)
    return [faces[round(place * (len(faces) - 1) / (count - 1))] for place in range(count)]


def _spread_in_time(faces: Sequence[ChosenFace], count: int) -> list[ChosenFace]:
    """Return at most *count* of *faces*, evenly spaced in time."""
    left = sorted(faces, key=lambda chosen: chosen.face.time_s)
    if len(left) <= count:
        return left
    first_s, last_s = left[0].face.time_s, left[-1].face.time_s
    found = []
    for place in range(count):
        time_s = first_s + place * (last_s - first_s) / (count - 1)
        nearest = min(left, key=lambda chosen: abs(chosen.face.time_s - time_s))
        left.remove(nearest)
        found.append(nearest)
    return found
