"""
The evidence for a verdict: the number of faces, the number of people, and the compression of the video.

The threshold and the uncertainty band of a checkpoint move with it (``shared.manifests.Calibration``).
"""

from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

REFERENCE_PIXELS: Final = 100_000
"""Size of the frame to which bits per pixel are scaled."""
FRAME_SIZE_EXPONENT: Final = 0.4
"""
Exponent of the frame size by which bits per pixel are scaled: larger frames need fewer for the same quality. It was
measured as 0.44 over 125 published clips of talking heads.
"""
H264_EQUIVALENT_BITS: Final[dict[str, float]] = {
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
How many bits of H.264 one bit of another codec is worth, by ffmpeg's name of the codec. Codecs that are not listed
count as 1; among them are VP6, WMV 9 and VC-1, for which ffmpeg has no encoder to measure.

Measured with ffmpeg: three seconds each of four clips of people talking or walking, scaled to about 100,000 pixels,
encoded at several qualities, and compared with x264 (preset medium) at equal SSIM of luma, where x264 needs CRF 28 to
44. The columns give the median, the range, and the median at equal PSNR instead:

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
    """The evidence that a job's score was computed from."""

    kind: Literal["image", "video"]
    faces: int
    """Scored faces of the people who decided: the highest-scoring person of each segment, summed over segments."""
    people: float
    """People with a scored face in a segment: the geometric mean over segments that have any."""
    bits_per_pixel: float | None = None
    """Bits per pixel of a video, scaled to H.264 and a frame of 100,000 pixels; None for images and if unknown."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values for a JSON column."""
        return asdict(self)


def bits_per_pixel(video_bytes: int, *, width_px: int, height_px: int, frames: int, codec: str) -> float | None:
    """
    Compute the bits per pixel of a video, scaled to be comparable between codecs and frame sizes.

    Args:
        video_bytes: Bytes of the video stream, without sound.
        frames: Number of frames in the stream.
        codec: ffmpeg's name of the codec.

    Returns:
        Scaled bits per pixel; None if there is no frame or no pixel.
    """
    pixels = width_px * height_px
    if pixels <= 0 or frames <= 0:
        return None
    scale: float = (pixels / REFERENCE_PIXELS) ** FRAME_SIZE_EXPONENT * H264_EQUIVALENT_BITS.get(codec, 1.0)
    return round(video_bytes * 8 / (pixels * frames) * scale, 5)
