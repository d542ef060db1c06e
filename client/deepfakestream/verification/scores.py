"""
Scores of a bundle, computed again from the faces in it, as docs/api.md says that they are made.

A person's score in a segment is the mean over the scored faces, a segment's that of the highest person, and a job's the
mean over its scored segments, with the highest beside it.
"""

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any, Final

from deepfakestream.errors import BundleError

TOLERANCE: Final = 1.5e-6
"""Scores and limits are rounded to six digits."""
PEOPLE_TOLERANCE: Final = 1.5e-3
"""The geometric mean of people is rounded to three digits."""
SUMMARY_FIELDS: Final = (
    *("index", "start_s", "end_s", "status", "fake_score", "reasons", "faces_found", "faces_scored"),
    *("frames_decoded", "engine", "error"),
)
"""Of a segment, which the document of the job repeats for the first of them."""


@dataclass(slots=True)
class _Person:
    """Sums over the faces of one person in all segments."""

    faces: int = 0
    scored: int = 0
    total: float = 0.0
    highest: float = 0.0


@dataclass(slots=True)
class Recomputation:
    """What the segments that were added amount to."""

    job: dict[str, Any]
    """The document of the job."""
    count: int = 0
    faces: int = 0
    segment_scores: list[float | None] = field(default_factory=list)
    engines: Counter[str] = field(default_factory=Counter)
    _scores: list[float] = field(default_factory=list)
    _people: defaultdict[int, _Person] = field(default_factory=lambda: defaultdict(_Person))
    _deciding_faces: tuple[int, int] = (0, 0)
    """Scored faces of the highest people, at least and at most: where two are equally high, either may have decided."""
    _crowds: list[int] = field(default_factory=list)
    """How many people have a score, in each segment where somebody has."""

    def add(self, segment: dict[str, Any]) -> None:
        """
        Check the next segment and count it.

        Raises:
            BundleError: It contradicts itself, or the document of the job.
        """
        where = f"segment {self.count}"
        try:
            self._add(segment, where)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BundleError(f"{where} is not as a service writes segments") from error
        self.count += 1

    def _add(self, segment: dict[str, Any], where: str) -> None:
        if segment["index"] != self.count:
            raise BundleError(f"{where} has the index {segment['index']}")
        listed = self.job["segments"]
        if self.count < len(listed):
            wanted = {name: segment[name] for name in SUMMARY_FIELDS} | {"people": len(segment["people"])}
            if listed[self.count] != wanted:
                raise BundleError(f"{where} is not as job.json says")
        means: list[tuple[float, int]] = []
        found = scored = 0
        for person in segment["people"]:
            scores = [_score(face["fake_score"]) for face in person["faces"] if face["fake_score"] is not None]
            found, scored = found + len(person["faces"]), scored + len(scores)
            _check_mean(person["fake_score"], scores, f"the score of person {person['person']} in {where}")
            if scores:
                means.append((float(person["fake_score"]), len(scores)))
            known = self._people[int(person["person"])]
            known.faces += len(person["faces"])
            known.scored += len(scores)
            known.total += math.fsum(scores)
            known.highest = max(known.highest, *scores, 0.0)
        if (found, scored) != (segment["faces_found"], segment["faces_scored"]):
            raise BundleError(f"the numbers of faces of {where} are not those of its list of faces")
        score = segment["fake_score"]
        self.segment_scores.append(score)
        if (segment["status"] == "scored") != (score is not None) or (score is None) != (not means):
            raise BundleError(f"the status, the score and the faces of {where} contradict each other")
        if score is not None:
            highest = max(mean for mean, _ in means)
            _check_close(score, highest, f"the score of {where}, that of its highest person,")
            self._scores.append(_score(score))
            counts = [count for mean, count in means if mean == highest]
            least, most = self._deciding_faces
            self._deciding_faces = least + min(counts), most + max(counts)
            self._crowds.append(len(means))
        if segment["engine"] is not None:
            self.engines[str(segment["engine"])] += 1
        self.faces += found

    @property
    def highest_scores(self) -> dict[int, float]:
        """The highest score of a face of each person who has a score."""
        return {number: person.highest for number, person in self._people.items() if person.scored}

    def check_job(self) -> None:
        """
        Hold the document of the job against the segments that were added.

        Raises:
            BundleError: It contradicts them.
        """
        job = self.job
        total = job["progress"]["segments_total"]
        if (total or 0) != self.count:
            raise BundleError(f"segments.jsonl has {self.count} segments, and job.json says {total}")
        if len(job["segments"]) > self.count:
            raise BundleError("job.json lists more segments than segments.jsonl has")
        if job["status"] != "succeeded":
            if any(job[name] is not None for name in ("fake_score", "peak_score", "verdict")):
                raise BundleError(f"the job has {job['status']}, and has a verdict all the same")
            return
        _check_mean(job["fake_score"], self._scores, "the score of the job")
        if self._scores:
            _check_close(job["peak_score"], max(self._scores), "the peak of the job")
        elif job["peak_score"] is not None:
            raise BundleError("the job has a peak, and no segment has a score")
        if job["people"] is not None:
            self._check_people(job)
        if job["evidence"] is not None:
            self._check_evidence(job["evidence"], job["model"])
            self._check_verdict()

    def _check_people(self, job: dict[str, Any]) -> None:
        for person in job["people"]:
            self._check_person(person)
        if job["people_total"] != len(self._people):
            raise BundleError(f"the segments have {len(self._people)} people, job.json says {job['people_total']}")

    def _check_person(self, person: dict[str, Any]) -> None:
        number = person["person"]
        known = self._people.get(number)
        if known is None or (known.faces, known.scored) != (person["faces"], person["faces_scored"]):
            raise BundleError(f"the faces of person {number} in the segments are not those that job.json says")
        if (person["fake_score"] is None) != (known.scored == 0):
            raise BundleError(f"person {number} has a score without scored faces, or none with them")
        if known.scored:
            _check_close(person["fake_score"], known.total / known.scored, f"the score of person {number}")

    def _check_evidence(self, evidence: dict[str, Any], model: dict[str, Any]) -> None:
        least, most = self._deciding_faces
        if not least <= evidence["faces"] <= most:
            raise BundleError(f"the verdict rests on {most} faces, job.json says {evidence['faces']}")
        people = math.exp(math.fsum(map(math.log, self._crowds)) / len(self._crowds)) if self._crowds else 0.0
        if abs(people - _number(evidence["people"])) > PEOPLE_TOLERANCE:
            raise BundleError(f"a segment has {people:.3f} people, job.json says {evidence['people']}")
        if not self._scores:
            return
        bounds = (model.get("bounds") or {}).get(evidence["kind"])
        if bounds is None:
            low, high = model["uncertainty_band"]
        else:
            high = _bound(bounds["high"], evidence)
            low = min(_bound(bounds["low"], evidence), high)
        _check_close(evidence["real_below"], low, "the limit of real")
        _check_close(evidence["fake_from"], high, "the limit of fake")

    def _check_verdict(self) -> None:
        """Hold the verdict against the score, the limits and the people, as far as these decide it."""
        job = self.job
        verdict, score = job["verdict"], job["fake_score"]
        if score is None:
            if verdict not in ("not_applicable", "inconclusive"):
                raise BundleError(f"the verdict is {verdict} without a score")
            return
        if not job["model"]["trained"]:
            if verdict != "inconclusive":
                raise BundleError(f"the verdict of an untrained checkpoint is {verdict}")
            return
        of_people = {person["verdict"] for person in job["people"] or ()}
        is_fake = score >= job["evidence"]["fake_from"] or "fake" in of_people
        if (verdict == "fake") != is_fake:
            raise BundleError(f"the verdict is {verdict}, and the scores with their limits give another")
        is_doubtful = score >= job["evidence"]["real_below"] or "inconclusive" in of_people or bool(job["reasons"])
        if verdict == "real" and is_doubtful:
            raise BundleError("the verdict is real, and a score, a person or a reason speaks against it")


