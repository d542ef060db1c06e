"""
False positives on long videos, and short swaps found in them: the effect of judging people and stretches of time.

Long videos are assembled from the scored faces of real clips, so that no picture is decoded or scored again. Each
person of each clip counts as another person, which gives more people than following them would find.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final, Literal

import numpy as np
from numpy.random import Generator

from shared.manifests import Manifest
from worker.pipeline.results import FaceResult
from worker.pipeline.scoring import judge_medium, score_segment
from worker.pipeline.tracking import ScoredSegment, Track, track_people
from worker.training.errors import DataError
from worker.training.scoring.scored_media import ScoredMedium

Style = Literal["compilation", "one person"]

LENGTHS_S: Final = (10.0, 60.0, 600.0)
INSERTIONS_S: Final = (0.0, 1.0, 2.0, 5.0, 10.0)
MIN_REPEATED_FACES: Final = 8
"""Smallest number of faces of a clip that is repeated for a video of one person."""


@dataclass(frozen=True, slots=True)
class VerdictShares:
    """The verdicts on videos of one kind."""

    style: Style
    length_s: float
    insertion_s: float
    videos: int
    fake: float
    """Share of the videos with the verdict fake."""
    not_real: float
    """Share with the verdict fake or inconclusive."""


@dataclass(frozen=True, slots=True)
class _PersonScores:
    """One person's scores in the part of a video that begins at *start_s*."""

    start_s: float
    scores: Sequence[float]


def judge_long_videos(
    real: Sequence[ScoredMedium],
    swapped: Sequence[ScoredMedium],
    manifest: Manifest,
    *,
    rounds: int = 400,
    seed: int = 0,
) -> list[VerdictShares]:
    """
    Judge long real videos, unchanged and with a swap inserted into the time of one person.

    Args:
        real: Clips that videos are assembled from.
        swapped: Clips whose faces are inserted.
        rounds: Videos of each kind; a tenth of it for the longest.
        seed: Seed of all draws.

    Raises:
        DataError: There is no real clip with enough faces, or no swapped one.
    """
    step_s = 1.0 / manifest.sampling.sample_fps
    clips = [scores for medium in real if (scores := _score_people(medium, manifest))]
    swaps = [scores[0] for medium in swapped if (scores := _score_people(medium, manifest))]
    if not any(len(people[0]) >= MIN_REPEATED_FACES for people in clips) or not swaps:
        raise DataError(f"long videos need a real clip with {MIN_REPEATED_FACES} faces of a person, and a swapped clip")
    rng = np.random.default_rng(seed)
    shares = []
    for length_s in LENGTHS_S:
        count = max(1, rounds // 10 if length_s == max(LENGTHS_S) else rounds)
        for style in ("compilation", "one person"):
            for insertion_s in INSERTIONS_S:
                verdicts = []
                for _ in range(count):
                    strands = _assemble_video(clips, length_s, style, step_s, rng)
                    if insertion_s:
                        strands = _insert_swap(strands, swaps[int(rng.integers(len(swaps)))], insertion_s, step_s, rng)
                    verdicts.append(_judge(strands, manifest))
                shares.append(
                    VerdictShares(
                        style,
                        length_s,
                        insertion_s,
                        count,
                        sum(verdict == "fake" for verdict in verdicts) / count,
                        sum(verdict != "real" for verdict in verdicts) / count,
                    )
                )
    return shares


def _score_people(medium: ScoredMedium, manifest: Manifest) -> list[list[float]]:
    """Return the scores of each person of a clip, in order of time, the longest first."""
    tracks = track_people(medium.list_parts(manifest.calibration.scale), "video")
    return sorted(([float(face["fake_score"]) for face in track.scored] for track in tracks), key=len, reverse=True)


def _assemble_video(
    clips: Sequence[list[list[float]]], length_s: float, style: Style, step_s: float, rng: Generator
) -> list[_PersonScores]:
    if style == "one person":
        longest = [people[0] for people in clips if len(people[0]) >= MIN_REPEATED_FACES]
        scores = longest[int(rng.integers(len(longest)))]
        count = round(length_s / step_s)
        return [_PersonScores(0.0, (scores * (count // len(scores) + 1))[:count])]
    strands, now_s = list[_PersonScores](), 0.0
    while now_s < length_s:
        people = clips[int(rng.integers(len(clips)))]
        strands += [_PersonScores(now_s, scores) for scores in people]
        now_s += len(people[0]) * step_s
    return strands


def _insert_swap(
    strands: Sequence[_PersonScores], swap: Sequence[float], insertion_s: float, step_s: float, rng: Generator
) -> list[_PersonScores]:
    """Insert a swap into the time of the person who is seen longest, and shift what comes later."""
    row = max(range(len(strands)), key=lambda row: len(strands[row].scores))
    chosen = strands[row]
    count = round(insertion_s / step_s)
    inserted = (list(swap) * (count // len(swap) + 1))[:count]
    place = int(rng.integers(len(chosen.scores) + 1))
    longer = _PersonScores(chosen.start_s, [*chosen.scores[:place], *inserted, *chosen.scores[place:]])
    moved = [
        _PersonScores(strand.start_s + insertion_s, strand.scores) if strand.start_s > chosen.start_s else strand
        for strand in strands
    ]
    return [*moved[:row], longer, *moved[row + 1 :]]


def _judge(strands: Sequence[_PersonScores], manifest: Manifest) -> str:
    """Return the service's verdict on a video of these people."""
    step_s, segment_s = 1.0 / manifest.sampling.sample_fps, manifest.sampling.segment_seconds
    faces = sorted(
        (strand.start_s + row * step_s, person, score)
        for person, strand in enumerate(strands)
        for row, score in enumerate(strand.scores)
    )
    results = []
    seen: list[set[int]] = [set() for _ in strands]
    for index, group in groupby(faces, key=lambda face: int(face[0] // segment_s)):
        members = list(group)
        for _, person, _ in members:
            seen[person].add(index)
        found = [_make_face(time_s, score) for time_s, _, score in members]
        results.append(score_segment(found, [person for _, person, _ in members], len(members)))
    tracks = [
        Track(
            person,
            tuple(
                _make_face(strand.start_s + row * step_s, score).to_json() for row, score in enumerate(strand.scores)
            ),
            dict.fromkeys(sorted(indexes), person),
            len(indexes),
        )
        for person, (strand, indexes) in enumerate(zip(strands, seen, strict=True))
    ]
    parts = [ScoredSegment(index, result.to_json(), None) for index, result in enumerate(results)]
    judged = judge_medium(parts, "video", manifest, step_s=step_s, end_s=faces[-1][0] + step_s, tracks=tracks)
    return judged.result.verdict


def _make_face(time_s: float, score: float) -> FaceResult:
    """Make a face of which only the score matters."""
    return FaceResult(time_s, (0.0, 0.0, 100.0, 100.0), (), 1.0, 100.0, 100.0, None, score, luma=100.0)


def format_table(shares: Sequence[VerdictShares]) -> str:
    """Return the shares as a table in Markdown: a row for each kind of video, a column for each insertion."""
    heads = ["as it is" if not each else f"with {each:g} s of a swap" for each in INSERTIONS_S]
    lines = [f"| real video | {' | '.join(heads)} |", "|" + " --- |" * (len(heads) + 1)]
    for (length_s, style), group in groupby(shares, key=lambda share: (share.length_s, share.style)):
        cells = [f"{share.fake:.0%} fake, {share.not_real:.0%} not real" for share in group]
        lines.append(f"| {length_s:g} s, {style} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
