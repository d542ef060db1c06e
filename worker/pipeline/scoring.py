"""
From face scores to a verdict. Pure arithmetic: no torch, no database.

Person: the mean over that person's faces. Segment: the highest person, because one swapped face makes the segment
fake. Job: the mean over scored segments, with the peak beside it. What cannot be scored has no score, never 0.5.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from shared.evidence import Evidence
from shared.manifests import SCORE_DIGITS, Limits, Manifest
from worker.pipeline.results import FaceResult, JobResult, PersonResult, SegmentResult

REASON_OF_PROBLEM = {"face_too_small": "faces_too_small", "face_too_blurred": "faces_too_blurred"}
NO_FACE = "no_face"


def score_segment(
    faces: Sequence[FaceResult], people: Sequence[int], frames_decoded: int, engine: str | None = None
) -> SegmentResult:
    """
    Put the faces of a segment together.

    Args:
        faces: In order of time.
        people: The person of each face.
        engine: What ran the network, and in which precision.
    """
    groups: dict[int, list[FaceResult]] = {}
    for face, person in zip(faces, people, strict=True):
        groups.setdefault(person, []).append(face)
    results = tuple(
        PersonResult(person, _mean([face.fake_score for face in group]), tuple(group))
        for person, group in sorted(groups.items())
    )
    scores = [person.fake_score for person in results if person.fake_score is not None]
    return SegmentResult(
        fake_score=max(scores, default=None),
        reasons=() if scores else _why_unscorable(faces),
        frames_decoded=frames_decoded,
        faces_found=len(faces),
        faces_scored=sum(face.fake_score is not None for face in faces),
        people=results,
        engine=engine,
    )


def score_job(
    segments: Sequence[tuple[float | None, Sequence[str]]],
    failed_segments: int,
    manifest: Manifest,
    evidence: Evidence,
    *,
    is_truncated: bool = False,
) -> JobResult:
    """
    Judge a job.

    Args:
        segments: Score and reasons of every segment that was looked at.
        failed_segments: How many could not be looked at, for instance because they do not decode.
        evidence: What the segments' scores were made from.
        is_truncated: Part of the file is missing or damaged.

    Returns:
        ``real`` only if every segment was looked at and nothing is missing: a swap could hide in the rest.
    """
    scores = [score for score, _ in segments if score is not None]
    missing = {"segments_failed": failed_segments > 0, "truncated": is_truncated}
    reasons = [reason for reason, is_so in missing.items() if is_so]
    if not scores:
        found = sorted({reason for _, given in segments for reason in given} - {NO_FACE})
        if found:
            return JobResult(None, None, "inconclusive", (*found, *reasons))
        if reasons:
            return JobResult(None, None, "inconclusive", (NO_FACE, *reasons))
        return JobResult(None, None, "not_applicable", (NO_FACE,))
    mean = _mean(scores)
    limits = manifest.calibration.limits(evidence)
    verdict = _verdict(mean if mean is not None else 0.0, limits, manifest, evidence, reasons)
    return JobResult(mean, max(scores), verdict, tuple(reasons), limits)


def _verdict(score: float, limits: Limits, manifest: Manifest, evidence: Evidence, reasons: list[str]) -> str:
    """The verdict for a job's score; adds its reasons to *reasons*."""
    if not manifest.trained:
        reasons.insert(0, "untrained_model")
        return "inconclusive"
    # Half-open like every interval here, so that a band of no width leaves no score undecided.
    if score >= limits.high:
        return "fake"
    if manifest.calibration.is_heavily_compressed(evidence):
        reasons.insert(0, "heavily_compressed")
    if score >= limits.low:
        reasons.insert(0, "uncertain")
    return "inconclusive" if reasons else "real"


def gather_evidence(
    segments: Iterable[Mapping[str, Any]], kind: Literal["image", "video"], bits_per_pixel: float | None = None
) -> Evidence:
    """
    What a job's score is made from.

    Args:
        segments: Results of its segments, as ``SegmentResult.to_json`` gives them.
        bits_per_pixel: Of the video, by ``shared.evidence.bits_per_pixel``.
    """
    faces, most_people = 0, 0
    for segment in segments:
        people = [person for person in segment.get("people", ()) if person["fake_score"] is not None]
        most_people = max(most_people, len(people))
        if people:
            highest = max(people, key=lambda person: float(person["fake_score"]))
            faces += sum(face["fake_score"] is not None for face in highest["faces"])
    return Evidence(kind, faces, most_people, bits_per_pixel)


def _mean(scores: Sequence[float | None]) -> float | None:
    known = [score for score in scores if score is not None]
    return round(sum(known) / len(known), SCORE_DIGITS) if known else None


def _why_unscorable(faces: Sequence[FaceResult]) -> tuple[str, ...]:
    problems = {REASON_OF_PROBLEM[face.problem] for face in faces if face.problem is not None}
    return tuple(sorted(problems)) or (NO_FACE,)
