"""Clips and pictures that tests make on the spot: a public-domain face that moves over a noisy ground."""

import subprocess
from functools import lru_cache
from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib import cbook
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from worker.media.ffmpeg import find_ffmpeg

ENCODERS = {
    "h264": ("libx264", "-preset", "ultrafast", "-crf", "20"),
    "hevc": ("libx265", "-preset", "ultrafast", "-crf", "20", "-x265-params", "log-level=error"),
    "vp8": ("libvpx", "-b:v", "1M", "-deadline", "realtime", "-cpu-used", "8"),
    "vp9": ("libvpx-vp9", "-b:v", "1M", "-deadline", "realtime", "-cpu-used", "8"),
    "av1": ("libsvtav1", "-preset", "12", "-crf", "35"),
    "mpeg4": ("mpeg4", "-q:v", "3"),
    "mjpeg": ("mjpeg", "-q:v", "3"),
    "mpeg1video": ("mpeg1video", "-q:v", "3"),
    "mpeg2video": ("mpeg2video", "-q:v", "3"),
    "prores": ("prores_ks", "-profile:v", "0", "-pix_fmt", "yuv422p10le"),
    "dnxhd": ("dnxhd", "-profile:v", "dnxhr_lb", "-pix_fmt", "yuv422p"),
    "h263": ("h263", "-s", "176x144"),
    "flv1": ("flv", "-q:v", "3"),
    "wmv1": ("wmv1", "-q:v", "3"),
    "wmv2": ("wmv2", "-q:v", "3"),
    "msmpeg4v2": ("msmpeg4v2", "-q:v", "3"),
    "msmpeg4v3": ("msmpeg4", "-q:v", "3"),
    "ffv1": ("ffv1",),
}
"""Codec → encoder and options; ``ffv1`` is one that the service does not accept."""


BROADCAST = {
    "h264.ts": ("h264", "mpegts", ()),
    "mpeg2.ts": ("mpeg2video", "mpegts", ("-r", "25")),
    "h264.m2ts": ("h264", "mpegts", ("-mpegts_m2ts_mode", "1")),
    "mpeg2.mpg": ("mpeg2video", "mpegps", ("-r", "25")),
    "mpeg2.mxf": ("mpeg2video", "mxf", ("-r", "25")),
    "dnxhd.mxf": ("dnxhd", "mxf", ("-r", "25")),
    "prores.mov": ("prores", "mov", ()),
    "dnxhd.mov": ("dnxhd", "mov", ()),
    "mjpeg.mov": ("mjpeg", "mov", ()),
    "mjpeg.avi": ("mjpeg", "avi", ()),
    "mjpeg.mkv": ("mjpeg", "matroska", ()),
    "msmpeg4.avi": ("msmpeg4v2", "avi", ()),
    "h263.3gp": ("h263", "3gp", ()),
    "mpeg4.3gp": ("mpeg4", "3gp", ()),
    "sorenson.flv": ("flv1", "flv", ()),
    "h264.flv": ("h264", "flv", ()),
    "wmv2.wmv": ("wmv2", "asf", ()),
    "wmv1.asf": ("wmv1", "asf", ()),
    "msmpeg4.wmv": ("msmpeg4v3", "asf", ()),
}
"""Clips of the formats of newsrooms, cameras and the web of before: name → codec, container and options."""


def make_broadcast(folder: Path, name: str, *, seconds: float = 1.0) -> Path:
    """A clip of BROADCAST in *folder*."""
    codec, _, extra = BROADCAST[name]
    # 256 × 120 are the least of DNxHD.
    return make_clip(folder / name, codec=codec, size=(256, 144), seconds=seconds, extra=extra)


@lru_cache
def astronaut() -> NDArray[np.uint8]:
    """(280, 280, 3) uint8 RGB: Eileen Collins's face and shoulders, from scikit-image."""
    return np.asarray(Image.fromarray(data.astronaut()).crop((100, 0, 380, 280)))


@lru_cache
def hopper() -> NDArray[np.uint8]:
    """(280, 280, 3) uint8 RGB: Grace Hopper's, from matplotlib."""
    picture = Image.open(str(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))).convert("RGB")
    return np.asarray(picture.crop((90, 20, 430, 360)).resize((280, 280)))


def scene(
    number: int, *, size: tuple[int, int] = (320, 240), faces: tuple[NDArray[np.uint8], ...] | None = None
) -> NDArray[np.uint8]:
    """(height, width, 3) uint8 RGB: frame *number* of a scene with *faces* side by side, drifting."""
    width, height = size
    generator = np.random.default_rng(3)
    rough = Image.fromarray(generator.integers(80, 140, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8))
    picture = rough.resize(size, Image.Resampling.BICUBIC)
    faces = (astronaut(),) if faces is None else faces
    side = min(height * 3 // 4, width * 3 // 4 // max(1, len(faces)))
    for place, face in enumerate(faces):
        left = 8 + place * (side + 8) + number % 16
        picture.paste(Image.fromarray(face).resize((side, side)), (left, height // 8))
    return np.asarray(picture)


def noise_picture(number: int = 0) -> bytes:
    """A small JPEG without a face, another for each *number*."""
    file = BytesIO()
    noise = np.random.default_rng(number).integers(0, 256, (48, 48, 3), np.uint8)
    Image.fromarray(noise).save(file, "JPEG")
    return file.getvalue()


def make_clip(
    path: Path,
    *,
    codec: str = "h264",
    size: tuple[int, int] = (320, 240),
    fps: float = 10.0,
    seconds: float = 2.0,
    rotation: int = 0,
    faces: tuple[NDArray[np.uint8], ...] | None = None,
    frames: int | None = None,
    extra: tuple[str, ...] = (),
) -> Path:
    """
    Encode a clip at *path*, whose ending chooses the container.

    Args:
        rotation: Degrees clockwise that a player has to turn the stored picture by, as phones record.
        faces: Portraits to show; the astronaut by default.
        extra: Further output options of ffmpeg.
    """
    count = frames or round(fps * seconds)
    pictures = [scene(number, size=size, faces=faces) for number in range(min(count, 16))]
    target = path.with_name(f"upright-{path.name}") if rotation else path
    command = [find_ffmpeg(), "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{size[0]}x{size[1]}"]
    command += ["-r", str(fps), "-i", "-", "-pix_fmt", "yuv420p", "-c:v", *ENCODERS[codec], *extra, str(target)]
    stream = b"".join(pictures[number % len(pictures)].tobytes() for number in range(count))
    subprocess.run(command, input=stream, check=True)
    if rotation:
        # The matrix turns counter-clockwise, and what it says is how far the stored picture stands from upright.
        run("-display_rotation", str(-rotation), "-i", str(target), "-c", "copy", str(path))
    return path


def run(*arguments: str) -> None:
    """Run ffmpeg."""
    subprocess.run([find_ffmpeg(), "-v", "error", "-y", *arguments], check=True, stdin=subprocess.DEVNULL)


def truncate(path: Path, share: float) -> Path:
    """Keep the first *share* of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def without_frames(path: Path) -> Path:
    """Blank the media data of an MP4 file whose index comes first: what it says is whole, and no frame decodes."""
    content = bytearray(path.read_bytes())
    begin = content.index(b"mdat") + 4
    content[begin:] = bytes(len(content) - begin)
    path.write_bytes(content)
    return path
