"""Images: decoded by a child process, see ``picture.py``."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared import errors
from shared.errors import DecodeError, MediaError
from worker.media.process import BoundedProcess, Leash, read_exactly

SCRIPT = Path(__file__).with_name("picture.py")
HEADER_BYTES = 4096

_BY_CODE = {kind.code: kind for kind in (errors.TruncatedError, errors.TooManyPixelsError, errors.NotMediaError)}


def decode_image(
    path: Path, *, max_pixels: int, timeout_s: float, leash: Leash | None = None
) -> tuple[dict[str, Any], NDArray[np.uint8]]:
    """
    Decode the first picture of an image file, upright.

    Returns:
        Facts (``container``, ``width_px``, ``height_px``, ``rotation_deg``) and (H, W, 3) uint8 RGB pixels.

    Raises:
        MediaError: The image is damaged or exceeds *max_pixels*.
        DecodeError: The decoder crashed, or did not end in time.
    """
    # -I: nothing from the environment or the current folder is imported.
    arguments = [sys.executable, "-I", str(SCRIPT), str(path.absolute()), str(max_pixels)]
    with BoundedProcess(arguments, timeout_s=timeout_s, leash=leash) as child:
        header = child.stdout.readline(HEADER_BYTES)
        try:
            facts: dict[str, Any] = json.loads(header)
        except ValueError as error:
            status = child.wait()
            raise DecodeError(f"the image decoder ended with status {status}") from error
        if "error" in facts:
            raise _BY_CODE.get(facts["error"], MediaError)(facts["detail"])
        size = facts["height_px"] * facts["width_px"] * 3
        data = read_exactly(child.stdout, size)
        if len(data) < size:
            status = child.wait()
            raise DecodeError(f"the image decoder ended with status {status}")
    pixels = np.frombuffer(data, np.uint8).reshape(facts["height_px"], facts["width_px"], 3)
    return facts, pixels
