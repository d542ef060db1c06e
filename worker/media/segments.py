"""The segments that a video is cut into."""

import math
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Segment:
    """The interval ``[start_s, end_s)`` of media time; for picture n of an image it is ``[n, n)``."""

    index: int
    start_s: float
    end_s: float


def plan_segments(
    duration_s: float | None, segment_seconds: float, *, first_s: float = 0.0, pictures: int = 1
) -> list[Segment]:
    """
    Cut a video into segments of *segment_seconds*, without gaps or overlaps.

    A remainder shorter than half a segment joins its neighbour: a segment of a few frames would say little but count
    as much as the others in the mean.

    Args:
        duration_s: When the last frame ends; None for an image, each of whose pictures is a segment.
        first_s: When the first frame of a video appears. Segments before it are left out. If less than half of the
            first segment is left, it joins the one after it.
        pictures: Number of pictures of an image.

    Returns:
        At least one segment. The last ends at *duration_s* exactly; the first starts at 0 or, if frames appear later,
        at a multiple of *segment_seconds*.
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
