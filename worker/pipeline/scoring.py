"""
Aggregation of face scores to the verdict on a job. Pure arithmetic: no torch, no database.

A person's score is the mean over the person's faces. A segment's score is that of its highest person, because one
swapped face makes the segment fake. A job's score is the mean over its scored segments; the peak is reported, too. What
cannot be scored has no score, never 0.5. The verdict is the worst of those on the job's score, on every person and on
every stretch of time.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import geometric_mean
from typing import Any, Literal

from shared.evidence import Evidence
from shared.manifests import SCORE_DIGITS, Manifest
from shared.states import Reason, Verdict
from worker.pipeline.results import FaceResult, JobResult, PersonResult, SegmentResult
from worker.pipeline.tracking import ScoredSegment, Track, track_people
from worker.pipeline.verdicts import Findings, judge_people

REASON_OF_PROBLEM = {
    "face_too_small": Reason.FACES_TOO_SMALL,
    "face_too_blurred": Reason.FACES_TOO_BLURRED,
    "face_turned": Reason.FACES_TURNED,
}


def score_segment(
    faces: Sequence[FaceResult],
    people: Sequence[int],
    frames_decoded: int,
    engine: str | None = None,
    looks: Sequence[str] = (),
) -> SegmentResult:
    """
    Aggregate the faces of a segment to its result.

    Args:
        faces: Faces in order of time.
        people: The person's number of each face.
        engine: Runtime and precision of the network.
        looks: Look of each person, by number.
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
        reasons=() if scores else _unscorable_reasons(faces),
        frames_decoded=frames_decoded,
        faces_found=len(faces),
        faces_scored=sum(face.fake_score is not None for face in faces),
        people=results,
        engine=engine,
        looks=tuple(looks),
    )


def score_job(
    segments: Sequence[tuple[float | None, Sequence[str]]],
    failed_segments: int,
    manifest: Manifest,
    evidence: Evidence,
    findings: Findings | None = None,
    *,
    is_truncated: bool = False,
    has_other_tracks: bool = False,
) -> JobResult:
    """
    Judge a job.

    Args:
        segments: Score and reasons of every analysed segment.
        failed_segments: Number of segments that failed, for instance because they do not decode.
        evidence: What the segments' scores are based on.
        findings: Verdicts on people and stretches of time.
        is_truncated: Part of the file is missing or damaged.
        has_other_tracks: The file has video tracks that were not analysed.

    Returns:
        The job's result. Its verdict is ``real`` only if every segment was analysed, nothing is missing, and everybody
        is real: a swap could be in what is missing, or be short.
    """
    findings = findings or Findings()
    scores = [score for score, _ in segments if score is not None]
    missing = {
        Reason.SEGMENTS_FAILED: failed_segments > 0,
        Reason.TRUNCATED: is_truncated,
        Reason.OTHER_VIDEO_TRACKS: has_other_tracks,
    }
    # Segments of live streams that were never scored.
    given = {reason for _, reasons in segments for reason in reasons}
    missing |= {reason: reason in given for reason in (Reason.DROPPED, Reason.GAP)}
    reasons = [reason for reason, is_so in missing.items() if is_so]
    result = partial(JobResult, people=findings.people, suspicious=findings.suspicious)
    if not scores:
        found = sorted(given - {Reason.NO_FACE} - set(reasons))
        if found:
            return result(None, None, Verdict.INCONCLUSIVE, (*found, *reasons))
        if reasons:
            return result(None, None, Verdict.INCONCLUSIVE, (Reason.NO_FACE, *reasons))
        return result(None, None, Verdict.NOT_APPLICABLE, (Reason.NO_FACE,))
    mean, limits = _mean(scores) or 0.0, manifest.calibration.limits(evidence)
    if not manifest.trained:
        return result(mean, max(scores), Verdict.INCONCLUSIVE, (Reason.UNTRAINED_MODEL, *reasons), limits)
    # Intervals are half-open, so that no score is undecided between equal thresholds.
    by_mean = Verdict.FAKE if mean >= limits.high else Verdict.INCONCLUSIVE if mean >= limits.low else Verdict.REAL
    is_short = findings.is_by_stretch and by_mean != Verdict.FAKE
    short = [Reason.SHORT_MANIPULATION] if is_short else []
    compressed = [Reason.HEAVILY_COMPRESSED] if manifest.calibration.is_heavily_compressed(evidence) else []
    if Verdict.FAKE in (by_mean, findings.worst):
        # One person among others, or on one page of several.
        person = [Reason.ONE_PERSON] if by_mean != Verdict.FAKE and not is_short else []
        return result(mean, max(scores), Verdict.FAKE, (*short, *person, *compressed, *reasons), limits)
    is_uncertain = by_mean == Verdict.INCONCLUSIVE or (findings.worst == Verdict.INCONCLUSIVE and not is_short)
    uncertain = [Reason.UNCERTAIN] if is_uncertain else []
    turned = [Reason.FACES_TURNED] if findings.is_turned else []
    little = [Reason.LITTLE_EVIDENCE] if findings.is_little else []
    doubts = (*uncertain, *short, *turned, *little, *compressed, *reasons)
    return result(mean, max(scores), Verdict.INCONCLUSIVE if doubts else Verdict.REAL, doubts, limits)


