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
BITS_OF_H264: Final[dict[str, float]] = {
    "av1": 1.8,
    "hevc": 1.3,
    "vp9": 1.2,
    "vp8": 0.7,
    "mpeg4": 0.4,
    "msmpeg4v2": 0.4,
    "msmpeg4v3": 0.4,
    "wmv1": 0.4,
    "wmv2": 0.35,
    "flv1": 0.35,
    "h263": 0.3,
    "mpeg2video": 0.2,
    "mpeg1video": 0.2,
    "mjpeg": 0.04,
    "prores": 0.04,
    "dnxhd": 0.02,
}
"""
What a bit of other codecs, by their names in ffmpeg, is worth in bits of H.264; of all others it is worth one. For VP6,
WMV 9 and VC-1, which are among them, ffmpeg has no encoder to measure them by.

Measured with ffmpeg: three seconds each of four clips of people talking or walking, brought to about 100,000 pixels,
encoded at several qualities, and held against x264 (preset medium) at the same SSIM of luma, where x264 needs CRF 28 to
44. Medians, the whole range, and medians at the same PSNR instead:

========== ==== ============ ==== ==========================================================
codec      SSIM range        PSNR encoder
========== ==== ============ ==== ==========================================================
av1        1.79 1.52 to 2.06 1.83 libsvtav1, preset 7
hevc       1.29 1.18 to 1.42 1.29 libx265, medium
vp9        1.16 1.03 to 1.43 1.25 libvpx-vp9, good, cpu-used 3
vp8        0.69 0.51 to 0.90 0.79 libvpx, good, cpu-used 3 (three clips)
mpeg4      0.28 0.21 to 0.39 0.31 mpeg4, a key frame in 12
mpeg4      0.50 0.39 to 0.59 0.59 mpeg4, a key frame in 250, two B-frames, trellis (three clips)
h263       0.24 0.17 to 0.34 0.23 h263p, a key frame in 12; in 250: 0.37 (three clips)
mpeg2video 0.21 0.12 to 0.33 0.20 mpeg2video, a key frame in 15, two B-frames
mpeg1video 0.23 0.15 to 0.35 0.21 mpeg1video, the same
mjpeg      0.05 0.02 to 0.10 0.03 mjpeg
prores     0.04 0.02 to 0.08 0.03 prores_ks, proxy at the least
msmpeg4v2  0.32 0.22 to 0.40 0.33 msmpeg4v2, a key frame in 12; in 250: 0.50
msmpeg4v3  0.29 0.23 to 0.40 0.31 msmpeg4, a key frame in 12; in 250: 0.49
wmv1       0.32 0.22 to 0.40 0.37 wmv1, a key frame in 12; in 250: 0.52
wmv2       0.29 0.18 to 0.37 0.32 wmv2, a key frame in 12; in 250: 0.41
flv1       0.27 0.17 to 0.36 0.28 flv, a key frame in 12; in 250: 0.47
dnxhd      0.02 0.01 to 0.04 0.02 dnxhd, DNxHR LB and SQ
========== ==== ============ ==== ==========================================================
"""


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
