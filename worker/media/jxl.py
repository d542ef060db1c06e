"""
JPEG XL pictures, decoded by ffmpeg with libjxl.

Pillow cannot read JPEG XL, and the plugin that adds it is under the GPL (``docs/decisions/0016``). ffmpeg writes the
picture as a portable arbitrary map (PAM), whose header has its size. Animations were refused by their header before.
"""

import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Final

import numpy as np
from numpy.typing import NDArray

from shared.containers import inspect_header
from shared.errors import DecodeError, TooManyPixelsError, TruncatedError, UnsupportedMediaError
from worker.media.ffmpeg import build_command, open_input
from worker.media.process import BoundedProcess, CancelToken, read_exactly
from worker.media.still import Picture

CONTAINER: Final = "jxl"
LINE_BYTES: Final = 256
_SIDE = re.compile(rb"(WIDTH|HEIGHT) (\d+)\n")
_NO_END = "Unexpected end of JXL codestream"
_NO_READER = re.compile(r"Unknown input format|[Dd]ecoder .*not found|Decoding requested, but no decoder")
_NO_MEMORY = re.compile(r"Cannot allocate memory|JXL_DEC_ERROR.*memory")


def read(path: Path, work_pixels: int, *, timeout_s: float, cancel_token: CancelToken | None = None) -> Picture:
    """
    Decode the picture at *path*; scale it down by a power of two if it has more than *work_pixels*.

    Raises:
        MediaError: The picture is damaged or too large for the decoder's memory, or ffmpeg was built without libjxl.
        DecodeError: The decoder crashed.
        DecodeTimeoutError: The decoder did not end in time.
    """
    with path.open("rb") as stream:
        header = inspect_header(stream, path.stat().st_size)
    width_px, height_px = header.width_px or 1, header.height_px or 1
    factor = 1
    while width_px * height_px > work_pixels * factor**2:
        factor *= 2
    stream = open_input(path, CONTAINER)["V:0"]
    if factor > 1:
        stream = stream.filter("scale", f"ceil(iw/{factor})", f"ceil(ih/{factor})", flags="area")
    output = stream.output("pipe:", f="image2pipe", vcodec="pam", pix_fmt="rgba", vframes=1)
    size_px = -(-width_px // factor), -(-height_px // factor)
    rgb = _flatten_onto_white(_decode(build_command(output), size_px, timeout_s, cancel_token))
    if factor == 1:
        return Picture(rgb, rgb.shape[1], rgb.shape[0])
    if (rgb.shape[1] > rgb.shape[0]) != (width_px > height_px):
        # The decoder has turned the picture upright, so its sides have changed places.
        width_px, height_px = height_px, width_px
    return Picture(rgb, width_px, height_px)


def _decode(
    arguments: Sequence[str], size_px: tuple[int, int], timeout_s: float, cancel_token: CancelToken | None
) -> NDArray[np.uint8]:
    """Run ffmpeg; return the picture as (H, W, 4) RGBA."""
    is_truncated = threading.Event()

    def read_line(line: str) -> None:
        # Without this, ffmpeg would wait forever for the missing end of a truncated file.
        if _NO_END in line and not is_truncated.is_set():
            is_truncated.set()
            child.end()

    child = BoundedProcess(arguments, timeout_s=timeout_s, on_line=read_line, cancel_token=cancel_token)
    with child:
        pixels = _read_pam(child.stdout, size_px)
        if pixels is not None:
            return pixels
        status = child.wait()
    log = " ".join(child.lines)
    if _NO_READER.search(log):
        raise UnsupportedMediaError("JPEG XL is not supported by this service: its ffmpeg was built without libjxl")
    if _NO_MEMORY.search(log):
        raise TooManyPixelsError("the picture needs more memory than allowed")
    if status < 0 and not is_truncated.is_set():
        raise DecodeError(f"the image decoder was ended by signal {-status}")
    raise TruncatedError("the image's data is damaged or incomplete")


def _read_pam(stream: IO[bytes], size_px: tuple[int, int]) -> NDArray[np.uint8] | None:
    """
    Read an RGBA picture in the PAM format, as (H, W, 4); return None if it is incomplete.

    Raises:
        TruncatedError: Its width and height are not *size_px*, in either order. The limits were checked for that size.
    """
    sides = {}
    while line := stream.readline(LINE_BYTES):
        if match := _SIDE.fullmatch(line):
            sides[match[1]] = int(match[2])
        elif line == b"ENDHDR\n":
            break
    if len(sides) < 2:
        return None
    shape = sides[b"HEIGHT"], sides[b"WIDTH"], 4
    if sorted(shape[:2]) != sorted(size_px):
        raise TruncatedError(
            f"the image's header is damaged: it announces {size_px[0]} × {size_px[1]} pixels,"
            f" and {shape[1]} × {shape[0]} are decoded"
        )
    data = read_exactly(stream, shape[0] * shape[1] * 4)
    return np.frombuffer(data, np.uint8).reshape(shape) if len(data) == shape[0] * shape[1] * 4 else None


def _flatten_onto_white(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Blend an RGBA picture onto white, (H, W, 3), row by row to save memory."""
    rgb = pixels[..., :3].copy()
    for row in np.flatnonzero((pixels[..., 3] < 255).any(axis=1)):
        opacity = pixels[row, :, 3:].astype(np.uint16)
        rgb[row] = (pixels[row, :, :3] * opacity + 255 * (255 - opacity) + 127) // 255
    return rgb
