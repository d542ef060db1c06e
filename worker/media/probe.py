"""
The probe: facts of a media file, as players show it.

Times come from the packets that exist, not from the header: a truncated file is as long as what is left of it. Media
time 0 is where players begin, which is before the first frame if the audio begins earlier. What an edit list removes
does not count.
"""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, Self

from shared.containers import (
    PICTURES,
    VIDEO_CODECS,
    HeaderFacts,
    MediaLimits,
    check_limits,
    check_size,
    inspect_header,
    select_default_track,
    unsupported_codec,
)
from shared.errors import (
    DecodeError,
    MediaError,
    NotMediaError,
    NoVideoStreamError,
    TooLongError,
    TruncatedError,
    UnsupportedCodecError,
    UnsupportedMediaError,
)
from worker.media.ffmpeg import build_command, log_frames, open_input, select_video
from worker.media.filelog import UNREADABLE_DOLBY_PROFILE, FileLog, VideoTrack
from worker.media.images import probe_image
from worker.media.packets import PacketScan
from worker.media.process import BoundedProcess, seconds_left
from worker.media.showinfo import FirstFrame
from worker.media.tonemap import DynamicRange

PRESENTATION_FIELDS: Final = ("video_track", "other_video_tracks", "dynamic_range")
"""Facts that are stored in a column of their own, since older releases refuse unknown facts."""
WITHOUT_METADATA: Final = {"map_metadata": -1, "map_chapters": -1}
"""Options of an output without the file's metadata, which the log would quote."""
BROADCAST_CONTAINERS: Final = ("mpegts", "mpegps")
"""Containers that may announce tracks without content, and have no default track: the first one is shown."""
SPARSELY_TIMED_CONTAINERS: Final = ("mpegps", "mxf")
"""Containers in which only some packets may have presentation times; ffmpeg derives the others."""
SIZED_TRACKS: Final = "V:u"
"""ffmpeg's specifier of the video tracks whose frames have a size."""
TIME_TOLERANCE_S: Final = 1e-5
"""Times that differ by less are equal, since times are rounded."""


@dataclass(frozen=True, slots=True)
class MediaFacts:
    """The facts of an image or video."""

    kind: Literal["image", "video"]
    container: str
    codec: str
    width_px: int
    """As displayed: turned upright, with square pixels."""
    height_px: int
    rotation_deg: int
    """Clockwise, from the stored to the displayed picture: 0, 90, 180 or 270."""
    duration_s: float | None
    """When the last frame ends, in media time; None for images."""
    start_s: float
    """Time of the file's clock at media time 0, where players begin."""
    frame_count: int
    """Number of displayed frames. For an image: its pictures, plus one for each video of a motion photo."""
    frame_rate: float | None
    """Frames a second on average; None for images and single frames."""
    truncated: bool
    """Whether the end of the file is missing."""
    video_bytes: int | None = None
    """Bytes of the video track, without audio; None for images."""
    first_s: float = 0.0
    """When the first frame appears, in media time."""
    video_track: int | None = None
    """Number of the analysed track among all tracks of the file, from 0; None for images."""
    other_video_tracks: int = 0
    """Number of further video tracks, which are not analysed; cover art does not count."""
    dynamic_range: DynamicRange = "sdr"
    """Dynamic range of the colours; ``pq`` and ``hlg`` are mapped to SDR when frames are read."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values for the JSON column ``facts``, without those that older releases refuse there."""
        facts = asdict(self)
        for name in ("video_bytes", "first_s", *PRESENTATION_FIELDS):
            del facts[name]
        return facts

    def presentation(self) -> dict[str, Any]:
        """Return plain values for the JSON column ``presentation``: the facts that ``to_json`` leaves out."""
        return {name: getattr(self, name) for name in PRESENTATION_FIELDS}

    @classmethod
    def from_json(cls, data: dict[str, Any], presentation: dict[str, Any] | None = None) -> Self:
        """Read what ``to_json`` and ``presentation`` wrote; the latter is None if an older release probed the file."""
        known = {name: value for name, value in (presentation or {}).items() if name in PRESENTATION_FIELDS}
        return cls(**data, **known)


