"""
Judging the people of a medium, each over all the time that they are seen.

One swapped person is enough to make a medium fake, for however short a time: in an average over a long video a short
swap is lost. Every further person and every further minute is another opportunity for chance, so limits rise with both.
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
from worker.pipeline.runs import find_runs, has_run
from worker.pipeline.tracking import MAX_GAP_S, Track

MAX_CHANCES_PER_PERSON: Final = 4
"""Stretches of one person resemble each other: their highest is as that of so many strangers, however many they are."""
MAX_CHANCES: Final = 16
"""Chances beyond so many are not counted: the tail of real faces is not known further out, and in videos of 10 minutes
that were put together from 60 to 120 people no real one reached this bound."""
MAX_LISTED: Final = 100
"""Of people, and of stretches, that a result names; a long film of a crowd has thousands."""
MIN_STRETCH_FACES: Final = 4
"""Faces that cast doubt together where a checkpoint's limits do not know how much was seen."""
UNREACHABLE_SCORE: Final = 2.0
"""A bound that no score reaches."""
VERDICTS_BY_SEVERITY: Final = (Verdict.FAKE, Verdict.INCONCLUSIVE, Verdict.REAL)
"""The worst first."""
FEW: Final = 2
"""Faces that are not enough for ``real`` if all of them are poor, or that tell of somebody turned."""
POOR_SIZE_PX: Final = 62.0
"""The smallest face of the DFDC crops that checkpoints are judged by."""
POOR_SHARPNESS: Final = 2.0
"""In multiples of the least that is scored at all: 2 % of the faces of 116 real clips lie below."""
POOR_LUMA: Final = 30.0
"""Of 255; media of a mean below 60 are judged as well as others, and those below half of that are hardly any."""
CHANCES_PER_STRETCH: Final = 2
"""A person can be called fake as a whole or for a stretch, so that stretches have twice the chances."""
DOUBTFUL: Final = 8
"""A stretch that would stand out among an eighth of the chances is not enough for ``fake``, and too much for ``real``:
20 to 40 % of real videos were neither real nor fake for that or for their mean (decision 17)."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What the people of a medium amount to."""

    people: tuple[PersonVerdict, ...] = ()
    suspicious: tuple[Suspicion, ...] = ()
    is_little: bool = False
    """All that was scored are one or two small, soft or dark faces."""
    is_turned: bool = False
    """Somebody is seen as large as those who were scored, and was not scored for standing turned beside them."""

    def to_json(self) -> dict[str, Any]:
        """Plain values, rounded; of very many people and stretches the most suspicious ones."""
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
        """Whether some person is not called real because of a stretch alone."""
        return any(person.verdict == self.worst and person.is_by_stretch for person in self.people)


