"""A demonstration: two videos made on the spot, of real faces and of swapped ones, scanned by the whole service."""

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deepfakestream.errors import MissingPartError

FPS = 25
WIDTH, HEIGHT = 640, 360
SCENE_S = 5
"""As long as a segment is by default, so that each segment shows one scene."""
SECONDS = 4 * SCENE_S

Landmarks = Sequence[tuple[float, float]]
"""Eyes, nose and corners of the mouth, in pixels."""
ASTRONAUT_MARKS: Landmarks = ((105, 102), (147, 104), (126, 128), (102, 140), (146, 142))
HOPPER_MARKS: Landmarks = ((133, 172), (218, 168), (178, 217), (140, 256), (218, 253))
GENERATED_PX = 128
"""Side of the picture that face-swapping networks commonly paint, from which it is enlarged."""


def make_demo_videos(folder: Path) -> tuple[Path, Path]:
    """
    Make two short H.264 videos from two portraits in the public domain that come with packages.

    First the astronaut Eileen Collins (scikit-image), then Grace Hopper (matplotlib), then both, then nobody: the
    portraits drift and grow a little, so that frames differ. In the second video each wears the other's face. Each
    scene lasts as long as a segment does by default.

    Returns:
        The real one and the swapped one.

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
    swapped_astronaut = _with_face_of(hopper, HOPPER_MARKS, astronaut, ASTRONAUT_MARKS)
    swapped_hopper = _with_face_of(astronaut, ASTRONAUT_MARKS, hopper, HOPPER_MARKS)
    ffmpeg = _ffmpeg(imageio_ffmpeg)
    real, swapped = folder / "real.mp4", folder / "swapped.mp4"
    _encode(ffmpeg, real, ground, astronaut, hopper)
    _encode(ffmpeg, swapped, ground, swapped_astronaut, swapped_hopper)
    return real, swapped


def _encode(ffmpeg: str, path: Path, ground: Any, astronaut: Any, hopper: Any) -> None:
    command = [
        *(ffmpeg, "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24"),
        *("-s", f"{WIDTH}x{HEIGHT}", "-r", str(FPS), "-i", "-", "-c:v", "libx264", "-preset", "medium"),
        # Well, as phones record: what compression takes away makes real faces look less real to the checkpoint.
        *("-crf", "18", "-pix_fmt", "yuv420p", str(path)),
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        if process.stdin is None:
            raise MissingPartError("ffmpeg takes no input")
        for number in range(FPS * SECONDS):
            process.stdin.write(_frame(ground, astronaut, hopper, number / FPS).tobytes())
        process.stdin.close()
        if process.wait() != 0:
            raise MissingPartError("ffmpeg could not make the demo video")


def _with_face_of(source: Any, source_marks: Landmarks, target: Any, target_marks: Landmarks) -> Any:
    """
    *target* with the face of *source*: laid on its landmarks, coloured like it, feathered at the edge.

    As crude as the swaps that many programs make: the face is painted small and enlarged.
    """
    import numpy as np
    from PIL import Image, ImageDraw, ImageFilter

    # PIL wants to know where in the source each pixel of the target comes from.
    rows = np.column_stack([np.array(target_marks), np.ones(len(target_marks))])
    matrix = np.linalg.lstsq(rows, np.array(source_marks, float), rcond=None)[0].T
    face = source.transform(target.size, Image.Transform.AFFINE, matrix.ravel(), Image.Resampling.BICUBIC)
    face = face.resize((GENERATED_PX, GENERATED_PX), Image.Resampling.LANCZOS)
    face = face.resize(target.size, Image.Resampling.BICUBIC)
    (left, top), (right, _), _, (_, mouth_left), (_, mouth_right) = target_marks
    apart, mouth = right - left, (mouth_left + mouth_right) / 2
    mask = Image.new("L", target.size, 0)
    box = (left - 0.45 * apart, top - 0.55 * apart, right + 0.45 * apart, mouth + 0.5 * apart)
    ImageDraw.Draw(mask).ellipse(box, fill=255)
    mask = mask.filter(ImageFilter.GaussianBlur(0.1 * apart))
    inside = np.asarray(mask) > 127
    pixels, wanted = np.asarray(face, float), np.asarray(target, float)
    mean, spread = pixels[inside].mean(axis=0), pixels[inside].std(axis=0)
    matched = (pixels - mean) / np.maximum(spread, 1.0) * wanted[inside].std(axis=0) + wanted[inside].mean(axis=0)
    coloured = Image.fromarray(np.clip(matched + 0.5, 0, 255).astype(np.uint8))
    return Image.composite(coloured, target, mask)


def _frame(ground: Any, astronaut: Any, hopper: Any, time_s: float) -> Any:
    """The picture at *time_s*: who is there changes with each scene."""
    picture = ground.copy()
    scene = int(time_s // SCENE_S)
    drift = int(20 * (time_s % SCENE_S))
    side = 220 + int(10 * (time_s % SCENE_S))
    if scene in (0, 2):
        picture.paste(astronaut.resize((side, side)), (30 + drift, 60))
    if scene in (1, 2):
        picture.paste(hopper.resize((side, side)), (WIDTH - side - 30 - drift, 70))
    return picture


def _ffmpeg(imageio_ffmpeg: Any) -> str:
    import shutil

    return shutil.which("ffmpeg") or str(imageio_ffmpeg.get_ffmpeg_exe())
