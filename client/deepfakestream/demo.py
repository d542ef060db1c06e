"""A demonstration: a video made on the spot, scanned by the whole service."""

import subprocess
import tempfile
from pathlib import Path
from typing import Any

from deepfakestream.errors import MissingPartError

FPS = 25
WIDTH, HEIGHT = 640, 360
SECONDS = 12


def make_demo_video(path: Path) -> None:
    """
    Make a short H.264 video from two portraits in the public domain that come with packages.

    First the astronaut Eileen Collins (scikit-image), then Grace Hopper (matplotlib), then both, then nobody: the
    portraits drift and grow a little, so that frames differ.

    Raises:
        MissingPartError: The packages with the portraits, or ffmpeg, are not installed.
    """
    try:
        import imageio_ffmpeg
        import numpy as np
        from matplotlib import cbook
        from PIL import Image
        from skimage import data
    except ImportError as error:
        raise MissingPartError("the demo needs deepfakestream-server[worker,demo]") from error
    portrait = data.astronaut()  # type: ignore[no-untyped-call]
    astronaut = Image.fromarray(portrait).crop((100, 0, 380, 280))
    file = cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)
    hopper = Image.open(str(file)).convert("RGB").crop((90, 20, 430, 360))
    generator = np.random.default_rng(7)
    noise = generator.integers(90, 130, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
    ground = Image.fromarray(noise).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    command = [
        *(_ffmpeg(imageio_ffmpeg), "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24"),
        *("-s", f"{WIDTH}x{HEIGHT}", "-r", str(FPS), "-i", "-", "-c:v", "libx264", "-preset", "veryfast"),
        *("-crf", "20", "-pix_fmt", "yuv420p", str(path)),
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        if process.stdin is None:
            raise MissingPartError("ffmpeg takes no input")
        for number in range(FPS * SECONDS):
            process.stdin.write(_frame(ground, astronaut, hopper, number / FPS).tobytes())
        process.stdin.close()
        if process.wait() != 0:
            raise MissingPartError("ffmpeg could not make the demo video")


def demo_folder() -> "tempfile.TemporaryDirectory[str]":
    """A folder for the demo video that goes with its context."""
    return tempfile.TemporaryDirectory(prefix="deepfakestream-demo-")


def _frame(ground: Any, astronaut: Any, hopper: Any, time_s: float) -> Any:
    """The picture at *time_s*: who is there changes every three seconds."""
    picture = ground.copy()
    scene = int(time_s // 3)
    drift = int(20 * (time_s % 3))
    side = 220 + int(10 * (time_s % 3))
    if scene in (0, 2):
        picture.paste(astronaut.resize((side, side)), (30 + drift, 60))
    if scene in (1, 2):
        picture.paste(hopper.resize((side, side)), (WIDTH - side - 30 - drift, 70))
    return picture


def _ffmpeg(imageio_ffmpeg: Any) -> str:
    import shutil

    return shutil.which("ffmpeg") or str(imageio_ffmpeg.get_ffmpeg_exe())