def probe(path: Path, limits: MediaLimits, *, timeout_s: float = 60.0) -> MediaFacts:
    """
    Find the facts of the image or video at *path* and check them against *limits*.

    Args:
        timeout_s: Wall-clock limit of all decoder processes together.

    Raises:
        MediaError: The file cannot be analysed; the code says why.
        DecodeError: The decoder crashed or did not end in time.
    """
    size_bytes = path.stat().st_size
    check_size(size_bytes, limits)
    with path.open("rb") as stream:
        header = inspect_header(stream, size_bytes)
    # Only the header's size is checked here: duration and frame rate may be wrong in a header, and are measured below.
    check_limits(
        HeaderFacts(header.kind, header.container, width_px=header.width_px, height_px=header.height_px),
        limits,
    )
    if header.container in PICTURES:
        return _probe_image(path, header.container, limits, timeout_s)
    return _probe_video(path, header, limits, time.monotonic() + timeout_s)


def _probe_image(path: Path, container: str, limits: MediaLimits, timeout_s: float) -> MediaFacts:
    """Find the facts of still pictures or of an animation."""
    found = probe_image(path, container, limits, timeout_s=timeout_s)
    frames = found.pictures + found.clips
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
class _VideoScan:
    """What ffmpeg reports about a video."""

    log: FileLog
    track: VideoTrack
    scan: PacketScan
    first: FirstFrame


