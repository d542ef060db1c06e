"""
Compression as platforms and messengers apply it: JPEG, and H.264, HEVC and VP9 with motion, single or in chains.

A ``Transform`` is one change to a picture. It holds its random numbers, so that a fake and its real counterpart are
changed in exactly the same way. Video codecs are the real encoders of FFmpeg (PyAV): a picture becomes the last frame
of a short clip that moves towards it, so that it is a predicted frame, as most frames of a video are.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Final, Literal, NamedTuple, cast

import av
import cv2
import numpy as np
from numpy.random import Generator

from worker.training.fakes.pictures import Picture

Transform = Callable[[Picture], Picture]
Codec = Literal["h264", "hevc", "vp9"]

_FRAME_INTERVAL: Final = Fraction(1, 25)
MIN_SIDE_PX: Final = 32
"""Side below which no chain shrinks a crop."""


class _CodecOptions(NamedTuple):
    """FFmpeg's names and options for a codec: the fastest that use all of its prediction tools."""

    encoder: str
    decoder: str
    options: dict[str, str]


_CODECS: Final[dict[Codec, _CodecOptions]] = {
    "h264": _CodecOptions("libx264", "h264", {"preset": "veryfast", "tune": "zerolatency"}),
    "hevc": _CodecOptions(
        "libx265",
        "hevc",
        {
            "preset": "ultrafast",
            "tune": "zerolatency",
            "x265-params": "log-level=none:pools=none:frame-threads=1:rd=3",
        },
    ),
    "vp9": _CodecOptions(
        "libvpx-vp9", "vp9", {"b": "0", "deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"}
    ),
}
MIN_CRFS: Final[dict[Codec, int]] = {"h264": 20, "hevc": 22, "vp9": 26}
MAX_CRFS: Final[dict[Codec, int]] = {"h264": 40, "hevc": 42, "vp9": 54}
"""Constant rate factors of chains, from hardly visible to strong loss; the scales differ by codec."""


class Motion(NamedTuple):
    """The motion from one frame to the next."""

    right_px: float
    down_px: float
    growth: float
    """Scale about the centre."""


def make_jpeg(quality: int, *, coarse_chroma: bool = True) -> Transform:
    """Return JPEG compression at *quality*, with chroma at half or full resolution."""
    sampling = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420 if coarse_chroma else cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]

    def transform(picture: Picture) -> Picture:
        _, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), options)
        return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR_RGB), np.uint8)

    return transform


def make_h264(crf: int, *, preset: str = "veryfast") -> Transform:
    """Return H.264 compression (x264) at the rate factor *crf*, of the picture as the predicted frame of a clip."""

    def transform(picture: Picture) -> Picture:
        # The frame before is shifted by one pixel, so that prediction has some motion to compensate.
        before = np.roll(_pad_to_even(picture), 1, axis=1)
        return _encode_and_decode([before, picture], "h264", {"crf": str(crf), "preset": preset})

    return transform


def make_video(codec: Codec, crf: int, motion: Motion, *, frames: int = 3) -> Transform:
    """
    Return compression with *codec* at the constant rate factor *crf*.

    Args:
        motion: Motion between frames; the last frame is the picture itself.
        frames: Number of frames of the clip.
    """

    def transform(picture: Picture) -> Picture:
        clip = [_move_back(picture, motion, steps) for steps in range(frames - 1, 0, -1)]
        return _encode_and_decode([*clip, picture], codec, {"crf": str(crf)})

    return transform


def make_resize(side_px: int, *, smooth: bool) -> Transform:
    """Return resizing of a square picture to *side_px*; enlarging is smooth (cubic) or plain (linear)."""

    def transform(picture: Picture) -> Picture:
        enlarging = cv2.INTER_CUBIC if smooth else cv2.INTER_LINEAR
        how = cv2.INTER_AREA if side_px < picture.shape[0] else enlarging
        return np.asarray(cv2.resize(picture, (side_px, side_px), interpolation=how), np.uint8)

    return transform


def compose(transforms: Sequence[Transform]) -> Transform:
    """Return a transform that applies *transforms* in order."""

    def transform(picture: Picture) -> Picture:
        for change in transforms:
            picture = change(picture)
        return picture

    return transform


