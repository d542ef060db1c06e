"""
Videos of a data set once more as a platform would hand them on: encoded again, smaller if wished, in the same layout.

What was compressed twice is what people send. Names, folders and what else lies beside the videos (metadata, lists,
tables) stay as they are, so that the same reader reads the copy, with the same division.
"""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Final

import ffmpeg
from tqdm import tqdm

from worker.media.ffmpeg import program
from worker.training.datasets import VIDEOS
from worker.training.errors import DataError

TIMEOUT_S: Final = 600.0
"""For one video."""
TOLD: Final = frozenset({".json", ".csv", ".txt"})
"""Endings of what tells of videos."""
SETTINGS_FILE: Final = "reencoded.json"
_MUXERS: Final = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".avi": "avi"}
"""By ending; for others Matroska, which WebM is a part of."""


def reencode(source: Path, target: Path, *, crf: int, scale: float = 1.0, preset: str = "medium") -> int:
    """
    Encode every video below *source* with H.264 (x264) into the same place below *target*.

    Metadata, lists and tables are copied; pictures are left out. What is there already is left as it is.

    Args:
        crf: Constant rate factor: 23 is x264's own, 28 what messengers come near to, 35 visibly poor.
        scale: Of each side; sides stay even.
        preset: Of x264.

    Returns:
        How many videos *target* now holds.

    Raises:
        DataError: There is no video, one cannot be encoded, or *target* was made with other settings.
    """
    files = sorted(path for path in source.rglob("*") if path.is_file())
    videos = [path for path in files if path.suffix.lower() in VIDEOS]
    if not videos:
        raise DataError(f"there is no video below {source}")
    _claim(target, {"crf": crf, "scale": scale, "preset": preset})
    for path in files:
        if path.suffix.lower() in TOLD and not (target / path.relative_to(source)).exists():
            (target / path.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target / path.relative_to(source))
    for video in tqdm(videos, unit="file", desc=f"crf {crf}"):
        copy = target / video.relative_to(source)
        if not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            _encode(video, copy, crf, scale, preset)
    return len(videos)


def _claim(target: Path, settings: dict[str, object]) -> None:
    path = target / SETTINGS_FILE
    if path.exists() and json.loads(path.read_bytes()) != settings:
        raise DataError(f"{target} was encoded with other settings; take another folder or delete it")
    target.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(settings) + "\n")


def _encode(video: Path, copy: Path, crf: int, scale: float, preset: str) -> None:
    partial = copy.with_name(f".partial-{copy.name}")
    sides = [f"trunc({side}*{scale}/2)*2" for side in ("iw", "ih")]
    picture = ffmpeg.input(f"file:{video.resolve()}").video.filter("scale", *sides, flags="bicubic")
    graph = ffmpeg.output(
        picture,
        f"file:{partial.resolve()}",
        f=_MUXERS.get(copy.suffix.lower(), "matroska"),
        vcodec="libx264",
        crf=crf,
        preset=preset,
        pix_fmt="yuv420p",
    )
    command: list[str] = ffmpeg.compile(graph, cmd=[program(), "-nostdin", "-loglevel", "error"], overwrite_output=True)
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT_S)
    except (OSError, subprocess.SubprocessError) as error:
        partial.unlink(missing_ok=True)
        said = getattr(error, "stderr", b"") or b""
        raise DataError(f"{video} cannot be encoded: {said.decode(errors='replace').strip() or error}") from error
    partial.rename(copy)
