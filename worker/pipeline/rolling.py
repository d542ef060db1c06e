"""
The rolling verdict on a live stream: who is suspicious now, and alerts that are raised and cleared.

People are followed over segments as in stored media (``tracking``). A person is judged by the faces of the last half
minute: the mean over the newest segments, over one of them, two, and so on, is compared with the limit of the
checkpoint for so many faces. A swap that has just begun does not have to outweigh what was seen before it, and fewer
faces need a higher score. The state is plain JSON, so that another reader can go on.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Final, Literal, Self

from shared.evidence import Evidence
from shared.manifests import SCORE_DIGITS, Limits, Manifest
from shared.states import Verdict
from worker.detection.people import pack_look, unpack_look
from worker.pipeline.tracking import KnownPerson, ScoredSegment, assign_people
from worker.pipeline.verdicts import MAX_CHANCES, MAX_CHANCES_PER_PERSON, MIN_STRETCH_FACES

MIN_ALERT_PAUSE_S: Final = 60.0
"""The least time between two alerts about one person."""
MEMORY_S: Final = 300.0
"""How long a person who is not seen is remembered."""
MAX_PEOPLE: Final = 100
"""How many of the most recently seen people are remembered."""
CLEARING_SEGMENTS: Final = 2
"""An alert is cleared by the mean over so many of the newest segments in which the person was scored."""


@dataclass(frozen=True, slots=True)
class Alert:
    """A change of a person's state."""

    action: Literal["raised", "cleared"]
    person: int
    time_s: float
    """End of the segment that caused it, in the time of the stream."""
    start_s: float
    """Where the faces begin that caused it."""
    fake_score: float | None
    """The mean over them; None if the person has gone."""
    faces: int
    limit: float
    """What the mean was compared with."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values, rounded."""
        return {
            "action": self.action,
            "person": self.person,
            "time_s": round(self.time_s, 4),
            "start_s": round(self.start_s, 4),
            "fake_score": self.fake_score,
            "faces": self.faces,
            "limit": self.limit,
        }


@dataclass(slots=True)
class _Scores:
    """The scores of a person's faces in one segment."""

    index: int
    start_s: float
    end_s: float
    values: list[float]


@dataclass(slots=True)
class _Person:
    """A person of the stream."""

    number: int
    known: KnownPerson
    recent: list[_Scores] = field(default_factory=list)
    """Of the segments of the window in which the person was scored, in order."""
    seen_s: float = 0.0
    """End of the last segment in which the person was seen."""
    raised_s: float | None = None
    """When the last alert was raised, in the time of the stream."""
    is_raised: bool = False
    is_held_back: bool = False
    """Whether the newest faces would raise an alert, if there had been none in the last minute. Not kept."""

    @property
    def mean(self) -> float | None:
        """The mean over the scores of the window; None without any."""
        values = [value for scores in self.recent for value in scores.values]
        return round(fmean(values), SCORE_DIGITS) if values else None

    @property
    def face_count(self) -> int:
        """The number of scores of the window."""
        return sum(len(scores.values) for scores in self.recent)


