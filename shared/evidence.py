"""
How much a verdict rests on: how many faces of one person, among how many people, after how much compression.

Both the threshold of a checkpoint and its uncertainty band move with it (``shared.manifests.Calibration``).
"""

from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

REFERENCE_PIXELS: Final = 100_000
"""Of a frame to which bits a pixel are scaled."""
FEWER_BITS: Final = 0.4
"""Larger frames need fewer bits a pixel for one quality: by this power of their size. Over 125 clips of talking heads
as their authors published them the power was measured as 0.44."""
BITS_OF_H264: Final[dict[str, float]] = {"hevc": 1.5, "vp9": 1.5, "av1": 1.8}
"""What a bit of newer codecs is worth in bits of H.264; of others it is worth one."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a job's score was made from."""

    kind: Literal["image", "video"]
    faces: int
    """Scored faces of the people who decided: of each segment's highest, over all segments."""
    people: float
    """With a scored face in a segment, of whom the highest decides: the geometric mean over segments that have any."""
    bits_per_pixel: float | None = None
    """Of a video, scaled to H.264 and a frame of 100,000 pixels; None for images and where it is not known."""

    def to_json(self) -> dict[str, Any]:
        """Plain values, for a JSON column."""
        return asdict(self)


def bits_per_pixel(video_bytes: int, *, width_px: int, height_px: int, frames: int, codec: str) -> float | None:
    """
    Bits that a video spends on a pixel, scaled so that codecs and sizes of frame compare.

    Args:
        video_bytes: Of the video stream alone, without sound.

    Returns:
        None if there is no frame or no pixel.
    """
    pixels = width_px * height_px
    if pixels <= 0 or frames <= 0:
        return None
    scale: float = (pixels / REFERENCE_PIXELS) ** FEWER_BITS * BITS_OF_H264.get(codec, 1.0)
    return round(video_bytes * 8 / (pixels * frames) * scale, 5)