def draw_chain(rng: Generator, side_px: int) -> Transform:
    """
    Draw the compression of one to three uploads, for a square picture of *side_px*.

    Each may shrink it (to no less than 0.3 of its first size in all) and compresses it: H.264 mostly, or HEVC, VP9 or,
    like a screenshot or a thumbnail, JPEG. Finally it may be enlarged again, as by a player or a repost.
    """
    transforms: list[Transform] = []
    now = side_px
    least = max(MIN_SIDE_PX, round(0.3 * side_px))
    for _ in range(1 + int(rng.random() < 0.45) + int(rng.random() < 0.15)):
        if rng.random() < 0.55:
            now = min(now, max(least, round(now * rng.uniform(0.35, 1.0))))
            transforms.append(make_resize(now, smooth=False))
        transforms.append(_draw_compression(rng))
    if rng.random() < 0.3 and now < side_px:
        transforms.append(make_resize(side_px, smooth=bool(rng.random() < 0.5)))
        if rng.random() < 0.5:
            transforms.append(_draw_compression(rng))
    return compose(transforms)


def halve(picture: Picture) -> Picture:
    """Shrink a square picture to half its side, but to no less than 32 px."""
    return make_resize(max(MIN_SIDE_PX, picture.shape[0] // 2), smooth=False)(picture)


DRIFT: Final = Motion(0.7, 0.3, 1.002)
"""Motion of the clips that views are made of."""
VIEWS: Final[dict[str, Transform]] = {
    "clean": lambda picture: picture,
    "crf28": make_video("h264", 28, DRIFT),
    "crf35": make_video("h264", 35, DRIFT),
    "half": compose([halve, make_video("h264", 28, DRIFT)]),
}
"""Forms in which a square crop at its native size may reach the service: unchanged, encoded again, or shrunk and
encoded."""


def _draw_compression(rng: Generator) -> Transform:
    draw = rng.random()
    if draw < 0.2:
        return make_jpeg(int(rng.integers(35, 91)), coarse_chroma=bool(rng.random() < 0.9))
    codec: Codec = "h264" if draw < 0.7 else "hevc" if draw < 0.85 else "vp9"
    crf = round(rng.uniform(MIN_CRFS[codec], MAX_CRFS[codec]))
    speed = abs(rng.normal(0.0, 1.2))  # Pixels a frame: a talking head moves little.
    angle = rng.uniform(0.0, 2 * np.pi)
    return make_video(codec, crf, Motion(speed * np.cos(angle), speed * np.sin(angle), 1.0 + rng.normal(0.0, 0.004)))


def _move_back(picture: Picture, motion: Motion, steps: int) -> Picture:
    height, width = picture.shape[:2]
    scale = motion.growth**steps
    matrix = np.array(
        [
            [scale, 0.0, (1 - scale) * width / 2 + motion.right_px * steps],
            [0.0, scale, (1 - scale) * height / 2 + motion.down_px * steps],
        ]
    )
    moved = cv2.warpAffine(picture, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(moved, np.uint8)


def _pad_to_even(picture: Picture) -> Picture:
    """Pad to even sides, which 4:2:0 requires."""
    height, width = picture.shape[:2]
    bordered = cv2.copyMakeBorder(picture, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    return np.asarray(bordered, np.uint8)


def _encode_and_decode(frames: Sequence[Picture], codec: Codec, options: dict[str, str]) -> Picture:
    """Encode *frames* as a clip and return the last one as decoded."""
    height, width = frames[-1].shape[:2]
    codec_options = _CODECS[codec]
    padded = [_pad_to_even(frame) for frame in frames]
    encoder = cast("av.VideoCodecContext", av.CodecContext.create(codec_options.encoder, "w"))
    encoder.width, encoder.height, encoder.pix_fmt = padded[-1].shape[1], padded[-1].shape[0], "yuv420p"
    encoder.time_base = _FRAME_INTERVAL
    encoder.thread_count = 1
    encoder.options = {**codec_options.options, **options}
    packets = []
    for number, pixels in enumerate(padded):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        frame.pts = number
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    decoder = cast("av.VideoCodecContext", av.CodecContext.create(codec_options.decoder, "r"))
    decoder.thread_count = 1
    decoded = [frame for packet in [*packets, None] for frame in decoder.decode(packet)]
    return np.ascontiguousarray(decoded[-1].to_ndarray(format="rgb24")[:height, :width])