def judge_people(
    tracks: Sequence[Track], kind: Literal["image", "video"], manifest: Manifest, step_s: float, end_s: float
) -> Findings:
    """
    Judge every person, and find the stretches of time that stand out.

    Args:
        step_s: What one sampled frame of a video stands for, in seconds.
        end_s: Where the medium ends.

    An image's pages are judged like moments of a video: of several pages with one person, one may be altered.
    """
    if kind == "image":
        # A page stands for itself, and a person who is on the next one as well was not away.
        step_s, max_gap_s = 0.0, 1.0
    else:
        max_gap_s = MAX_GAP_S
    scored = [track for track in tracks if track.scored_segments]
    counted = float(len(scored))
    counts = [len(track.scored) for track in scored]

    # The same few numbers of faces are asked for again and again.
    @cache
    def limits(faces: int, people: float) -> Limits:
        return manifest.calibration.limits(Evidence(kind, faces, people))

    # Where limits do not know how much was seen, one face of a thousand would be as good as all of them.
    knows_evidence = kind in (manifest.calibration.bounds or {})

    @cache
    def bound(faces: int, share: float = 1.0) -> float:
        """From where on a stretch of so many faces stands out among a share of the chances that there are."""
        chances = min(
            CHANCES_PER_STRETCH * sum(min(math.ceil(count / faces), MAX_CHANCES_PER_PERSON) for count in counts),
            MAX_CHANCES,
        )
        return (
            limits(faces, max(1.0, chances * share)).high
            if knows_evidence or faces >= MIN_STRETCH_FACES
            else UNREACHABLE_SCORE
        )

    people: list[PersonVerdict] = []
    suspicious: list[Suspicion] = []
    for track in tracks:
        faces = track.scored
        scores = [float(face["fake_score"]) for face in faces]
        verdict, by_itself, own, is_short = None, None, None, False
        mean = round(fmean(scores), SCORE_DIGITS) if scores else None
        if mean is not None and not manifest.trained:
            verdict = by_itself = Verdict.INCONCLUSIVE
        elif mean is not None:
            high = limits(len(scores), counted if kind == "image" else min(counted, MAX_CHANCES)).high
            own = Limits(min(limits(len(scores), counted).low, high), high)
            verdict = by_itself = (
                Verdict.FAKE if mean >= own.high else Verdict.INCONCLUSIVE if mean >= own.low else Verdict.REAL
            )
            if kind == "video" or len(scores) > 1:
                doubtful = find_runs(scores, lambda faces: bound(faces, 1.0 / DOUBTFUL))
                beyond = knows_evidence and has_run(scores, bound)
                by_stretch = Verdict.FAKE if beyond else Verdict.INCONCLUSIVE if doubtful else Verdict.REAL
                verdict = min(by_itself, by_stretch, key=VERDICTS_BY_SEVERITY.index)
                is_short = by_itself != Verdict.FAKE and any(2 * run.faces <= len(scores) for run in doubtful)
                for run in doubtful:
                    called = (
                        Verdict.FAKE if knows_evidence and run.fake_score >= bound(run.faces) else Verdict.INCONCLUSIVE
                    )
                    suspicious += _make_suspicions(
                        track.person, faces[run.first : run.last + 1], called, step_s, end_s, max_gap_s
                    )
        seen = tuple((start, _limit_end(start, end, end_s)) for start, end in track.seen(step_s, max_gap_s))
        people.append(_person(track, mean, verdict, own, seen, is_by_stretch=is_short or verdict != by_itself))
    looked_at = [face for track in scored for face in track.scored]
    is_little = len(looked_at) <= FEW and all(_is_poor(face, manifest.preprocessing) for face in looked_at)
    largest_px = max((float(face["size_px"]) for face in looked_at), default=0.0)
    is_turned = any(_is_turned(track, largest_px, 1 if kind == "image" else FEW) for track in tracks)
    suspicious.sort(key=lambda one: (one.start_s, one.person))
    return Findings(tuple(people), tuple(suspicious), is_little, is_turned)


def _is_turned(track: Track, largest_px: float, count: int) -> bool:
    """Whether a person who was not scored has that many turned faces, half as large as the largest scored one."""
    sizes = [float(face["size_px"]) for face in track.faces if face["problem"] == "face_turned"]
    return not track.scored_segments and len(sizes) >= count and 2.0 * max(sizes) >= largest_px


def _is_poor(face: Mapping[str, Any], preprocessing: Preprocessing) -> bool:
    """Whether a face was scored, but is smaller, softer or darker than what checkpoints are validated on."""
    luma = face.get("luma")
    return (
        face["size_px"] < POOR_SIZE_PX
        or face["sharpness"] < POOR_SHARPNESS * preprocessing.min_sharpness
        or (luma is not None and luma < POOR_LUMA)
    )


def _person(
    track: Track,
    mean: float | None,
    verdict: Verdict | None,
    limits: Limits | None,
    seen: tuple[tuple[float, float], ...],
    *,
    is_by_stretch: bool,
) -> PersonVerdict:
    face = track.best_face
    return PersonVerdict(
        person=track.person,
        fake_score=mean,
        verdict=verdict,
        is_by_stretch=is_by_stretch,
        limits=limits,
        faces=len(track.faces),
        faces_scored=len(track.scored),
        seen=seen,
        time_s=float(face["time_s"]),
        box_px=tuple(face["box_px"]),
    )


def _make_suspicions(
    person: int, faces: Sequence[Mapping[str, Any]], verdict: Verdict, step_s: float, end_s: float, max_gap_s: float
) -> Iterator[Suspicion]:
    """A run of a person's *faces* as stretches of time: it may go on after a while in which the person is away."""
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


def _limit_end(start_s: float, end_s: float, most_s: float) -> float:
    """The end of a stretch, not beyond that of its medium."""
    return max(start_s, min(end_s, most_s))
