"""Cut points of a video."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Segment:
    """The stretch ``[start_s, end_s)`` of media time."""

    index: int
    start_s: float
    end_s: float


def plan_segments(duration_s: float | None, segment_seconds: float) -> list[Segment]:
    """
    Cut a video into segments of *segment_seconds*, without gap or overlap.

    A rest shorter than half a segment joins the one before it: a stretch of a few frames would say little and
    weigh as much as the others in the average.

    Args:
        duration_s: Length of the video, or None for an image, which is the one segment ``[0, 0)``.

    Returns:
        At least one segment; the first starts at 0 and the last ends at *duration_s* exactly.
    """
    if duration_s is None:
        return [Segment(0, 0.0, 0.0)]
    whole = math.floor(duration_s / segment_seconds)
    rest_s = duration_s - whole * segment_seconds
    count = max(1, whole + (rest_s >= segment_seconds / 2))
    cuts = [round(index * segment_seconds, 6) for index in range(count)] + [duration_s]
    return [Segment(index, cuts[index], cuts[index + 1]) for index in range(count)]
