"""
The facts of a media file, as decoding will meet them and players show it.

Times come from the packets that are really there, not from what the header claims: a truncated file is as long
as what is left of it. Media time 0 is where players begin, which is before the first picture where sound begins first;
what an edit list cuts away is not counted.
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
from worker.media.ffmpeg import command_line, logged, open_input, video_of
from worker.media.filelog import LOST_COLOUR_PROFILE, FileLog, VideoTrack
from worker.media.images import probe_image
from worker.media.packets import PacketScan
from worker.media.process import BoundedProcess, seconds_left
from worker.media.showinfo import FirstFrame
from worker.media.tonemap import DynamicRange

PRESENTATION: Final = ("video_track", "other_video_tracks", "dynamic_range")
"""Facts that are kept apart from the others, since older releases refuse what they do not know."""
NO_METADATA: Final = {"map_metadata": -1, "map_chapters": -1}
"""Options of an output: what the file says of itself is not copied to it, nor quoted where the log describes it."""
BROADCAST: Final = ("mpegts", "mpegps")
"""Containers that may announce tracks of which nothing was recorded, and have no default one: the first is shown."""
SPARSELY_TIMED: Final = ("mpegps", "mxf")
"""Containers that may tell of some packets alone when they are shown; ffmpeg works it out for those between."""
USABLE: Final = "V:u"
"""ffmpeg's specifier of the video tracks whose pictures have a size."""
SAME_TIME_S: Final = 1e-5
"""Times that are closer than this are one, and were rounded."""


@dataclass(frozen=True, slots=True)
class MediaFacts:
    """What a probe found."""

    kind: Literal["image", "video"]
    container: str
    codec: str
    width_px: int
    """As displayed: turned upright, with square pixels."""
    height_px: int
    rotation_deg: int
    """Clockwise, from the stored to the displayed picture: 0, 90, 180 or 270."""
    duration_s: float | None
    """When the last picture ends, in media time; None for images."""
    start_s: float
    """What the file's clock says at media time 0, where players begin."""
    frame_count: int
    """Of the pictures that are shown. Of an image: its pictures, and each video of a motion photo as one more."""
    frame_rate: float | None
    """Frames a second on average; None for images and single frames."""
    truncated: bool
    """Whether the end of the file is missing."""
    video_bytes: int | None = None
    """Of the video track alone; None for images."""
    first_s: float = 0.0
    """When the first picture appears, in media time."""
    video_track: int | None = None
    """Which of the file's tracks is shown and looked at, counted from 0; None for images."""
    other_video_tracks: int = 0
    """How many more a player could show, which nobody looks at; cover art is none."""
    dynamic_range: DynamicRange = "sdr"
    """What the file's colours mean; ``pq`` and ``hlg`` are mapped to SDR when frames are read."""

    def to_json(self) -> dict[str, Any]:
        """Plain values, for a JSON column. Facts that older releases would refuse there are in ``presentation``."""
        facts = asdict(self)
        for name in ("video_bytes", "first_s", *PRESENTATION):
            del facts[name]
        return facts

    def presentation(self) -> dict[str, Any]:
        """Plain values, for another JSON column: which pictures are shown, and how."""
        return {name: getattr(self, name) for name in PRESENTATION}

    @classmethod
    def from_json(cls, data: dict[str, Any], presentation: dict[str, Any] | None = None) -> Self:
        """The facts that ``to_json`` and ``presentation`` wrote; the latter is None where an older release looked."""
        known = {name: value for name, value in (presentation or {}).items() if name in PRESENTATION}
        return cls(**data, **known)


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
class _Found:
    """What ffmpeg tells of a video."""

    log: FileLog
    track: VideoTrack
    scan: PacketScan
    first: FirstFrame


def _probe_video(path: Path, header: HeaderFacts, limits: MediaLimits, deadline: float) -> MediaFacts:
    found = _look(path, header.container, None, deadline)
    if found is None:
        # Something is amiss. One after the other they tell what it is.
        found = _look_closely(path, header.container, limits, deadline)
    log, track, scan, first = found.log, found.track, found.scan, found.first
    start_s, first_s, end_s = _times(found)
    _check_length(start_s, end_s, limits)
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


def _times(found: _Found) -> tuple[float, float, float]:
    """By the file's clock: where players begin, where the first picture appears and where the last one ends."""
    first_s, end_s = found.scan.span()
    start_s = found.log.start_s
    if start_s is None or start_s > first_s - SAME_TIME_S:
        start_s = first_s
    if found.first.time_s is not None and first_s + SAME_TIME_S < found.first.time_s < end_s:
        # Pictures that need others from before the file's begin do not decode.
        first_s = found.first.time_s
    return start_s, first_s, end_s


def _check_length(start_s: float, end_s: float, limits: MediaLimits) -> None:
    if end_s - start_s > limits.max_duration_s:
        raise TooLongError(
            f"the video lasts {end_s - start_s:.1f} s; the limit max_duration_s is {limits.max_duration_s:g}"
        )


