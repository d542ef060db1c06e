"""Cut points of a video."""

import math
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Segment:
    """The stretch ``[start_s, end_s)`` of media time."""

    index: int
    start_s: float
    end_s: float


def plan_segments(
    duration_s: float | None, segment_seconds: float, *, first_s: float = 0.0, pictures: int = 1
) -> list[Segment]:
    """
    Cut a video into segments of *segment_seconds*, without gap or overlap.

    A rest shorter than half a segment joins the one before it: a stretch of a few frames would say little and
    weigh as much as the others in the average.

    Args:
        duration_s: When the last picture ends, or None for an image, of which each picture is a segment: of picture n
            it is ``[n, n)``.
        first_s: When the first picture of a video appears. Segments before it are left out, and what it leaves of the
            first one is a rest like that at the end, which may join the one after it.
        pictures: How many an image has.

    Returns:
        At least one segment; the last ends at *duration_s* exactly, and the first starts at 0 or, where pictures
        appear later, at a multiple of *segment_seconds*.
    """
    if duration_s is None:
        return [Segment(number, float(number), float(number)) for number in range(pictures)]
    whole = math.floor(duration_s / segment_seconds)
    rest_s = duration_s - whole * segment_seconds
    count = max(1, whole + (rest_s >= segment_seconds / 2))
    cuts = [round(index * segment_seconds, 6) for index in range(count)] + [duration_s]
    while len(cuts) > 2 and cuts[1] <= first_s:
        del cuts[0]
    if len(cuts) > 2 and cuts[1] - first_s < segment_seconds / 2:
        del cuts[1]
    return [Segment(index, *cut) for index, cut in enumerate(pairwise(cuts))]
