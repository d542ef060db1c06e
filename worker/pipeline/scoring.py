"""
From face scores to a verdict. Pure arithmetic: no torch, no database.

Person: the mean over that person's faces. Segment: the highest person, because one swapped face makes the segment
fake. Job: the mean over scored segments, with the peak beside it. What cannot be scored has no score, never 0.5.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import geometric_mean
from typing import Any, Final, Literal

from shared.evidence import Evidence
from shared.manifests import SCORE_DIGITS, Limits, Manifest
from worker.pipeline.results import FaceResult, JobResult, PersonResult, SegmentResult

REASON_OF_PROBLEM = {"face_too_small": "faces_too_small", "face_too_blurred": "faces_too_blurred"}
NO_FACE = "no_face"
ALIKE: Final = 4
"""Segments of one video resemble each other: however many there are, the highest is as that of so many strangers."""


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
    has_other_tracks: bool = False,
    by_segment: Sequence[Evidence] = (),
) -> JobResult:
    """
    Judge a job.

    Args:
        segments: Score and reasons of every segment that was looked at.
        failed_segments: How many could not be looked at, for instance because they do not decode.
        evidence: What the segments' scores were made from.
        is_truncated: Part of the file is missing or damaged.
        has_other_tracks: The file has video tracks that nobody looked at.
        by_segment: What the score of each segment that has one was made from, in the order of *segments*.

    Returns:
        ``real`` only if every segment was looked at, nothing is missing and no segment stands out: a swap could hide in
        the rest, or be short.
    """
    scores = [score for score, _ in segments if score is not None]
    missing = {
        "segments_failed": failed_segments > 0,
        "truncated": is_truncated,
        "other_video_tracks": has_other_tracks,
    }
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
    doubts = {
        "short_manipulation": _stands_out(scores, by_segment, manifest),
        "heavily_compressed": manifest.calibration.is_heavily_compressed(evidence),
    }
    if not manifest.trained:
        return JobResult(mean, max(scores), "inconclusive", ("untrained_model", *reasons), limits)
    verdict, why = _verdict(mean or 0.0, limits, [reason for reason, is_so in doubts.items() if is_so], reasons)
    return JobResult(mean, max(scores), verdict, why, limits)


def _stands_out(scores: Sequence[float], by_segment: Sequence[Evidence], manifest: Manifest) -> bool:
    """
    Whether one of several segments would be called fake by itself, and not by chance.

    The highest of several segments is picked as the highest of several people is, and has to lie higher for that.
    """
    if len(scores) < 2:
        return False
    chances = (replace(each, people=max(1.0, each.people) * min(len(scores), ALIKE)) for each in by_segment)
    return any(score >= manifest.calibration.limits(each).high for score, each in zip(scores, chances, strict=False))


def _verdict(
    score: float, limits: Limits, doubts: Sequence[str], missing: Sequence[str]
) -> tuple[str, tuple[str, ...]]:
    """
    The verdict for a job's score, and its reasons.

    Args:
        doubts: Why a score that is low may hide a swap.
        missing: Why not all of the file was looked at.
    """
    # Half-open like every interval here, so that a band of no width leaves no score undecided.
    if score >= limits.high:
        return "fake", tuple(missing)
    uncertain = ("uncertain",) if score >= limits.low else ()
    reasons = (*uncertain, *doubts, *missing)
    return "inconclusive" if reasons else "real", reasons


def gather_evidence(
    segments: Iterable[Mapping[str, Any]], kind: Literal["image", "video"], bits_per_pixel: float | None = None
) -> Evidence:
    """
    What a job's score is made from.

    Args:
        segments: Results of its segments, as ``SegmentResult.to_json`` gives them.
        bits_per_pixel: Of the video, by ``shared.evidence.bits_per_pixel``.
    """
    return join_evidence([segment_evidence(segment, kind) for segment in segments], kind, bits_per_pixel)


def segment_evidence(segment: Mapping[str, Any], kind: Literal["image", "video"]) -> Evidence:
    """What a segment's score is made from; *segment* is its result, as ``SegmentResult.to_json`` gives it."""
    people = [person for person in segment.get("people", ()) if person["fake_score"] is not None]
    if not people:
        return Evidence(kind, 0, 0.0)
    highest = max(people, key=lambda person: float(person["fake_score"]))
    return Evidence(kind, sum(face["fake_score"] is not None for face in highest["faces"]), len(people))


def join_evidence(
    by_segment: Iterable[Evidence], kind: Literal["image", "video"], bits_per_pixel: float | None = None
) -> Evidence:
    """What a job's score is made from, given what those of its segments are."""
    seen = [each for each in by_segment if each.people]
    # A job's score is the mean over segments, so one crowded segment must not count like all of them.
    people = round(geometric_mean(each.people for each in seen), 3) if seen else 0.0
    return Evidence(kind, sum(each.faces for each in seen), people, bits_per_pixel)


def _mean(scores: Sequence[float | None]) -> float | None:
    known = [score for score in scores if score is not None]
    return round(sum(known) / len(known), SCORE_DIGITS) if known else None


def _why_unscorable(faces: Sequence[FaceResult]) -> tuple[str, ...]:
    problems = {REASON_OF_PROBLEM[face.problem] for face in faces if face.problem is not None}
    return tuple(sorted(problems)) or (NO_FACE,)
