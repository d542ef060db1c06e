"""
Videos of a data set once more as a platform would hand them on: encoded again, smaller if wished, in the same layout.

What was compressed twice is what people send. A copy in the same layout is read by the same reader, divided by the
same groups, and evaluated by the same commands as the data set it was made from.
"""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import ffmpeg
from tqdm import tqdm

from worker.media.ffmpeg import program
from worker.training.datasets import VIDEOS
from worker.training.errors import DataError

TIMEOUT_S = 600.0
"""For one video."""


def reencode(source: Path, target: Path, *, crf: int, scale: float = 1.0, preset: str = "medium") -> int:
    """
    Encode every video below *source* with H.264 (x264) into the same place below *target*; other files are left out.

    Videos that are there already are left as they are.

    Args:
        crf: Constant rate factor: 23 is x264's own, 28 what messengers come near to, 35 visibly poor.
        scale: Of each side; sides stay even.
        preset: Of x264.

    Returns:
        How many videos *target* now holds.

    Raises:
        DataError: There is no video, or one cannot be encoded.
    """
    videos = sorted(_videos(source))
    if not videos:
        raise DataError(f"there is no video below {source}")
    for video in tqdm(videos, unit="file", desc=f"crf {crf}"):
        copy = (target / video.relative_to(source)).with_suffix(".mp4")
        if not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            _encode(video, copy, crf, scale, preset)
    return len(videos)


def _videos(source: Path) -> Iterator[Path]:
    return (path for path in source.rglob("*") if path.suffix.lower() in VIDEOS and path.is_file())


def _encode(video: Path, copy: Path, crf: int, scale: float, preset: str) -> None:
    partial = copy.with_suffix(".partial.mp4")
    sides = [f"trunc({side}*{scale}/2)*2" for side in ("iw", "ih")]
    picture = ffmpeg.input(f"file:{video.resolve()}").video.filter("scale", *sides, flags="bicubic")
    graph = ffmpeg.output(
        picture, f"file:{partial.resolve()}", vcodec="libx264", crf=crf, preset=preset, pix_fmt="yuv420p"
    )
    command: list[str] = ffmpeg.compile(graph, cmd=[program(), "-nostdin", "-loglevel", "error"], overwrite_output=True)
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT_S)
    except (OSError, subprocess.SubprocessError) as error:
        partial.unlink(missing_ok=True)
        said = getattr(error, "stderr", b"") or b""
        raise DataError(f"{video} cannot be encoded: {said.decode(errors='replace').strip() or error}") from error
    partial.rename(copy)