class RollingVerdict:
    """
    The rolling verdict on one stream.

    Args:
        manifest: The stream's checkpoint. One that is not trained raises no alerts.
        window_s: The time over which people are judged.
        threshold: The mean score from which on there is an alert, instead of the limits of the checkpoint.
    """

    def __init__(self, manifest: Manifest, *, window_s: float, threshold: float | None = None) -> None:
        self._manifest, self._window_s, self._threshold = manifest, window_s, threshold
        self._known: list[KnownPerson] = []
        self._people: dict[int, _Person] = {}
        """People by the identity of what is known of their look."""
        self._next_number = 0
        self.judged = -1
        """Index of the last segment that was added."""
        self.numbers: dict[int, int] = {}
        """The people of that segment: number in the stream by number within the segment."""

    def add(self, segment: ScoredSegment, start_s: float, end_s: float) -> list[Alert]:
        """
        Add the next segment, and return the alerts that it raises and clears.

        Args:
            segment: A segment that is done, with faces or without.
            start_s: Where it begins, in the time of the stream.
            end_s: Where it ends.
        """
        self.judged = segment.index
        assign_people(self._known, segment, compare_positions=True)
        self.numbers = {}
        results = {person["person"]: person for person in segment.result.get("people", ())}
        for known in self._known:
            person = self._people.get(id(known))
            if person is None:
                person = self._people[id(known)] = _Person(self._next_number, known)
                self._next_number += 1
            within = known.numbers.get(segment.index)
            # Only the last face is needed, to find the person in the same place of the next segment.
            known.faces, known.numbers = known.faces[-1:], {}
            if within is not None:
                person.seen_s = end_s
                self.numbers[within] = person.number
                faces = results[within]["faces"]
                values = [float(face["fake_score"]) for face in faces if face["fake_score"] is not None]
                if values:
                    person.recent.append(_Scores(segment.index, start_s, end_s, values))
            person.recent = [scores for scores in person.recent if scores.end_s > end_s - self._window_s]
        alerts = [alert for person in self._in_order() if (alert := self._judge(person, end_s)) is not None]
        self._forget(end_s)
        return alerts

    def describe(self) -> list[dict[str, Any]]:
        """Return the people of the window, and those with an alert, in order of their numbers."""
        return [self._describe(person) for person in self._in_order() if person.recent or person.is_raised]

    def describe_newest(self) -> list[dict[str, Any]]:
        """Return the people who were scored in the segment that was added last, with the mean of their faces in it."""
        newest = [
            (person, person.recent[-1].values)
            for person in self._in_order()
            if person.recent and person.recent[-1].index == self.judged
        ]
        return [
            {
                "person": person.number,
                "fake_score": round(fmean(values), SCORE_DIGITS),
                "faces": len(values),
                "rolling_score": person.mean,
                "fake_from": self._window_limits(person).high,
            }
            for person, values in newest
        ]

    def _describe(self, person: _Person) -> dict[str, Any]:
        mean, limits = person.mean, self._window_limits(person)
        return {
            "person": person.number,
            "fake_score": mean,
            "faces": person.face_count,
            "verdict": self._name_verdict(mean, limits),
            "real_below": limits.low,
            "fake_from": limits.high,
            "is_alerting": person.is_raised,
            "is_held_back": person.is_held_back,
            "raised_s": person.raised_s,
            "seen_s": round(person.seen_s, 4),
            # Faces have no pictures here; the reader knows of those that are kept.
            "face_s": None,
        }

    def _name_verdict(self, mean: float | None, limits: Limits) -> Verdict | None:
        """Return what the mean over the window says, as of a person in stored media."""
        if mean is None:
            return None
        if not self._manifest.trained:
            return Verdict.INCONCLUSIVE
        return Verdict.FAKE if mean >= limits.high else Verdict.INCONCLUSIVE if mean >= limits.low else Verdict.REAL

    @property
    def is_alerting(self) -> bool:
        """Whether an alert about anybody is raised."""
        return any(person.is_raised for person in self._people.values())

    def to_json(self) -> dict[str, Any]:
        """Return the whole state as plain values."""
        return {
            "judged": self.judged,
            "next_number": self._next_number,
            "people": [_write_person(self._people[id(known)]) for known in self._known],
        }

    @classmethod
    def from_json(
        cls, data: Mapping[str, Any] | None, manifest: Manifest, *, window_s: float, threshold: float | None = None
    ) -> Self:
        """Go on with the state that ``to_json`` wrote; begin with None."""
        verdict = cls(manifest, window_s=window_s, threshold=threshold)
        if data is not None:
            verdict.judged, verdict._next_number = data["judged"], data["next_number"]
            for row in data["people"]:
                person = _read_person(row)
                verdict._known.append(person.known)
                verdict._people[id(person.known)] = person
        return verdict

    def _in_order(self) -> list[_Person]:
        return sorted(self._people.values(), key=lambda person: person.number)

    def _judge(self, person: _Person, now_s: float) -> Alert | None:
        person.is_held_back = False
        if not self._manifest.trained:
            return None
        if person.is_raised:
            return self._clear(person, now_s)
        alert = self._find_alert(person, now_s)
        if alert is not None and person.raised_s is not None and now_s - person.raised_s < MIN_ALERT_PAUSE_S:
            # Not by what is in the window still of a swap whose alert has just been cleared.
            person.is_held_back = self._find_clearing(person, now_s) is None
            return None
        if alert is not None:
            person.is_raised, person.raised_s = True, now_s
        return alert

    def _find_alert(self, person: _Person, now_s: float) -> Alert | None:
        """Return the alert that the newest faces of a person deserve."""
        if not person.recent or person.recent[-1].end_s < now_s:
            return None
        for newest in range(1, len(person.recent) + 1):
            stretch = person.recent[-newest:]
            values = [value for scores in stretch for value in scores.values]
            # Unlike in stored media, the stretches are not counted as further chances: they overlap and end together,
            # and that they are tried raised no further alert about real people (docs/streams.md).
            mean, limit = round(fmean(values), SCORE_DIGITS), self._limits(len(values), 1).high
            if mean >= limit and (len(values) >= MIN_STRETCH_FACES or self._depends_on_evidence):
                return Alert("raised", person.number, now_s, stretch[0].start_s, mean, len(values), limit)
        return None

    def _clear(self, person: _Person, now_s: float) -> Alert | None:
        alert = self._find_clearing(person, now_s)
        if alert is not None:
            person.is_raised = False
        return alert

    def _find_clearing(self, person: _Person, now_s: float) -> Alert | None:
        """Return what clears an alert about a person, if the newest faces do."""
        if not person.recent:
            return Alert("cleared", person.number, now_s, person.seen_s, None, 0, self._limits(1, 1).high)
        stretch = person.recent[-CLEARING_SEGMENTS:]
        values = [value for scores in stretch for value in scores.values]
        limits = self._limits(len(values), len(person.recent))
        # Half-way between real and fake, so that a score near the limit does not raise and clear in turn; and not above
        # what the whole window raises it by, which is lower than what half-way is for the few faces of short segments.
        half_way = min((limits.low + limits.high) / 2, self._window_limits(person).high)
        mean, limit = round(fmean(values), SCORE_DIGITS), round(half_way, SCORE_DIGITS)
        if mean >= limit or len(stretch) < min(CLEARING_SEGMENTS, len(person.recent)):
            return None
        return Alert("cleared", person.number, now_s, stretch[0].start_s, mean, len(values), limit)

    @property
    def _depends_on_evidence(self) -> bool:
        return self._threshold is None and "video" in (self._manifest.calibration.bounds or {})

    def _window_limits(self, person: _Person) -> Limits:
        """Return the limits for the mean over the whole window of a person."""
        return self._limits(max(1, person.face_count), 1)

    def _limits(self, faces: int, stretches: int) -> Limits:
        """Return the limits for a mean over *faces*, one of several *stretches* that are tried for each person."""
        people = sum(bool(person.recent) for person in self._people.values())
        chances = max(1, min(people * min(stretches, MAX_CHANCES_PER_PERSON), MAX_CHANCES))
        limits = self._manifest.calibration.limits(Evidence("video", faces, chances))
        if self._threshold is None:
            return limits
        return Limits(min(limits.low, self._threshold), self._threshold)

    def _forget(self, now_s: float) -> None:
        """Forget people who have not been seen for long, and those beyond the limit; never one with an alert."""
        kept = [
            known
            for place, known in enumerate(reversed(self._known))
            if self._people[id(known)].is_raised
            or (place < MAX_PEOPLE and now_s - self._people[id(known)].seen_s <= MEMORY_S)
        ]
        kept.reverse()
        self._people = {id(known): self._people[id(known)] for known in kept}
        self._known = kept


def _write_person(person: _Person) -> dict[str, Any]:
    return {
        "number": person.number,
        "look": pack_look(person.known.look),
        "faces": [{"time_s": face["time_s"], "box_px": face["box_px"]} for face in person.known.faces],
        "recent": [[scores.index, scores.start_s, scores.end_s, scores.values] for scores in person.recent],
        "seen_s": person.seen_s,
        "raised_s": person.raised_s,
        "is_raised": person.is_raised,
    }


def _read_person(row: Mapping[str, Any]) -> _Person:
    known = KnownPerson(unpack_look(row["look"]), faces=list(row["faces"]))
    recent = [_Scores(*scores) for scores in row["recent"]]
    return _Person(row["number"], known, recent, row["seen_s"], row["raised_s"], row["is_raised"])
