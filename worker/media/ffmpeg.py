"""ffmpeg's command lines: where the program is, and the options that make it safe for untrusted files."""

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import ffmpeg
import imageio_ffmpeg

DEMUXERS = {
    "mp4": "mov",
    "mov": "mov",
    "3gp": "mov",
    "matroska": "matroska",
    "webm": "matroska",
    "avi": "avi",
    "mpegts": "mpegts",
    "mpegps": "mpeg",
    "mxf": "mxf",
    "flv": "flv",
    "asf": "asf",
    "jxl": "jpegxl_pipe",
}
"""Container, as ``shared.containers`` names it → the only demuxer that may open it."""

DECODERS = ",".join(
    (
        *("h264", "hevc", "vp8", "vp9", "av1", "libdav1d", "libaom-av1", "mpeg4"),
        *("prores", "dnxhd", "mjpeg", "mpeg1video", "mpeg2video", "h263"),
        *("flv", "vp6f", "wmv1", "wmv2", "wmv3", "vc1", "msmpeg4v2", "msmpeg4", "libjxl"),
    )
)
"""The only decoders that may run. There are none for audio, which is not decoded."""

THREADS = 2

MIN_RELEASE = (7, 0)
"""Older releases lack options that are used here, or use another log format."""


@lru_cache(maxsize=1)
def find_ffmpeg() -> str:
    """Return the path of ffmpeg: the one on the PATH if it is recent enough, or else that of imageio-ffmpeg."""
    found = shutil.which("ffmpeg")
    return found if found and is_recent(found) else str(imageio_ffmpeg.get_ffmpeg_exe())


def is_recent(path: str) -> bool:
    """Return whether the ffmpeg at *path* is of release ``MIN_RELEASE`` or later, or a development build."""
    try:
        done = subprocess.run([path, "-version"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return False
    match = re.match(r"ffmpeg version n?(\d+)\.(\d+)", done.stdout)
    if match is None:
        return done.stdout.startswith("ffmpeg version N-")
    return (int(match[1]), int(match[2])) >= MIN_RELEASE


def open_input(path: Path, container: str, **options: Any) -> Any:
    """
    Make an ffmpeg-python input node for the file at *path*.

    The demuxer is fixed, so that the content cannot choose one that opens other files (playlists, concat
    scripts). Protocols are limited to files.
    """
    return ffmpeg.input(
        # The prefix keeps ffmpeg from reading a name as an option or a protocol.
        f"file:{os.path.abspath(path)}",  # noqa: PTH100 - resolve() would follow links for no gain
        f=DEMUXERS[container],
        protocol_whitelist="file",
        codec_whitelist=DECODERS,
        threads=THREADS,
        **options,
    )


def select_video(source: Any, track: int | None) -> Any:
    """Select the track number *track* of an input node, counted from 0, or by default the first video track."""
    # V, unlike v, leaves out cover art.
    return source["V:0" if track is None else str(track)]


def log_frames(stream: Any) -> Any:
    """Make ffmpeg log each frame of *stream* (the filter ``showinfo``)."""
    # Encoders attach text to frames, for instance x265 its settings to each; ffmpeg would log all of it.
    return stream.filter("sidedata", "delete", type="SEI_UNREGISTERED").filter("showinfo", checksum=0)


def build_command(*outputs: Any, log: str = "info", before: Sequence[str] = ()) -> list[str]:
    """
    Build the command that runs the filter graph of *outputs*, with ffmpeg's log level *log*.

    Args:
        outputs: Output nodes of ffmpeg-python, which may reorder them.
        before: Arguments of a further output, which is to be the first one.
    """
    flags = ["-hide_banner", "-nostdin", "-nostats", "-copyts", "-loglevel", log]
    arguments: list[str] = ffmpeg.compile(list(outputs), cmd=[find_ffmpeg(), *flags])
    end = arguments.index("-i") + 2
    return [*arguments[:end], *before, *arguments[end:]]
