"""Facts from a file's header, and the limits of uploads."""

from dataclasses import dataclass
from typing import Final, Literal

from shared.errors import FrameRateTooHighError, TooLargeError, TooLongError, TooManyPixelsError

VIDEO_CODECS: Final = (
    *("h264", "hevc", "vp8", "vp9", "av1", "mpeg4"),
    *("prores", "dnxhd", "mjpeg", "mpeg1video", "mpeg2video", "h263"),
    *("flv1", "vp6f", "wmv1", "wmv2", "wmv3", "vc1", "msmpeg4v2", "msmpeg4v3"),
)
"""Accepted video codecs, by ffmpeg's names."""

PICTURES: Final = ("jpeg", "png", "gif", "webp", "bmp", "tiff", "heic", "avif", "jpeg2000", "jxl")
"""Containers of still images. Some can hold an animation, which counts as a video."""

MAX_IMAGE_PIXELS: Final = 110_000_000
"""Most phone cameras take images of up to 108 million pixels."""


@dataclass(frozen=True, slots=True)
class MediaLimits:
    """Limits of uploads. Field names are those of the settings, which errors quote."""

    max_bytes: int
    max_duration_s: float
    max_pixels: int
    """Width × height of one frame of a video or an animation."""
    max_frame_rate: float
    max_image_pixels: int = MAX_IMAGE_PIXELS
    """Width × height of a still image."""


@dataclass(frozen=True, slots=True)
class HeaderFacts:
    """Facts that a header claims; None where it does not say or was not read."""

    kind: Literal["image", "video"]
    container: str
    codec: str | None = None
    """One of VIDEO_CODECS, if the header of a video names it."""
    width_px: int | None = None
    height_px: int | None = None
    duration_s: float | None = None
    frame_rate: float | None = None


def check_limits(facts: HeaderFacts, limits: MediaLimits) -> None:
    """
    Refuse a file that exceeds a limit. Unknown facts pass.

    Raises:
        TooLongError, TooManyPixelsError, FrameRateTooHighError: A limit is exceeded; the message names it.
    """
    if facts.duration_s is not None and facts.duration_s > limits.max_duration_s:
        raise TooLongError(
            f"the video lasts {facts.duration_s:.1f} s; the limit max_duration_s is {limits.max_duration_s:g}"
        )
    if facts.width_px is not None and facts.height_px is not None:
        pixels = facts.width_px * facts.height_px
        name = "max_image_pixels" if facts.kind == "image" else "max_pixels"
        limit = limits.max_image_pixels if facts.kind == "image" else limits.max_pixels
        if pixels > limit:
            raise TooManyPixelsError(
                f"the picture has {facts.width_px} × {facts.height_px} = {pixels} pixels; the limit {name} is {limit}"
            )
    if facts.frame_rate is not None and facts.frame_rate > limits.max_frame_rate:
        raise FrameRateTooHighError(
            f"the video has {facts.frame_rate:.1f} frames a second;"
            f" the limit max_frame_rate is {limits.max_frame_rate:g}"
        )


def check_size(size_bytes: int, limits: MediaLimits) -> None:
    """Raise TooLargeError if a file of *size_bytes* is over the limit."""
    if size_bytes > limits.max_bytes:
        raise TooLargeError(f"the file has {size_bytes} bytes; the limit max_upload_bytes is {limits.max_bytes}")
