"""The timeline of a report: scores over time, as coordinates of an SVG picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

WIDTH = 1000
"""In units of the picture, which the page scales."""
HEIGHT = 160
MIN_BAR_WIDTH = 2.0
MAX_BARS = 2000
"""Segments that are drawn one by one; of more, neighbours are drawn as one bar with the highest score."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A segment, or several that follow each other, in units of the picture."""

    x: float
    width: float
    y: float
    height: float
    start_s: float
    end_s: float
    score: float | None
    level: str
    """``high``, ``middle``, ``low`` or ``none``."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A suspicious stretch of time, in units of the picture."""

    x: float
    width: float
    start_s: float
    end_s: float
    person: int
    score: float
    verdict: str


@dataclass(frozen=True, slots=True)
class Timeline:
    """All that is drawn."""

    bars: list[Bar]
    marks: list[Mark]
    limits: list[float]
    """Heights of the limits of real and fake, from the top."""
    duration_s: float


def draw_timeline(segments: Sequence[Any], evidence: dict[str, Any] | None, suspicious: Sequence[Any]) -> Timeline:
    """
    Lay the summaries of all segments of a job out.

    Args:
        segments: With ``start_s``, ``end_s`` and ``fake_score``, in order.
        evidence: Of the job, for the limits.
        suspicious: The job's suspicious stretches, as dictionaries.
    """
    # A page of an image has no length, and is drawn as long as one second.
    ends = [max(row.end_s, row.start_s + 1.0) if row.start_s == row.end_s else row.end_s for row in segments]
    duration_s = max(ends, default=1.0)
    scale = WIDTH / duration_s
    low, high = (evidence or {}).get("real_below"), (evidence or {}).get("fake_from")
    step = -(-len(segments) // MAX_BARS) or 1
    bars = []
    for at in range(0, len(segments), step):
        rows = segments[at : at + step]
        scores = [row.fake_score for row in rows if row.fake_score is not None]
        score = max(scores, default=None)
        start_s, end_s = rows[0].start_s, ends[min(at + step, len(segments)) - 1]
        height = 4.0 if score is None else max(4.0, HEIGHT * score)
        bars.append(
            Bar(
                x=round(start_s * scale, 2),
                width=round(max(MIN_BAR_WIDTH, (end_s - start_s) * scale - 1), 2),
                y=round(HEIGHT - height, 2),
                height=round(height, 2),
                start_s=start_s,
                end_s=end_s,
                score=score,
                level=_level(score, low, high),
            )
        )
    marks = [
        Mark(
            x=round(span["start_s"] * scale, 2),
            width=round(max(MIN_BAR_WIDTH, (span["end_s"] - span["start_s"]) * scale), 2),
            start_s=span["start_s"],
            end_s=span["end_s"],
            person=span["person"],
            score=span["fake_score"],
            verdict=span["verdict"],
        )
        for span in suspicious
    ]
    limits = [round(HEIGHT * (1 - limit), 2) for limit in (low, high) if limit is not None]
    return Timeline(bars, marks, limits, duration_s)


def _level(score: float | None, low: float | None, high: float | None) -> str:
    if score is None:
        return "none"
    if high is not None and score >= high:
        return "high"
    return "low" if low is not None and score < low else "middle"


def clock(seconds: float) -> str:
    """Return a time as ``m:ss.s`` or ``h:mm:ss``."""
    tenths = round(seconds * 10)
    whole, tenth = divmod(tenths, 10)
    if whole >= 3600:
        return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
    return f"{whole // 60}:{whole % 60:02}.{tenth}"