@dataclass(frozen=True, slots=True)
class MediumJudgement:
    """The judgement on a medium, and what it is based on."""

    result: JobResult
    evidence: Evidence
    findings: Findings
    tracks: Sequence[Track]
    """The people from whom *findings* follow."""


def judge_medium(
    segments: Sequence[ScoredSegment],
    kind: Literal["image", "video"],
    manifest: Manifest,
    *,
    step_s: float,
    end_s: float,
    failed_segments: int = 0,
    bits_per_pixel: float | None = None,
    is_truncated: bool = False,
    has_other_tracks: bool = False,
    tracks: Sequence[Track] | None = None,
) -> MediumJudgement:
    """
    Track the people of a medium, judge each of them, and judge the whole.

    Args:
        segments: The segments that were scored, in order of time.
        step_s: Duration that one sampled frame of a video represents.
        end_s: Where the medium ends.
        failed_segments: Number of segments that failed.
        bits_per_pixel: ``shared.evidence.bits_per_pixel`` of a video.
        is_truncated: Part of the file is missing or damaged.
        has_other_tracks: The file has video tracks that were not analysed.
        tracks: The people, if they are known already.
    """
    tracks = track_people(segments, kind) if tracks is None else tracks
    findings = judge_people(tracks, kind, manifest, step_s, end_s)
    evidence = gather_evidence([segment.result for segment in segments], kind, bits_per_pixel)
    scores = [(segment.result.get("fake_score"), tuple(segment.result.get("reasons", ()))) for segment in segments]
    result = score_job(
        scores,
        failed_segments,
        manifest,
        evidence,
        findings,
        is_truncated=is_truncated,
        has_other_tracks=has_other_tracks,
    )
    return MediumJudgement(result, evidence, findings, tracks)


def gather_evidence(
    segments: Iterable[Mapping[str, Any]], kind: Literal["image", "video"], bits_per_pixel: float | None = None
) -> Evidence:
    """
    Gather what a job's score is based on.

    Args:
        segments: The ``SegmentResult.to_json`` of each segment.
        bits_per_pixel: ``shared.evidence.bits_per_pixel`` of a video.
    """
    seen = [each for each in (_segment_evidence(segment, kind) for segment in segments) if each.people]
    # A job's score is the mean over segments, so one crowded segment must not dominate the number of people.
    people = round(geometric_mean(each.people for each in seen), 3) if seen else 0.0
    return Evidence(kind, sum(each.faces for each in seen), people, bits_per_pixel)


def _segment_evidence(segment: Mapping[str, Any], kind: Literal["image", "video"]) -> Evidence:
    people = [person for person in segment.get("people", ()) if person["fake_score"] is not None]
    if not people:
        return Evidence(kind, 0, 0.0)
    highest = max(people, key=lambda person: float(person["fake_score"]))
    return Evidence(kind, sum(face["fake_score"] is not None for face in highest["faces"]), len(people))


def _mean(scores: Sequence[float | None]) -> float | None:
    known = [score for score in scores if score is not None]
    return round(sum(known) / len(known), SCORE_DIGITS) if known else None


def _unscorable_reasons(faces: Sequence[FaceResult]) -> tuple[str, ...]:
    problems = {REASON_OF_PROBLEM[face.problem] for face in faces if face.problem is not None}
    return tuple(sorted(problems)) or (Reason.NO_FACE,)