def _probe_video(path: Path, header: HeaderFacts, limits: MediaLimits, deadline: float) -> MediaFacts:
    found = _scan_in_one_pass(path, header.container, None, deadline)
    if found is None:
        # Two separate passes tell what is wrong.
        found = _scan_in_two_passes(path, header.container, limits, deadline)
    log, track, scan, first = found.log, found.track, found.scan, found.first
    start_s, first_s, end_s = _find_time_range(found)
    _check_duration(start_s, end_s, limits)
    width_px, height_px = first.size_px or (0, 0)
    duration_s, shown_s = round(end_s - start_s, 6), end_s - first_s
    facts = MediaFacts(
        kind="video",
        container=header.container,
        codec=track.codec,
        width_px=width_px,
        height_px=height_px,
        rotation_deg=track.rotation_deg,
        duration_s=duration_s,
        start_s=start_s,
        frame_count=scan.count,
        frame_rate=round(scan.count / shown_s, 4) if scan.count > 1 else None,
        truncated=log.truncated,
        video_bytes=scan.size_bytes,
        first_s=round(first_s - start_s, 6),
        video_track=track.index,
        other_video_tracks=len(log.tracks) - 1,
        dynamic_range=first.dynamic_range(track),
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


def _find_time_range(found: _VideoScan) -> tuple[float, float, float]:
    """Return where players begin, where the first frame appears and where the last one ends, by the file's clock."""
    first_s, end_s = found.scan.span()
    start_s = found.log.start_s
    if start_s is None or start_s > first_s - TIME_TOLERANCE_S:
        start_s = first_s
    if found.first.time_s is not None and first_s + TIME_TOLERANCE_S < found.first.time_s < end_s:
        # Leading frames that refer to frames before the start of the file do not decode.
        first_s = found.first.time_s
    return start_s, first_s, end_s


def _check_duration(start_s: float, end_s: float, limits: MediaLimits) -> None:
    if end_s - start_s > limits.max_duration_s:
        raise TooLongError(
            f"the video lasts {end_s - start_s:.1f} s; the limit max_duration_s is {limits.max_duration_s:g}"
        )


def _scan_in_one_pass(path: Path, container: str, index: int | None, deadline: float) -> _VideoScan | None:
    """
    Do the work of ``_scan_in_two_passes`` in one process; return None if anything is wrong.

    Opening a file takes longer than reading its packets. Which track is shown is only known afterwards: the first
    video track is tried, and if it is another one, that is scanned in a second run.
    """
    log, scan, first = FileLog(), PacketScan(), FirstFrame()

    def read(line: str) -> None:
        log.read(line)
        first.read(line)

    # Errors are ignored when packets are read, but not when they are decoded.
    options = {"err_detect": "ignore_err", "err_detect:v": 0}
    source = _open_timed(path, container, **options)
    outputs = _packets_output(source, index), _first_frame_output(source, index)
    arguments = build_command(*outputs, before=log.listing_arguments())
    with BoundedProcess(arguments, timeout_s=seconds_left(deadline), on_line=read) as child:
        for line in child.stdout:
            scan.read(line)
        status = child.wait()
    _check_log(log)
    track = select_default_track(log.tracks)
    if track is None:
        return None
    if track.index != log.packets_track:
        return _scan_in_one_pass(path, container, track.index, deadline) if index is None else None
    is_sound = status == 0 and scan.count > 0 and not log.truncated and first.size_px and _is_readable(track)
    return _VideoScan(log, track, scan, first) if is_sound else None


def _is_readable(track: VideoTrack) -> bool:
    return track.codec in VIDEO_CODECS and track.dolby_vision_profile != UNREADABLE_DOLBY_PROFILE


def _check_log(log: FileLog) -> None:
    if log.is_forged:
        raise UnsupportedMediaError(
            "the file's metadata imitates the decoder's log, which makes the timestamps uncertain; remove the metadata"
            " and send the file again"
        )


def _open_timed(path: Path, container: str, **options: Any) -> Any:
    """Open an input whose packets have presentation times, as far as they can be derived."""
    return open_input(
        path, container, **options, **({"fflags": "+genpts"} if container in SPARSELY_TIMED_CONTAINERS else {})
    )


def _packets_output(source: Any, index: int | None) -> Any:
    """Make an output that lists the packets of a video track of *source*, one line each."""
    packets = select_video(source, index)
    options = {"copyinkf": None, "avoid_negative_ts": "disabled"}
    return packets.output("pipe:", f="framecrc", c="copy", **options, **WITHOUT_METADATA)


def _first_frame_output(source: Any, index: int | None) -> Any:
    """Make an output that decodes the first frame of a video track of *source* and writes nothing."""
    return log_frames(select_video(source, index)).output("pipe:", f="null", vframes=1, **WITHOUT_METADATA)


def _scan_in_two_passes(path: Path, container: str, limits: MediaLimits, deadline: float) -> _VideoScan:
    """
    Read the packets of the displayed track without decoding them, then decode its first frame.

    Raises:
        MediaError: The file cannot be analysed; the code says why.
        DecodeError: The decoder crashed or did not end in time.
    """
    log, track, scan = _read_packets(path, container, None, deadline)
    if track.index != log.packets_track:
        log, track, scan = _read_packets(path, container, track.index, deadline)
    if scan.count == 0:
        raise TruncatedError("the file ends before any frame")
    _check_duration(*scan.span(), limits)
    return _VideoScan(log, track, scan, _decode_first(path, container, track.index, seconds_left(deadline)))


def _read_packets(
    path: Path, container: str, index: int | None, deadline: float, which: str = "V"
) -> tuple[FileLog, VideoTrack, PacketScan]:
    log, scan = FileLog(), PacketScan()
    source = _open_timed(path, container, err_detect="ignore_err")
    arguments = build_command(_packets_output(source, index), before=log.listing_arguments(which))
    with BoundedProcess(arguments, timeout_s=seconds_left(deadline), on_line=log.read) as child:
        for line in child.stdout:
            scan.read(line)
        status = child.wait()
    _check_log(log)
    track = select_default_track(log.tracks)
    if track is None and which == "V" and container in BROADCAST_CONTAINERS:
        try:
            return _read_packets(path, container, index, deadline, SIZED_TRACKS)
        except NoVideoStreamError:
            if not log.has_no_size:
                raise
    if track is None:
        raise _explain_missing_track(log, " ".join(child.lines))
    if track.dolby_vision_profile == UNREADABLE_DOLBY_PROFILE:
        raise UnsupportedCodecError(
            f"Dolby Vision profile {UNREADABLE_DOLBY_PROFILE} is unsupported: its colours need Dolby's decoder;"
            " export the video as HDR10, HLG or SDR"
        )
    if track.codec not in VIDEO_CODECS:
        raise unsupported_codec(track.codec)
    if scan.count == 0 and status < 0:
        raise DecodeError(f"the demuxer was ended by signal {-status}")
    return log, track, scan


def _explain_missing_track(log: FileLog, text: str) -> MediaError:
    """Return the error for a file without a listed track; *text* is the end of the log."""
    if log.has_no_size:
        return TruncatedError(
            "the file has a video track whose frames have no size: it is damaged or incomplete, or its codec is not"
            " supported"
        )
    if "matches no streams" in text or "does not contain any stream" in text or "Stream #0" in text:
        return NoVideoStreamError("the file has no video stream")
    if "moov atom not found" in text or log.truncated:
        return TruncatedError("the file ends before any frame")
    return NotMediaError("the file is not a readable video of the format that its first bytes announce")


def _decode_first(path: Path, container: str, index: int, timeout_s: float) -> FirstFrame:
    first = FirstFrame()
    output = _first_frame_output(open_input(path, container), index)
    with BoundedProcess(build_command(output), timeout_s=timeout_s, on_line=first.read) as child:
        child.stdout.read()
        status = child.wait()
    if first.size_px is not None:
        return first
    if status < 0:
        raise DecodeError(f"the decoder was ended by signal {-status}")
    raise TruncatedError("no frame of the video can be decoded")
