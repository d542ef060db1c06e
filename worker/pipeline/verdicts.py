"""
Verdicts on the people of a medium, each over all the time in which they are seen.

One swapped person makes a medium fake, for however short a time; a mean over a long video would hide a short swap.
Every further person and minute is another chance for a high score at random, so thresholds rise with both.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from statistics import fmean
from typing import Any, Final, Literal

from shared.evidence import Evidence
from shared.manifests import SCORE_DIGITS, Limits, Manifest, Preprocessing
from shared.states import Verdict
from worker.pipeline.results import PersonVerdict, Suspicion
from worker.pipeline.runs import Run, find_runs, has_run
from worker.pipeline.tracking import MAX_GAP_S, Track

MAX_CHANCES_PER_PERSON: Final = 4
"""Stretches of one person are correlated: any number of them counts as at most this many independent chances."""
MAX_CHANCES: Final = 16
"""Limit on the chances that raise thresholds: the tail of real faces' scores is unknown beyond it, and no real person
reached this threshold in 10-minute videos put together from 60 to 120 people."""
MAX_LISTED: Final = 100
"""Most people, and most stretches, that a result lists; a long film of a crowd has thousands."""
MIN_STRETCH_FACES: Final = 4
"""Shortest suspicious stretch for checkpoints whose limits do not depend on how much was seen."""
UNREACHABLE_SCORE: Final = 2.0
"""A threshold that no score reaches."""
VERDICTS_BY_SEVERITY: Final = (Verdict.FAKE, Verdict.INCONCLUSIVE, Verdict.REAL)
"""The worst verdict first."""
MAX_LITTLE_FACES: Final = 2
"""So few scored faces are little evidence, not enough for ``real``, if all of them are poor."""
MIN_TURNED_FACES: Final = 2
"""Number of turned faces of an unscored person in a video that prevents ``real``."""
POOR_SIZE_PX: Final = 62.0
"""The smallest face of the DFDC crops with which checkpoints are evaluated."""
POOR_SHARPNESS: Final = 2.0
"""Multiple of the smallest sharpness that is scored; 2 % of the faces of 116 real clips are below it."""
POOR_LUMA: Final = 30.0
"""Luma in [0, 255]: verdicts on media with a mean below 60 are as good as others, but few are below half of that."""
CHANCES_PER_STRETCH: Final = 2
"""A person can be judged fake as a whole or for a stretch, so each stretch counts as two chances."""
INCONCLUSIVE_SHARE: Final = 1.0 / 8.0
"""A stretch that stands out among this share of the chances is inconclusive: 20 to 40 % of real videos were
inconclusive for that or for their mean (decision 17)."""


@dataclass(frozen=True, slots=True)
class Findings:
    """The verdicts on the people of a medium."""

    people: tuple[PersonVerdict, ...] = ()
    suspicious: tuple[Suspicion, ...] = ()
    is_little: bool = False
    """Whether only one or two small, blurred or dark faces were scored."""
    is_turned: bool = False
    """Whether a person about as large as the scored ones was not scored, being turned beside upright ones."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values, rounded; only the most suspicious people and stretches if there are very many."""
        rank = (*VERDICTS_BY_SEVERITY, None).index
        people = sorted(self.people, key=lambda person: (rank(person.verdict), person.person))[:MAX_LISTED]
        suspicious = sorted(self.suspicious, key=lambda one: -one.fake_score)[:MAX_LISTED]
        return {
            "people_total": len(self.people),
            "people": [one.to_json() for one in sorted(people, key=lambda person: person.person)],
            "suspicious": [one.to_json() for one in sorted(suspicious, key=lambda one: (one.start_s, one.person))],
        }

    @property
    def worst(self) -> Verdict | None:
        """The worst verdict on a person; None if nobody was scored."""
        given = {person.verdict for person in self.people}
        return next((verdict for verdict in VERDICTS_BY_SEVERITY if verdict in given), None)

    @property
    def is_by_stretch(self) -> bool:
        """Whether the worst verdict is that on a person who is judged by a stretch alone."""
        return any(person.verdict == self.worst and person.is_by_stretch for person in self.people)


