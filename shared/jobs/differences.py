"""What changed between two jobs of the same media, from summaries of their segments."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.models import Job, Segment

MAX_INTERVALS = 100
"""Intervals that are reported, those with the largest differences."""
UNMATCHED_DIFFERENCE = 2.0
"""Stands for the difference where one job alone has a score: more than any two scores differ by."""


@dataclass(frozen=True, slots=True)
class ScoredInterval:
    """A time ``[start_s, end_s)`` with the score of the segment that covers it in each of two jobs."""

    start_s: float
    end_s: float
    before: float | None
    after: float | None

    @property
    def difference(self) -> float:
        """How far the scores lie apart: in [0, 1], or ``UNMATCHED_DIFFERENCE``."""
        if self.before is None or self.after is None:
            return 0.0 if self.before == self.after else UNMATCHED_DIFFERENCE
        return abs(self.after - self.before)


def compare_segments(session: Session, before: Job, after: Job) -> list[ScoredInterval]:
    """
    Cut the time of two jobs of the same media wherever either of them cuts it.

    Pages of an image are segments without length; they are matched by their number, which is their time.
    """
    return align(_scores(session, before), _scores(session, after))


def _scores(session: Session, job: Job) -> Sequence[Any]:
    columns = (Segment.start_s, Segment.end_s, Segment.fake_score)
    return session.execute(select(*columns).where(Segment.job_id == job.id).order_by(Segment.index)).all()


def align(before: Sequence[Any], after: Sequence[Any]) -> list[ScoredInterval]:
    """
    Align two lists of segments, each with ``start_s``, ``end_s`` and ``fake_score``, in order and without overlap.

    Returns:
        Intervals in order of time, of all time that either list covers.
    """
    found = []
    cuts = sorted({at for row in (*before, *after) for at in (row.start_s, row.end_s)})
    points = {row.start_s for row in (*before, *after) if row.start_s == row.end_s}
    lists = _Cursor(before), _Cursor(after)
    for number, start in enumerate(cuts):
        ends = [start] if start in points else []
        ends += cuts[number + 1 : number + 2]
        for end in ends:
            rows = [cursor.covering(start, end) for cursor in lists]
            if any(row is not None for row in rows):
                scores = [None if row is None else row.fake_score for row in rows]
                found.append(ScoredInterval(start, end, scores[0], scores[1]))
    return found


class _Cursor:
    """Walks over segments in order of time."""

    def __init__(self, rows: Sequence[Any]) -> None:
        self._rows = rows
        self._at = 0

    def covering(self, start_s: float, end_s: float) -> Any:
        """Return the segment that covers ``[start_s, end_s)``, or None. Times must not go back."""
        while self._at < len(self._rows) and self._is_over(self._rows[self._at], start_s, end_s):
            self._at += 1
        if self._at == len(self._rows):
            return None
        row = self._rows[self._at]
        if (row.start_s == row.end_s) != (start_s == end_s):
            return None
        return row if row.start_s <= start_s and end_s <= row.end_s else None

    @staticmethod
    def _is_over(row: Any, start_s: float, end_s: float) -> bool:
        if row.start_s == row.end_s:
            return bool(row.end_s < start_s or (row.end_s == start_s < end_s))
        return bool(row.end_s <= start_s)


def largest(intervals: Sequence[ScoredInterval]) -> list[ScoredInterval]:
    """Return the ``MAX_INTERVALS`` in which the scores differ most, in order of time."""
    chosen = sorted(intervals, key=lambda interval: (-interval.difference, interval.start_s))[:MAX_INTERVALS]
    return sorted(chosen, key=lambda interval: (interval.start_s, interval.end_s))
