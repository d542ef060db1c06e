"""
The facts of a media file, as decoding will meet them.

Times come from the packets that are really there, not from what the header claims: a truncated file is as long
as what is left of it. Media time 0 is the first frame's presentation time.
"""

import re
import statistics
import time
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Self

from shared.containers import (
    PICTURES,
    VIDEO_CODECS,
    HeaderFacts,
    MediaLimits,
    check_limits,
    check_size,
    inspect_header,
)
from shared.errors import (
    DecodeError,
    NotMediaError,
    NoVideoStreamError,
    TooLongError,
    TruncatedError,
    UnsupportedCodecError,
)
from worker.media.ffmpeg import command_line, open_input
from worker.media.images import probe_image
from worker.media.process import BoundedProcess, seconds_left


@dataclass(frozen=True, slots=True)
class MediaFacts:
    """What a probe found."""

    kind: Literal["image", "video"]
    container: str
    codec: str
    width_px: int
    """As displayed: rotation is applied."""
    height_px: int
    rotation_deg: int
    """Clockwise, from the stored to the displayed picture: 0, 90, 180 or 270."""
    duration_s: float | None
    """From the first frame's time to the end of the last; None for images."""
    start_s: float
    """The first frame's timestamp in the file; media time 0."""
    frame_count: int
    """Of an image: its pictures, and the video that a motion photo has behind them as one more."""
    frame_rate: float | None
    """Frames a second on average; None for images and single frames."""
    truncated: bool
    """Whether the end of the file is missing."""
    video_bytes: int | None = None
    """Of the video stream alone; None for images."""

    def to_json(self) -> dict[str, Any]:
        """Plain values, for a JSON column; ``video_bytes`` has one of its own, since older releases refuse it here."""
        facts = asdict(self)
        del facts["video_bytes"]
        return facts

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The facts that ``to_json`` wrote."""
        return cls(**data)


def probe(path: Path, limits: MediaLimits, *, timeout_s: float = 60.0) -> MediaFacts:
    """
    Find the facts of the image or video at *path* and check them against *limits*.

    Args:
        timeout_s: Wall-clock limit of all decoder processes together.

    Raises:
        MediaError: With the code that says what is wrong with the file.
        DecodeError: The decoder crashed or did not end in time.
    """
    size_bytes = path.stat().st_size
    check_size(size_bytes, limits)
    with path.open("rb") as stream:
        header = inspect_header(stream, size_bytes)
    # What the header claims of length and rate may be a lie; of pixels it cannot be one that helps the sender.
    check_limits(
        HeaderFacts(header.kind, header.container, width_px=header.width_px, height_px=header.height_px),
        limits,
    )
    if header.container in PICTURES:
        return _probe_image(path, header.container, limits, timeout_s)
    return _probe_video(path, header, limits, time.monotonic() + timeout_s)


def _probe_image(path: Path, container: str, limits: MediaLimits, timeout_s: float) -> MediaFacts:
    """The facts of still pictures or of an animation."""
    found = probe_image(path, container, limits, timeout_s=timeout_s)
    frames = found.pictures + found.has_clip
    facts = MediaFacts(
        kind=found.kind,
        container=found.container,
        codec=found.container,
        width_px=found.width_px,
        height_px=found.height_px,
        rotation_deg=found.rotation_deg,
        duration_s=found.duration_s,
        start_s=0.0,
        frame_count=frames,
        frame_rate=round(frames / found.duration_s, 4) if found.duration_s and frames > 1 else None,
        truncated=found.truncated,
    )
    check_limits(HeaderFacts(facts.kind, container, None, None, None, facts.duration_s, facts.frame_rate), limits)
    return facts


@dataclass(frozen=True, slots=True)
class _Packets:
    """What demuxing, without decoding, tells."""

    first_s: float
    end_s: float
    count: int
    codec: str
    rotation_deg: int
    truncated: bool
    size_bytes: int


def _probe_video(path: Path, header: HeaderFacts, limits: MediaLimits, deadline: float) -> MediaFacts:
    packets, size = _look(path, header.container, limits, seconds_left(deadline))
    if packets is None or size is None:
        # Something is amiss. One after the other they tell what it is.
        packets = _read_packets(path, header.container, limits, seconds_left(deadline))
        size = _decode_first_size(path, header.container, seconds_left(deadline))
    width_px, height_px = size
    duration_s = packets.end_s - packets.first_s
    facts = MediaFacts(
        kind="video",
        container=header.container,
        codec=packets.codec,
        width_px=width_px,
        height_px=height_px,
        rotation_deg=packets.rotation_deg,
        duration_s=round(duration_s, 6),
        start_s=packets.first_s,
        frame_count=packets.count,
        frame_rate=round(packets.count / duration_s, 4) if packets.count > 1 else None,
        truncated=packets.truncated,
        video_bytes=packets.size_bytes,
    )
    check_limits(
        HeaderFacts(
            "video",
            facts.container,
            width_px=width_px,
            height_px=height_px,
            duration_s=facts.duration_s,
            frame_rate=facts.frame_rate,
        ),
        limits,
    )
    return facts


_VIDEO_LINE = re.compile(r"^  Stream #0:\d+.*?: Video: (\w+)(.*)$")
_ROTATION_LINE = re.compile(r"^\s+(?:displaymatrix|Display Matrix): rotation of (-?\d+(?:\.\d+)?) degrees")
_TRUNCATION_SIGNS = (
    "moov atom not found",
    "partial file",
    "Packet corrupt",
    "File ended prematurely",
    "Truncating packet",
    "truncated",
    "end of file",
)
_TIMEBASE_LINE = re.compile(rb"^#tb 0: (\d+)/(\d+)")
_NO_FRAME_DURATION_S = 0.04
"""What a single frame without a duration lasts: one frame at 25 frames a second."""
MAX_FRAME_SECONDS = 3600.0
"""A last frame that claims to last longer than this is not believed."""


class _Log:
    """What ffmpeg says about the file while it reads it."""

    def __init__(self) -> None:
        self.codecs: list[str] = []
        self.has_video = False
        self.rotation_deg = 0
        self.truncated = False
        self._in_input = False

    def read(self, line: str) -> None:
        if line.startswith("Input #0"):
            self._in_input = True
        elif line.startswith(("Output #0", "Stream mapping")):
            self._in_input = False
        elif not line.startswith(" "):
            self.truncated |= any(sign in line for sign in _TRUNCATION_SIGNS)
        if not self._in_input:
            return
        if (match := _VIDEO_LINE.match(line)) and "(attached pic)" not in line:
            self.codecs.append(match[1])
        elif (match := _ROTATION_LINE.match(line)) and len(self.codecs) == 1:
            # The matrix turns counter-clockwise.
            self.rotation_deg = round(-float(match[1]) / 90) * 90 % 360


def _look(
    path: Path, container: str, limits: MediaLimits, timeout_s: float
) -> tuple[_Packets | None, tuple[int, int] | None]:
    """
    What ``_read_packets`` and ``_decode_first_size`` find, by one process instead of two; None where anything is amiss.

    Opening a file takes longer than reading its packets.
    """
    log, first, scan = _Log(), _FirstSize(), _PacketScan()

    def read(line: str) -> None:
        log.read(line)
        first.read(line)

    # What is forgiven when packets are read is not forgiven when they are decoded.
    options = {"err_detect": "ignore_err", "err_detect:v": 0}
    source = open_input(path, container, **options)
    arguments = command_line(_packets_of(source), _first_frame_of(source))
    with BoundedProcess(arguments, timeout_s=timeout_s, on_line=read) as child:
        for line in child.stdout:
            scan.read(line)
        status = child.wait()
    is_sound = status == 0 and scan.count > 0 and not log.truncated and log.codecs and log.codecs[0] in VIDEO_CODECS
    return (_judge(log, scan, limits) if is_sound else None), first.size_px


def _packets_of(source: Any) -> Any:
    """An output of the packets of the first video stream of *source*, a line each."""
    # V, unlike v, leaves out cover art.
    return source["V:0"].output("pipe:", f="framecrc", c="copy", copyinkf=None, avoid_negative_ts="disabled")


def _first_frame_of(source: Any) -> Any:
    """An output of nothing, for which the first frame of *source* is decoded."""
    return source["V:0"].filter("showinfo", checksum=0).output("pipe:", f="null", vframes=1)


def _read_packets(path: Path, container: str, limits: MediaLimits, timeout_s: float) -> _Packets:
    """Timestamps of the first video stream, read without decoding anything."""
    log, scan = _Log(), _PacketScan()
    output = _packets_of(open_input(path, container, err_detect="ignore_err"))
    with BoundedProcess(command_line(output), timeout_s=timeout_s, on_line=log.read) as child:
        for line in child.stdout:
            scan.read(line)
        status = child.wait()
    if not log.codecs:
        text = " ".join(child.lines)
        if "matches no streams" in text or "does not contain any stream" in text or "Stream #0" in text:
            raise NoVideoStreamError("the file holds no video stream")
        if "moov atom not found" in text or log.truncated:
            raise TruncatedError("the file ends before any frame")
        raise NotMediaError("the file cannot be read as the video that its first bytes announce")
    if log.codecs[0] not in VIDEO_CODECS:
        raise UnsupportedCodecError(
            f"the video codec {log.codecs[0]!r} is not supported; supported are {', '.join(VIDEO_CODECS)}"
        )
    if scan.count == 0:
        if status < 0:
            raise DecodeError(f"the demuxer was ended by signal {-status}")
        raise TruncatedError("the file ends before any frame")
    return _judge(log, scan, limits)


def _judge(log: _Log, scan: "_PacketScan", limits: MediaLimits) -> _Packets:
    """Of packets that were read, what they tell, unless they last too long."""
    first_s, end_s = scan.span()
    if end_s - first_s > limits.max_duration_s:
        raise TooLongError(
            f"the video lasts {end_s - first_s:.1f} s; the limit max_duration_s is {limits.max_duration_s:g}"
        )
    return _Packets(first_s, end_s, scan.count, log.codecs[0], log.rotation_deg, log.truncated, scan.size_bytes)


class _PacketScan:
    """The span of presentation times, in constant memory however long the file is."""

    def __init__(self) -> None:
        self.count = 0
        self.size_bytes = 0
        self._tick_s = 0.0
        self._first: int | None = None
        self._last: int | None = None
        self._last_duration = 0
        self._previous: list[int] = []

    def read(self, line: bytes) -> None:
        """Take one line of the framecrc format: stream, dts, pts, duration, size, checksum[, flags]."""
        if line.startswith(b"#"):
            if match := _TIMEBASE_LINE.match(line):
                self._tick_s = int(match[1]) / int(match[2])
            return
        fields = line.split(b",")
        try:
            dts, pts, duration, size = (int(value) for value in fields[1:5])
        except ValueError:
            return
        if size == 0:
            return
        # AVI has no presentation times; demuxers then give the smallest number there is.
        at = pts if pts > -(2**62) else dts
        if at <= -(2**62):
            return
        self.count += 1
        self.size_bytes += size
        self._first = at if self._first is None else min(self._first, at)
        if self._last is None or at > self._last:
            self._last, self._last_duration = at, duration
        self._previous = [*self._previous[-15:], at]

    def span(self) -> tuple[float, float]:
        """Seconds of the first frame's begin and the last one's end, by the file's clock."""
        if self._first is None or self._last is None:
            raise TruncatedError("the file has no frame with a time")
        duration_s = self._last_duration * self._tick_s
        if not 0 < duration_s <= MAX_FRAME_SECONDS:
            duration_s = self._usual_gap_s()
        return self._first * self._tick_s, self._last * self._tick_s + duration_s

    def _usual_gap_s(self) -> float:
        times = sorted(self._previous)
        gaps = [later - earlier for earlier, later in pairwise(times) if later > earlier]
        return statistics.median(gaps) * self._tick_s if gaps else _NO_FRAME_DURATION_S


_SIZE_LINE = re.compile(r"^\[Parsed_showinfo_\d+ @ [^\]]+\] n: *0 .*? s:(\d+)x(\d+) ")


class _FirstSize:
    """Displayed width and height, as ffmpeg's log tells them of the first frame that decodes."""

    def __init__(self) -> None:
        self.size_px: tuple[int, int] | None = None

    def read(self, line: str) -> None:
        if self.size_px is None and (match := _SIZE_LINE.match(line)):
            self.size_px = int(match[1]), int(match[2])


def _decode_first_size(path: Path, container: str, timeout_s: float) -> tuple[int, int]:
    """Displayed width and height, from the first frame that decodes."""
    first = _FirstSize()
    output = _first_frame_of(open_input(path, container))
    with BoundedProcess(command_line(output), timeout_s=timeout_s, on_line=first.read) as child:
        child.stdout.read()
        status = child.wait()
    if first.size_px is not None:
        return first.size_px
    if status < 0:
        raise DecodeError(f"the decoder was ended by signal {-status}")
    raise TruncatedError("no frame of the video can be decoded")