def judge_people(
    tracks: Sequence[Track], kind: Literal["image", "video"], manifest: Manifest, step_s: float, end_s: float
) -> Findings:
    """
    Judge every person, and find the stretches of time that stand out.

    An image's pages are judged like moments of a video: of several pages with one person, one may be altered.

    Args:
        step_s: Duration that one sampled frame of a video represents.
        end_s: Where the medium ends.
    """
    if kind == "image":
        # A page has no duration, and a person who is on the next page, too, was not absent between them.
        step_s, max_gap_s = 0.0, 1.0
    else:
        max_gap_s = MAX_GAP_S
    thresholds = _Thresholds(tracks, kind, manifest)
    people: list[PersonVerdict] = []
    suspicious: list[Suspicion] = []
    for track in tracks:
        judgement = _judge_track(track, kind, thresholds, is_trained=manifest.trained)
        faces = track.scored
        for run, verdict in judgement.runs:
            run_faces = faces[run.first : run.last + 1]
            suspicious += _make_suspicions(track.person, run_faces, verdict, step_s, end_s, max_gap_s)
        seen = tuple((start, _limit_end(start, end, end_s)) for start, end in track.seen_intervals(step_s, max_gap_s))
        people.append(_make_person_verdict(track, judgement, seen))
    scored_faces = [face for track in tracks if track.scored_segments for face in track.scored]
    is_little = len(scored_faces) <= MAX_LITTLE_FACES and all(
        _is_poor(face, manifest.preprocessing) for face in scored_faces
    )
    largest_px = max((float(face["size_px"]) for face in scored_faces), default=0.0)
    is_turned = any(_is_turned(track, largest_px, 1 if kind == "image" else MIN_TURNED_FACES) for track in tracks)
    suspicious.sort(key=lambda one: (one.start_s, one.person))
    return Findings(tuple(people), tuple(suspicious), is_little, is_turned)


class _Thresholds:
    """The thresholds for the people of one medium; they rise with the number of people and faces."""

    def __init__(self, tracks: Sequence[Track], kind: Literal["image", "video"], manifest: Manifest) -> None:
        scored = [track for track in tracks if track.scored_segments]
        self._kind, self._manifest = kind, manifest
        self._people = float(len(scored))
        self._face_counts = [len(track.scored) for track in scored]
        self.depend_on_evidence = kind in (manifest.calibration.bounds or {})
        """
        Whether the checkpoint's limits depend on how much was seen. If not, a single high score among a thousand would
        count as much as a high mean over all.
        """
        # The same few numbers of faces are looked up again and again.
        self._limits = cache(self._compute_limits)
        self.of_stretch = cache(self._compute_of_stretch)

    def of_mean(self, faces: int) -> Limits:
        """Return the thresholds for the mean over a person's *faces*."""
        people = self._people if self._kind == "image" else min(self._people, MAX_CHANCES)
        high = self._limits(faces, people).high
        return Limits(min(self._limits(faces, self._people).low, high), high)

    def _compute_limits(self, faces: int, people: float) -> Limits:
        return self._manifest.calibration.limits(Evidence(self._kind, faces, people))

    def _compute_of_stretch(self, faces: int, share: float = 1.0) -> float:
        """
        Return the score from which on a stretch of that many *faces* stands out.

        Args:
            share: Share of the chances that it has to stand out among.
        """
        if not self.depend_on_evidence and faces < MIN_STRETCH_FACES:
            return UNREACHABLE_SCORE
        stretches = sum(min(math.ceil(count / faces), MAX_CHANCES_PER_PERSON) for count in self._face_counts)
        chances = min(CHANCES_PER_STRETCH * stretches, MAX_CHANCES)
        return self._limits(faces, max(1.0, chances * share)).high


@dataclass(frozen=True, slots=True)
class _Judgement:
    """The judgement on one person."""

    mean: float | None = None
    verdict: Verdict | None = None
    limits: Limits | None = None
    is_by_stretch: bool = False
    runs: Sequence[tuple[Run, Verdict]] = ()


