"""
Copies of a data set's videos as a platform would publish them: encoded again and optionally smaller.

Media that reach the service were usually compressed twice. Names, folders and metadata files are kept, so that the
same reader reads the copy, with the same division into sets.
"""

import shutil
import subprocess
from pathlib import Path
from typing import Final, NamedTuple

import ffmpeg
from tqdm import tqdm

from worker.media.ffmpeg import find_ffmpeg
from worker.training.data.folder_settings import record_settings
from worker.training.data.media import PICTURES, VIDEOS
from worker.training.errors import DataError

TIMEOUT_S: Final = 600.0
"""Time limit for one video."""
METADATA: Final = frozenset({".json", ".csv", ".txt"})
"""Endings of files that describe videos."""
SETTINGS_FILE: Final = "reencoded.json"
CRFS: Final = (0, 51)
"""Range of x264's constant rate factor with 8 bits a sample, from lossless to the worst."""
_MUXERS: Final = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".avi": "avi"}
"""FFmpeg's muxer by ending; for others Matroska, of which WebM is a part."""


class ReencodedCounts(NamedTuple):
    """Numbers of copied and of omitted files."""

    videos: int
    pictures: int
    """Left out, since platforms compress pictures differently from x264."""
    others: int
    """Left out, since they are neither videos nor pictures nor their metadata."""


def reencode(source: Path, target: Path, *, crf: int, scale: float = 1.0, preset: str = "medium") -> ReencodedCounts:
    """
    Encode every video below *source* with H.264 (x264) into the same place below *target*.

    Metadata, lists and tables are copied; pictures are left out. Existing files are kept.

    Args:
        crf: Constant rate factor, within ``CRFS``: 23 is x264's default, 28 is close to messengers, 35 is visibly poor.
        scale: Factor of each side, above 0 and at most 1; sides are rounded to even numbers of at least 2 px.
        preset: Preset of x264.

    Returns:
        The number of videos in *target*, and of other files of *source* that were omitted.

    Raises:
        DataError: A setting is out of its range, there is no video, one cannot be encoded, *target* is inside
            *source*, or was made with other settings.
    """
    if not CRFS[0] <= crf <= CRFS[1]:
        raise DataError(f"crf is {crf}; x264 takes {CRFS[0]} (lossless) to {CRFS[1]} (worst), such as 28 or 35")
    if not 0.0 < scale <= 1.0:
        raise DataError(f"scale is {scale:g}; each side is multiplied by it, so it has to be above 0 and at most 1")
    if target.resolve().is_relative_to(source.resolve()):
        raise DataError(f"{target} is inside {source}; choose a folder outside it")
    files = sorted(path for path in source.rglob("*") if path.is_file())
    videos = [path for path in files if path.suffix.lower() in VIDEOS]
    if not videos:
        raise DataError(f"there is no video below {source}")
    target.mkdir(parents=True, exist_ok=True)
    record_settings(target / SETTINGS_FILE, {"crf": crf, "scale": scale, "preset": preset}, "other settings")
    for path in files:
        if path.suffix.lower() in METADATA and not (target / path.relative_to(source)).exists():
            (target / path.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target / path.relative_to(source))
    for video in tqdm(videos, unit="file", desc=f"crf {crf}"):
        copy = target / video.relative_to(source)
        if not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            _encode(video, copy, crf, scale, preset)
    pictures = sum(path.suffix.lower() in PICTURES for path in files)
    others = sum(path.suffix.lower() not in VIDEOS | PICTURES | METADATA for path in files)
    return ReencodedCounts(len(videos), pictures, others)


def _encode(video: Path, copy: Path, crf: int, scale: float, preset: str) -> None:
    partial = copy.with_name(f".partial-{copy.name}")
    # FFmpeg would take a side of 0 to mean the side of the input.
    sides = [f"max(2,trunc({side}*{scale}/2)*2)" for side in ("iw", "ih")]
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
    command: list[str] = ffmpeg.compile(
        graph, cmd=[find_ffmpeg(), "-nostdin", "-loglevel", "error"], overwrite_output=True
    )
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT_S)
    except (OSError, subprocess.SubprocessError) as error:
        partial.unlink(missing_ok=True)
        said = getattr(error, "stderr", b"") or b""
        raise DataError(f"{video} cannot be encoded: {said.decode(errors='replace').strip() or error}") from error
    partial.rename(copy)
