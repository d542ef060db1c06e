"""
The tracks and the start time of a file, as ffmpeg's log reports them.

The log quotes metadata of the file verbatim, with line breaks, so a file can contain lines that look like ffmpeg's own.
Only what no file can forge is used:

- Lines that begin with a colour code (``read_authentic``): warnings, errors and the output of filters (``showinfo``).
- The list of streams of an output without metadata whose name cannot be guessed (``FileLog.name``).
- The start time, which is only in the quoted part, if it is there exactly once.
"""

import re
import secrets
from dataclasses import dataclass, field
from typing import Final

from worker.media.process import read_authentic

TRUNCATION_SIGNS: Final = (
    "moov atom not found",
    "partial file",
    "Packet corrupt",
    "File ended prematurely",
    "Truncating packet",
    "truncated",
    "end of file",
)
UNREADABLE_DOLBY_PROFILE: Final = 5
"""The Dolby Vision profile with a proprietary colour space, which ffmpeg cannot convert."""

_DURATION_LINE = re.compile(r"^  Duration: ")
_START_LINE = re.compile(r"^  Duration: .*?, start: (-?\d+\.\d+)")
_MAPPED_LINE = re.compile(r"^  Stream #0:(\d+) -> #(\d+):(\d+) \(copy\)")
_VIDEO_LINE = re.compile(r"^  Stream #0:(\d+): Video: (\w+)(.*)$")
_STREAM_LINE = re.compile(r"^  Stream #")
_ROTATION_LINE = re.compile(r"^\s+(?:displaymatrix|Display Matrix): rotation of (-?\d+(?:\.\d+)?) degrees")
_DOLBY_LINE = re.compile(r"^\s+DOVI configuration record: .*?\bprofile: (\d+)")
_MASTERING_LINE = re.compile(r"^\s+(?:mastering display|content light level) metadata\b", re.IGNORECASE)


@dataclass(slots=True)
class VideoTrack:
    """One video track, as the log lists it."""

    index: int
    """Number of the track among all tracks of the file, from 0."""
    codec: str
    is_default: bool
    """Whether the track is enabled (MP4) or the default (Matroska)."""
    rotation_deg: int = 0
    dolby_vision_profile: int | None = None
    has_mastering_display: bool = False


@dataclass(slots=True)
class FileLog:
    """Parser of what ffmpeg logs about a file while it reads it."""

    name: str = field(default_factory=secrets.token_hex)
    """Name of the output that lists the tracks: random, so that no file can forge it. The format ``null`` allows it."""
    tracks: list[VideoTrack] = field(default_factory=list)
    """Video tracks in the file's order, without cover art and thumbnails."""
    packets_track: int | None = None
    """Number of the track whose packets are read, among all tracks of the file."""
    start_s: float | None = None
    """Where players begin: the start of the earliest track, audio included."""
    is_forged: bool = False
    """Whether the metadata imitates a line of the log, so that the start time is uncertain."""
    truncated: bool = False
    has_no_size: bool = False
    """Whether the frames of a track have no size, so that no track could be listed."""
    _has_duration: bool = False
    _mapped: dict[tuple[int, int], int] = field(default_factory=dict)
    _is_in_list: bool = False
    _track: VideoTrack | None = None

    def listing_arguments(self, which: str = "V") -> list[str]:
        """
        Return the arguments of the output that lists the tracks; it must be ffmpeg's first output.

        It copies no packets, and neither metadata nor chapters, which the log would quote.

        Args:
            which: ffmpeg's stream specifier of the tracks to list.
        """
        options = ("-map_metadata", "-1", "-map_chapters", "-1", "-t", "0", "-f", "null")
        return ["-map", f"0:{which}", "-c", "copy", *options, self.name]

    def read(self, line: str) -> None:
        """Parse one line of the log, given with its colour codes."""
        if (text := read_authentic(line)) is not None:
            self.truncated |= any(sign in text for sign in TRUNCATION_SIGNS)
            self.has_no_size |= "dimensions not set" in text
        elif line == f"Output #0, null, to '{self.name}':":
            self._is_in_list = True
            self.packets_track = next((track for (output, _), track in self._mapped.items() if output > 0), None)
        elif not line.startswith(" "):
            self._is_in_list = False
            if line == "Stream mapping:":
                # The last mapping before the list is ffmpeg's own: everything quoted from the file precedes it.
                self._mapped.clear()
        elif self._is_in_list:
            self._read_list(line)
        elif match := _MAPPED_LINE.match(line):
            self._mapped[int(match[2]), int(match[3])] = int(match[1])
        elif _DURATION_LINE.match(line):
            self.is_forged |= self._has_duration
            self._has_duration = True
            if match := _START_LINE.match(line):
                self.start_s = float(match[1])

    def _read_list(self, line: str) -> None:
        if match := _VIDEO_LINE.match(line):
            index = self._mapped.get((0, int(match[1])))
            if index is None:
                return
            self._track = VideoTrack(index, match[2], "(default)" in match[3])
            if "(attached pic)" not in match[3] and "(timed thumbnails)" not in match[3]:
                self.tracks.append(self._track)
        elif _STREAM_LINE.match(line):
            self._track = None
        elif self._track is None:
            return
        elif match := _ROTATION_LINE.match(line):
            # The display matrix turns counter-clockwise.
            self._track.rotation_deg = round(-float(match[1]) / 90) * 90 % 360
        elif match := _DOLBY_LINE.match(line):
            self._track.dolby_vision_profile = int(match[1])
        elif _MASTERING_LINE.match(line):
            self._track.has_mastering_display = True