def _look(path: Path, container: str, index: int | None, deadline: float) -> _Found | None:
    """
    What ``_look_closely`` finds, by one process instead of two; None where anything is amiss.

    Opening a file takes longer than reading its packets. Which track is shown is known afterwards; where it is not
    the first video track, which is tried without being asked for, it is looked at in its turn.
    """
    log, scan, first = FileLog(), PacketScan(), FirstFrame()

    def read(line: str) -> None:
        log.read(line)
        first.read(line)

    # What is forgiven when packets are read is not forgiven when they are decoded.
    options = {"err_detect": "ignore_err", "err_detect:v": 0}
    source = _open_timed(path, container, **options)
    outputs = _packets_of(source, index), _first_frame_of(source, index)
    arguments = command_line(*outputs, before=log.listing())
    with BoundedProcess(arguments, timeout_s=seconds_left(deadline), on_line=read) as child:
        for line in child.stdout:
            scan.read(line)
        status = child.wait()
    _check_log(log)
    track = select_default_track(log.tracks)
    if track is None:
        return None
    if track.index != log.taken:
        return _look(path, container, track.index, deadline) if index is None else None
    is_sound = status == 0 and scan.count > 0 and not log.truncated and first.size_px and _is_readable(track)
    return _Found(log, track, scan, first) if is_sound else None


def _is_readable(track: VideoTrack) -> bool:
    return track.codec in VIDEO_CODECS and track.dolby_vision_profile != LOST_COLOUR_PROFILE


def _check_log(log: FileLog) -> None:
    if log.is_forged:
        raise UnsupportedMediaError(
            "the file's metadata imitates what the decoder says about it, so that its times are uncertain; remove its"
            " metadata and send it again"
        )


def _open_timed(path: Path, container: str, **options: Any) -> Any:
    """An input whose packets have times of presentation, where they can be known."""
    return open_input(path, container, **options, **({"fflags": "+genpts"} if container in SPARSELY_TIMED else {}))


def _packets_of(source: Any, index: int | None) -> Any:
    """An output of the packets of a video track of *source*, a line each."""
    packets = video_of(source, index)
    options = {"copyinkf": None, "avoid_negative_ts": "disabled"}
    return packets.output("pipe:", f="framecrc", c="copy", **options, **NO_METADATA)


def _first_frame_of(source: Any, index: int | None) -> Any:
    """An output of nothing, for which the first frame of a video track of *source* is decoded."""
    return logged(video_of(source, index)).output("pipe:", f="null", vframes=1, **NO_METADATA)


def _look_closely(path: Path, container: str, limits: MediaLimits, deadline: float) -> _Found:
    """
    Read the packets of the track that is shown, without decoding anything, and then decode its first frame.

    Raises:
        MediaError: With the code that says what is wrong with the file.
        DecodeError: The decoder crashed or did not end in time.
    """
    log, track, scan = _read_packets(path, container, None, deadline)
    if track.index != log.taken:
        log, track, scan = _read_packets(path, container, track.index, deadline)
    if scan.count == 0:
        raise TruncatedError("the file ends before any frame")
    _check_length(*scan.span(), limits)
    return _Found(log, track, scan, _decode_first(path, container, track.index, seconds_left(deadline)))


def _read_packets(
    path: Path, container: str, index: int | None, deadline: float, which: str = "V"
) -> tuple[FileLog, VideoTrack, PacketScan]:
    log, scan = FileLog(), PacketScan()
    source = _open_timed(path, container, err_detect="ignore_err")
    arguments = command_line(_packets_of(source, index), before=log.listing(which))
    with BoundedProcess(arguments, timeout_s=seconds_left(deadline), on_line=log.read) as child:
        for line in child.stdout:
            scan.read(line)
        status = child.wait()
    _check_log(log)
    track = select_default_track(log.tracks)
    if track is None and which == "V" and container in BROADCAST:
        try:
            return _read_packets(path, container, index, deadline, USABLE)
        except NoVideoStreamError:
            if not log.has_no_size:
                raise
    if track is None:
        raise _no_track(log, " ".join(child.lines))
    if track.dolby_vision_profile == LOST_COLOUR_PROFILE:
        raise UnsupportedCodecError(
            f"the video is Dolby Vision of profile {LOST_COLOUR_PROFILE}, which has no colours without Dolby's decoder;"
            " export it as HDR10, HLG or SDR"
        )
    if track.codec not in VIDEO_CODECS:
        raise unsupported_codec(track.codec)
    if scan.count == 0 and status < 0:
        raise DecodeError(f"the demuxer was ended by signal {-status}")
    return log, track, scan


def _no_track(log: FileLog, text: str) -> MediaError:
    """What is wrong with a file of which no track could be listed; *text* is the end of the log."""
    if log.has_no_size:
        return TruncatedError(
            "the file announces a video, but not the size of its pictures: it is damaged or incomplete, or its codec is"
            " not accepted"
        )
    if "matches no streams" in text or "does not contain any stream" in text or "Stream #0" in text:
        return NoVideoStreamError("the file holds no video stream")
    if "moov atom not found" in text or log.truncated:
        return TruncatedError("the file ends before any frame")
    return NotMediaError("the file cannot be read as the video that its first bytes announce")


def _decode_first(path: Path, container: str, index: int, timeout_s: float) -> FirstFrame:
    first = FirstFrame()
    output = _first_frame_of(open_input(path, container), index)
    with BoundedProcess(command_line(output), timeout_s=timeout_s, on_line=first.read) as child:
        child.stdout.read()
        status = child.wait()
    if first.size_px is not None:
        return first
    if status < 0:
        raise DecodeError(f"the decoder was ended by signal {-status}")
    raise TruncatedError("no frame of the video can be decoded")
