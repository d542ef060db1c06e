"""The videos of the demonstration: one of real faces and one of swapped faces, made from two portraits."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deepfakestream.errors import MissingPartError

FPS = 25
WIDTH, HEIGHT = 640, 360
SCENE_S = 5
"""Length of a scene: that of a segment by default, so that each segment shows one scene."""
VIDEO_S = 4 * SCENE_S

Landmarks = Sequence[tuple[float, float]]
"""Left and right eye, nose, left and right corner of the mouth: (x, y) in pixels."""
ASTRONAUT_LANDMARKS: Landmarks = ((105, 102), (147, 104), (126, 128), (102, 140), (146, 142))
HOPPER_LANDMARKS: Landmarks = ((133, 172), (218, 168), (178, 217), (140, 256), (218, 253))
GENERATED_PX = 128
"""Side of the face that face-swapping networks commonly generate, before it is enlarged."""


def make_demo_videos(folder: Path) -> tuple[Path, Path]:
    """
    Make two short H.264 videos from two portraits in the public domain that come with Python packages.

    Four scenes show the astronaut Eileen Collins (scikit-image), Grace Hopper (matplotlib), both, and nobody. The
    portraits move and grow a little, so that frames differ. In the second video each person has the other's face.

    Args:
        folder: Existing folder into which the videos are written, replacing earlier ones.

    Returns:
        Paths of the real and of the swapped video.

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
        raise MissingPartError("the demo needs more packages: install deepfakestream-server[worker,demo]") from error
    portrait = data.astronaut()  # type: ignore[no-untyped-call]
    astronaut = Image.fromarray(portrait).crop((100, 0, 380, 280))
    file = cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)
    hopper = Image.open(str(file)).convert("RGB").crop((90, 20, 430, 360))
    generator = np.random.default_rng(7)
    noise = generator.integers(90, 130, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
    background = Image.fromarray(noise).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    swapped_astronaut = swap_face(hopper, HOPPER_LANDMARKS, astronaut, ASTRONAUT_LANDMARKS)
    swapped_hopper = swap_face(astronaut, ASTRONAUT_LANDMARKS, hopper, HOPPER_LANDMARKS)
    ffmpeg = _find_ffmpeg(imageio_ffmpeg)
    real, swapped = folder / "real.mp4", folder / "swapped.mp4"
    _encode(ffmpeg, real, background, astronaut, hopper)
    _encode(ffmpeg, swapped, background, swapped_astronaut, swapped_hopper)
    return real, swapped


def _encode(ffmpeg: str, path: Path, background: Any, astronaut: Any, hopper: Any) -> None:
    command = [
        *(ffmpeg, "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24"),
        *("-s", f"{WIDTH}x{HEIGHT}", "-r", str(FPS), "-i", "-", "-c:v", "libx264", "-preset", "medium"),
        # A high quality, as phones record: compression makes real faces look less real to the checkpoint.
        *("-crf", "18", "-pix_fmt", "yuv420p", str(path)),
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        if process.stdin is None:
            raise MissingPartError("cannot write to ffmpeg's input")
        for number in range(FPS * VIDEO_S):
            process.stdin.write(_draw_frame(background, astronaut, hopper, number / FPS).tobytes())
        process.stdin.close()
        if process.wait() != 0:
            raise MissingPartError("ffmpeg could not make the demo video")


def swap_face(source: Any, source_landmarks: Landmarks, target: Any, target_landmarks: Landmarks) -> Any:
    """
    Put the face of one portrait onto another: aligned by landmarks, matched in colour, blended at the edge.

    The result is as crude as that of many face-swapping programs, since the face is generated small and enlarged.

    Args:
        source: PIL image, RGB, with the face to take.
        source_landmarks: Landmarks of that face.
        target: PIL image, RGB, whose face is replaced.
        target_landmarks: Landmarks of the replaced face.

    Returns:
        PIL image, RGB, of the size of *target*.
    """
    import numpy as np
    from PIL import Image, ImageDraw, ImageFilter

    # PIL's affine transform maps pixels of the target to pixels of the source.
    rows = np.column_stack([np.array(target_landmarks), np.ones(len(target_landmarks))])
    matrix = np.linalg.lstsq(rows, np.array(source_landmarks, float), rcond=None)[0].T
    face = source.transform(target.size, Image.Transform.AFFINE, matrix.ravel(), Image.Resampling.BICUBIC)
    face = face.resize((GENERATED_PX, GENERATED_PX), Image.Resampling.LANCZOS)
    face = face.resize(target.size, Image.Resampling.BICUBIC)
    (left_x, eye_y), (right_x, _), _, (_, left_mouth_y), (_, right_mouth_y) = target_landmarks
    eye_distance, mouth_y = right_x - left_x, (left_mouth_y + right_mouth_y) / 2
    mask = Image.new("L", target.size, 0)
    margin = 0.45 * eye_distance
    box = (left_x - margin, eye_y - 0.55 * eye_distance, right_x + margin, mouth_y + 0.5 * eye_distance)
    ImageDraw.Draw(mask).ellipse(box, fill=255)
    mask = mask.filter(ImageFilter.GaussianBlur(0.1 * eye_distance))
    inside = np.asarray(mask) > 127
    pixels, wanted = np.asarray(face, float), np.asarray(target, float)
    mean, spread = pixels[inside].mean(axis=0), pixels[inside].std(axis=0)
    matched = (pixels - mean) / np.maximum(spread, 1.0) * wanted[inside].std(axis=0) + wanted[inside].mean(axis=0)
    coloured = Image.fromarray(np.clip(matched + 0.5, 0, 255).astype(np.uint8))
    return Image.composite(coloured, target, mask)


def _draw_frame(background: Any, astronaut: Any, hopper: Any, time_s: float) -> Any:
    """Draw the frame at *time_s*; each scene shows other people."""
    picture = background.copy()
    scene = int(time_s // SCENE_S)
    drift = int(20 * (time_s % SCENE_S))
    side = 220 + int(10 * (time_s % SCENE_S))
    if scene in (0, 2):
        picture.paste(astronaut.resize((side, side)), (30 + drift, 60))
    if scene in (1, 2):
        picture.paste(hopper.resize((side, side)), (WIDTH - side - 30 - drift, 70))
    return picture


def _find_ffmpeg(imageio_ffmpeg: Any) -> str:
    return shutil.which("ffmpeg") or str(imageio_ffmpeg.get_ffmpeg_exe())