def _bound(bound: dict[str, Any], evidence: dict[str, Any]) -> float:
    """A limit that moves with the evidence; see "Calibration of the checkpoint" in docs/api.md."""
    faces, people = max(1, evidence["faces"]), max(1.0, evidence["people"])
    doubling = _number(bound.get("doubling", 0.0))
    doubling_many = bound.get("doubling_many")
    many = doubling if doubling_many is None else _number(doubling_many)
    step = many + (doubling - many) / faces
    odds = _number(bound["many"]) + (_number(bound["one"]) - _number(bound["many"])) / faces + step * math.log2(people)
    return 0.5 + 0.5 * math.tanh(0.5 * odds)


def _check_mean(stated: Any, scores: list[float], what: str) -> None:
    if not scores:
        if stated is not None:
            raise BundleError(f"{what} is {stated}, and nothing has a score that it could be made of")
        return
    _check_close(stated, math.fsum(scores) / len(scores), f"{what}, a mean,")


def _check_close(stated: Any, computed: float, what: str) -> None:
    if stated is None or abs(_number(stated) - computed) > TOLERANCE:
        raise BundleError(f"{what} is {computed:.6f}, and the bundle says {stated}")


def _score(value: Any) -> float:
    if not 0.0 <= _number(value) <= 1.0:
        raise ValueError(f"{value} is no score")
    return float(value)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is no number")
    return float(value)
