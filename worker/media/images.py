"""
Still images and animations, decoded in a child process by Pillow (``picture.py``) or, for JPEG XL, by ffmpeg.

A file may hold several pictures, numbered from 0: the pages of a TIFF, the pictures of a HEIC file, or those of a JPEG
from a phone with two lenses. The videos of a motion photo follow the last picture. An animation is treated as a video,
whose pictures have times.
"""

import json
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from shared import errors
from shared.containers import MediaLimits
from shared.errors import DecodeError
from worker.media import jxl
from worker.media.forked import PythonDecoder
from worker.media.process import BoundedProcess, CancelToken, read_exactly
from worker.media.still import Picture

SCRIPT = Path(__file__).with_name("picture.py")
LINE_BYTES = 4096
COPY_BLOCK_BYTES = 1024**2
MAX_CLIP_BYTES: Final = 256 * 1024**2
"""Largest video in a motion photo, which is copied to a temporary file; those of phones have a few megabytes."""

WORK_PIXELS: Final = 8192 * 4320
"""Pictures with more pixels are decoded at a half, a quarter or an eighth of their width and height."""

_ERRORS_BY_CODE = {
    kind.code: kind
    for kind in (
        errors.TruncatedError,
        errors.TooManyPixelsError,
        errors.NotMediaError,
        errors.TooLongError,
        errors.UnsupportedMediaError,
    )
}
"""The codes that the child process may report."""


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """Facts of a file of pictures."""

    container: str
    kind: Literal["image", "video"]
    """``video`` for an animation."""
    width_px: int
    """Width of the first picture, upright and in full size."""
    height_px: int
    rotation_deg: int
    pictures: int
    """Number of pictures, without the videos of a motion photo."""
    duration_s: float | None
    """Duration of one pass of an animation; None for still pictures."""
    truncated: bool
    """Whether part of an animation is missing or damaged."""
    clips: int
    """Number of videos that follow the last picture: one in a usual motion photo."""


@dataclass(frozen=True, slots=True)
class Clip:
    """A video in the file of a picture, at the bytes ``[begin, end)``."""

    path: Path
    begin: int
    end: int

    @contextmanager
    def extract(self) -> Generator[Path, None, None]:
        """
        Copy the video to a temporary file, which exists until the context ends.

        Raises:
            TooLargeError: The video has more than ``MAX_CLIP_BYTES``.
        """
        if self.end - self.begin > MAX_CLIP_BYTES:
            raise errors.TooLargeError(
                f"the video of the motion photo has {self.end - self.begin} bytes; at most {MAX_CLIP_BYTES} are read"
            )
        with NamedTemporaryFile(prefix="dfs-clip-") as copy, self.path.open("rb") as source:
            source.seek(self.begin)
            left = self.end - self.begin
            while left > 0 and (block := source.read(min(left, COPY_BLOCK_BYTES))):
                copy.write(block)
                left -= len(block)
            copy.flush()
            yield Path(copy.name)


def probe_image(path: Path, container: str, limits: MediaLimits, *, timeout_s: float) -> ImageFacts:
    """
    Find the facts of the image or animation at *path*.

    Args:
        container: The container's name in ``shared.containers``.

    Raises:
        MediaError: The file is damaged, exceeds *limits*, or is stored in an unsupported way.
        DecodeError: The decoder crashed, or did not end in time.
    """
    if container == jxl.CONTAINER:
        picture = jxl.read(path, WORK_PIXELS, timeout_s=timeout_s)
        return ImageFacts(container, "image", picture.full_width_px, picture.full_height_px, 0, 1, None, False, 0)
    request = {"max_pixels": limits.max_pixels, "max_image_pixels": limits.max_image_pixels}
    with _start_decoder(path, "probe", request, timeout_s, None) as child:
        return ImageFacts(**_receive_line(child))


def read_picture(
    path: Path, container: str, number: int, *, timeout_s: float, cancel_token: CancelToken | None = None
) -> Picture | Clip:
    """
    Decode picture *number*; the numbers after the last one are the videos of a motion photo.

    Raises:
        MediaError, DecodeError: As ``probe_image`` does.
    """
    if container == jxl.CONTAINER:
        return jxl.read(path, WORK_PIXELS, timeout_s=timeout_s, cancel_token=cancel_token)
    with _start_decoder(path, "picture", {"number": number}, timeout_s, cancel_token) as child:
        line = _receive_line(child)
        return Clip(path, *line["clip"]) if "clip" in line else _receive_picture(child, line)


def read_animation(
    path: Path,
    *,
    start_s: float,
    end_s: float,
    sample_fps: float,
    timeout_s: float,
    cancel_token: CancelToken | None = None,
) -> Generator[tuple[float, Picture], None, None]:
    """
    Decode the pictures of an animation that begin in ``[start_s, end_s)``, one for each cell of ``1 / sample_fps`` s.

    A short animation is not sampled: every picture is decoded. If no picture begins in the interval, the one that is
    shown at its start is decoded.

    Args:
        timeout_s: Wall-clock limit of decoding; time that the caller spends between pictures does not count.

    Yields:
        Each picture with its time.

    Raises:
        MediaError, DecodeError: As ``probe_image`` does.
    """
    request = {"start_s": start_s, "end_s": end_s, "sample_fps": sample_fps}
    with _start_decoder(path, "animation", request, timeout_s, cancel_token) as child:
        while "end" not in (line := _receive_line(child)):
            picture = _receive_picture(child, line)
            with child.paused():
                yield line["time_s"], picture


def _start_decoder(
    path: Path, command: str, arguments: dict[str, Any], timeout_s: float, cancel_token: CancelToken | None
) -> PythonDecoder:
    request = {"command": command, "work_pixels": WORK_PIXELS, **arguments}
    return PythonDecoder(SCRIPT, path, request, timeout_s=timeout_s, cancel_token=cancel_token)


def _receive_line(child: BoundedProcess) -> dict[str, Any]:
    try:
        line: dict[str, Any] = json.loads(child.stdout.readline(LINE_BYTES))
    except ValueError as error:
        raise _decoder_error(child) from error
    if "error" in line:
        kind = _ERRORS_BY_CODE.get(line["error"])
        if kind is None:
            raise DecodeError(f"the image decoder reported the unknown code {line['error']!r}")
        raise kind(line["detail"])
    return line


def _receive_picture(child: BoundedProcess, line: dict[str, Any]) -> Picture:
    pixels = _receive_pixels(child.stdout, line["width_px"], line["height_px"])
    if pixels is None:
        raise _decoder_error(child)
    return Picture(pixels, line["full_width_px"], line["full_height_px"])


def _receive_pixels(stream: IO[bytes], width_px: int, height_px: int) -> NDArray[np.uint8] | None:
    size = height_px * width_px * 3
    data = read_exactly(stream, size)
    return np.frombuffer(data, np.uint8).reshape(height_px, width_px, 3) if len(data) == size else None


def _decoder_error(child: BoundedProcess) -> DecodeError:
    return DecodeError(f"the image decoder ended with status {child.wait()}")
