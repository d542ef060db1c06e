"""
What ffmpeg's log says of a file: its tracks, and when it begins.

The log quotes the file: names and values of its metadata are printed as they are, with any line breaks that they have,
so a file can write lines that look like ffmpeg's own. What is believed here is therefore what no file can write:

- Lines that begin with a colour (``read_authentic``): warnings, errors and what filters say (``showinfo``).
- The list of streams of an output that has no metadata and a name that cannot be guessed (``FileLog.name``).
- The time at which the file begins, which is in the quoting part alone, if it is there once.
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
"""The profile of Dolby Vision whose colours are in a space of its own, which no decoder here reads."""

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
    """Among all tracks of the file."""
    codec: str
    is_default: bool
    """Enabled in MP4, default in Matroska."""
    rotation_deg: int = 0
    dolby_vision_profile: int | None = None
    has_mastering_display: bool = False


@dataclass(slots=True)
class FileLog:
    """What ffmpeg says about the file while it reads it."""

    name: str = field(default_factory=secrets.token_hex)
    """
    Of the output that lists the tracks, the format ``null`` of which allows any name. It cannot be guessed by a file.
    """
    tracks: list[VideoTrack] = field(default_factory=list)
    """In the file's order, without cover art and thumbnails."""
    packets_track: int | None = None
    """The track whose packets are read, counted among all tracks of the file."""
    start_s: float | None = None
    """When players begin: the begin of the track, sound included, that begins first."""
    is_forged: bool = False
    """Whether the file quotes a line of ffmpeg's, so that it is uncertain when it begins."""
    truncated: bool = False
    has_no_size: bool = False
    """Whether a track's pictures have no size, so that no track could be listed."""
    _has_duration: bool = False
    _mapped: dict[tuple[int, int], int] = field(default_factory=dict)
    _is_in_list: bool = False
    _track: VideoTrack | None = None

    def listing_arguments(self, which: str = "V") -> list[str]:
        """
        The arguments of the output that lists the tracks, which must be ffmpeg's first.

        It copies none of their packets, and neither the file's metadata nor its chapters.

        Args:
            which: ffmpeg's specifier of the tracks.
        """
        options = ("-map_metadata", "-1", "-map_chapters", "-1", "-t", "0", "-f", "null")
        return ["-map", f"0:{which}", "-c", "copy", *options, self.name]

    def read(self, line: str) -> None:
        """Take one line of the log, with its colours."""
        if (own := read_authentic(line)) is not None:
            self.truncated |= any(sign in own for sign in TRUNCATION_SIGNS)
            self.has_no_size |= "dimensions not set" in own
        elif line == f"Output #0, null, to '{self.name}':":
            self._is_in_list = True
            self.packets_track = next((track for (output, _), track in self._mapped.items() if output > 0), None)
        elif not line.startswith(" "):
            self._is_in_list = False
            if line == "Stream mapping:":
                # The last one before the list is ffmpeg's, since all that quotes the file comes before it.
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
            # The matrix turns counter-clockwise.
            self._track.rotation_deg = round(-float(match[1]) / 90) * 90 % 360
        elif match := _DOLBY_LINE.match(line):
            self._track.dolby_vision_profile = int(match[1])
        elif _MASTERING_LINE.match(line):
            self._track.has_mastering_display = True
