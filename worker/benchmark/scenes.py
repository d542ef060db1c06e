"""Synthetic clips, of which one property varies at a time: duration, resolution or faces per frame."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib import cbook
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from worker.media.ffmpeg import find_ffmpeg

FPS: Final = 25
LOOP_S: Final = 10
"""Length that is drawn; longer clips repeat it."""
PORTRAIT_SHARE: Final = 0.35
"""Side of a portrait as a share of the picture's height; the face is a little less than half as large."""
PORTRAITS_PER_ROW: Final = 5
KEPT_BYTES: Final = 300_000_000
"""Limit of the memory for drawn frames."""


def make_scene(path: Path, *, width_px: int, height_px: int, seconds: int, faces: int) -> Path:
    """
    Write an H.264 clip of public-domain portraits that move over a grainy background, unless *path* exists.

    Args:
        seconds: Length: a multiple of ten, or less than ten.
        faces: Number of faces per frame, 0 to 10.
    """
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, loop = path.with_suffix(".partial.mp4"), path.with_suffix(".loop.mp4")
    drawn_s = min(seconds, LOOP_S)
    command = [
        *(find_ffmpeg(), "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width_px}x{height_px}"),
        *("-r", str(FPS), "-i", "-", "-c:v", "libx264", "-preset", "veryfast", "-crf", "23", "-g", str(2 * FPS)),
        *("-pix_fmt", "yuv420p", str(loop)),
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        if process.stdin is None:
            raise RuntimeError("the encoder has no standard input")
        for frame in _frames(width_px, height_px, drawn_s * FPS, faces):
            process.stdin.write(frame.tobytes())
        process.stdin.close()
        if process.wait() != 0:
            raise RuntimeError(f"{path} could not be encoded")
    repeats = str(max(1, round(seconds / drawn_s)) - 1)
    copy = [find_ffmpeg(), "-v", "error", "-y", "-stream_loop", repeats, "-i", str(loop), "-c", "copy", str(partial)]
    subprocess.run(copy, check=True)
    loop.unlink()
    partial.rename(path)
    return path


def _frames(width_px: int, height_px: int, count: int, faces: int) -> Iterator[NDArray[np.uint8]]:
    """Yield *count* frames, of which only a few differ: drawing each would take longer than measuring."""
    rng = np.random.default_rng(5)
    rough = Image.fromarray(rng.integers(70, 150, (height_px // 16 + 1, width_px // 16 + 1, 3), dtype=np.uint8))
    ground = rough.resize((width_px, height_px), Image.Resampling.BICUBIC)
    side = round(height_px * PORTRAIT_SHARE)
    portraits = [portrait.resize((side, side)) for portrait in _portraits()]
    steps = min(2 * FPS, max(5, KEPT_BYTES // (3 * width_px * height_px)))
    drawn = []
    for step in range(steps):
        picture = ground.copy()
        drift = round(side * 0.2 * np.sin(2 * np.pi * step / steps))
        for place in range(faces):
            row, column = divmod(place, PORTRAITS_PER_ROW)
            left = round((column + 0.5) * width_px / PORTRAITS_PER_ROW - side / 2) + drift
            top = round(height_px * (0.08 + 0.48 * row)) + drift // 2
            picture.paste(portraits[place % len(portraits)], (left, top))
        grain = rng.integers(-4, 5, (height_px, width_px, 1), dtype=np.int16)
        drawn.append(np.clip(np.asarray(picture, np.int16) + grain, 0, 255).astype(np.uint8))
    return (drawn[number % steps] for number in range(count))


def _portraits() -> list[Image.Image]:
    """Return portraits of Eileen Collins (from scikit-image) and Grace Hopper (from matplotlib)."""
    astronaut = Image.fromarray(data.astronaut()).crop((100, 0, 380, 280))  # type: ignore[no-untyped-call]
    file = cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)
    return [astronaut, Image.open(str(file)).convert("RGB").crop((90, 20, 430, 360))]