def _judge_track(
    track: Track, kind: Literal["image", "video"], thresholds: _Thresholds, *, is_trained: bool
) -> _Judgement:
    """Judge a person by the mean over the scored faces and by the stretches that stand out; the worse one counts."""
    scores = [float(face["fake_score"]) for face in track.scored]
    if not scores:
        return _Judgement()
    mean = round(fmean(scores), SCORE_DIGITS)
    if not is_trained:
        return _Judgement(mean, Verdict.INCONCLUSIVE)
    limits = thresholds.of_mean(len(scores))
    by_mean = Verdict.FAKE if mean >= limits.high else Verdict.INCONCLUSIVE if mean >= limits.low else Verdict.REAL
    if kind == "image" and len(scores) == 1:
        return _Judgement(mean, by_mean, limits)
    runs = find_runs(scores, lambda faces: thresholds.of_stretch(faces, INCONCLUSIVE_SHARE))
    is_fake = thresholds.depend_on_evidence and has_run(scores, thresholds.of_stretch)
    by_stretch = Verdict.FAKE if is_fake else Verdict.INCONCLUSIVE if runs else Verdict.REAL
    verdict = min(by_mean, by_stretch, key=VERDICTS_BY_SEVERITY.index)
    is_short = by_mean != Verdict.FAKE and any(2 * run.faces <= len(scores) for run in runs)
    judged = [(run, Verdict.FAKE if _is_fake_run(run, thresholds) else Verdict.INCONCLUSIVE) for run in runs]
    return _Judgement(mean, verdict, limits, is_short or verdict != by_mean, judged)


def _is_fake_run(run: Run, thresholds: _Thresholds) -> bool:
    return thresholds.depend_on_evidence and run.fake_score >= thresholds.of_stretch(run.faces)


def _is_turned(track: Track, largest_px: float, count: int) -> bool:
    """Return whether an unscored person has *count* turned faces, at least half as large as the largest scored one."""
    sizes = [float(face["size_px"]) for face in track.faces if face["problem"] == "face_turned"]
    return not track.scored_segments and len(sizes) >= count and 2.0 * max(sizes) >= largest_px


def _is_poor(face: Mapping[str, Any], preprocessing: Preprocessing) -> bool:
    """Return whether a scored face is smaller, more blurred or darker than those that checkpoints are validated on."""
    luma = face.get("luma")
    return (
        face["size_px"] < POOR_SIZE_PX
        or face["sharpness"] < POOR_SHARPNESS * preprocessing.min_sharpness
        or (luma is not None and luma < POOR_LUMA)
    )


def _make_person_verdict(track: Track, judgement: _Judgement, seen: tuple[tuple[float, float], ...]) -> PersonVerdict:
    face = track.best_face
    return PersonVerdict(
        person=track.person,
        fake_score=judgement.mean,
        verdict=judgement.verdict,
        is_by_stretch=judgement.is_by_stretch,
        limits=judgement.limits,
        faces=len(track.faces),
        faces_scored=len(track.scored),
        seen=seen,
        time_s=float(face["time_s"]),
        box_px=tuple(face["box_px"]),
    )


def _make_suspicions(
    person: int, faces: Sequence[Mapping[str, Any]], verdict: Verdict, step_s: float, end_s: float, max_gap_s: float
) -> Iterator[Suspicion]:
    """Yield a run of a person's *faces* as stretches of time, split where the person is absent."""
    times = [float(face["time_s"]) for face in faces]
    pauses = [row for row in range(1, len(times)) if times[row] - times[row - 1] > max_gap_s]
    for first, beyond in pairwise([0, *pauses, len(times)]):
        yield Suspicion(
            start_s=times[first],
            end_s=_limit_end(times[first], times[beyond - 1] + step_s, end_s),
            person=person,
            fake_score=round(fmean(float(face["fake_score"]) for face in faces[first:beyond]), SCORE_DIGITS),
            faces=beyond - first,
            verdict=verdict,
        )


def _limit_end(start_s: float, end_s: float, medium_end_s: float) -> float:
    """Return *end_s*, at most the end of the medium and at least *start_s*."""
    return max(start_s, min(end_s, medium_end_s))
