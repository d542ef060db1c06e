"""The timeline of a report: scores over time, as coordinates of a picture, and the names of times."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

FULL = 100.0
"""Width and height of the picture: coordinates are percentages, so that text in it keeps its shape at every width."""
MIN_BAR_WIDTH = 0.2
MIN_BAR_HEIGHT = 2.5
BAR_GAP = 0.1
MAX_BARS = 2000
"""Segments that are drawn one by one; of more, neighbours are drawn as one bar with the highest score."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A segment, or several that follow each other, in percent of the picture."""

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
    """A suspicious stretch of time, in percent of the picture."""

    x: float
    width: float
    start_s: float
    end_s: float
    person: int
    score: float
    verdict: str


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit of a verdict, as a line across the picture."""

    name: str
    """``real`` or ``fake``."""
    score: float
    y: float
    """Distance from the top in percent."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """All that is drawn."""

    bars: list[Bar]
    marks: list[Mark]
    limits: list[Limit]
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
    ends = [row.start_s + 1.0 if row.start_s == row.end_s else row.end_s for row in segments]
    duration_s = max(ends, default=1.0)
    scale = FULL / duration_s
    low, high = (evidence or {}).get("real_below"), (evidence or {}).get("fake_from")
    step = -(-len(segments) // MAX_BARS) or 1
    bars = []
    for at in range(0, len(segments), step):
        rows = segments[at : at + step]
        scores = [row.fake_score for row in rows if row.fake_score is not None]
        score = max(scores, default=None)
        start_s, end_s = rows[0].start_s, ends[min(at + step, len(segments)) - 1]
        height = max(MIN_BAR_HEIGHT, FULL * (score or 0.0))
        bars.append(
            Bar(
                x=round(start_s * scale, 3),
                width=round(max(MIN_BAR_WIDTH, (end_s - start_s) * scale - BAR_GAP), 3),
                y=round(FULL - height, 2),
                height=round(height, 2),
                start_s=start_s,
                end_s=end_s,
                score=score,
                level=_level(score, low, high),
            )
        )
    marks = [
        Mark(
            x=round(span["start_s"] * scale, 3),
            width=round(max(MIN_BAR_WIDTH, (span["end_s"] - span["start_s"]) * scale), 3),
            start_s=span["start_s"],
            end_s=span["end_s"],
            person=span["person"],
            score=span["fake_score"],
            verdict=span["verdict"],
        )
        for span in suspicious
    ]
    limits = [
        Limit(name, score, round(FULL * (1 - score), 2))
        for name, score in (("real", low), ("fake", high))
        if score is not None
    ]
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


def name_interval(start_s: float, end_s: float, joiner: str = "–", *, is_image: bool) -> str:
    """
    Return an interval of media in words: a time, two times with *joiner* between them, or the number of a page.

    The parts of an image are its pages, whose times count them from 0.
    """
    if is_image:
        return f"page {int(start_s) + 1}"
    return clock(start_s) if end_s <= start_s else f"{clock(start_s)}{joiner}{clock(end_s)}"
