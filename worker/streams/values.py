"""The values that the intake of live streams takes and yields."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from urllib.parse import urlsplit

MEBIBYTE: Final = 1024**2


@dataclass(frozen=True, slots=True, repr=False)
class Source:
    """
    The address of a live stream and the credentials for it.

    The representation has neither credentials nor path, since the path of a stream is often its key.
    """

    url: str
    """An address without credentials, as ``shared.outbound.check_source_url`` accepts it."""
    username: str | None = None
    password: str | None = None
    """The password of RTSP, RTMP or HTTP, or the passphrase of SRT."""

    def __repr__(self) -> str:
        parts = urlsplit(self.url)
        return f"Source({parts.scheme}://{parts.netloc.rpartition('@')[2]}/…)"


@dataclass(slots=True)
class Position:
    """
    Where the reading of a playlist has come to, for the next connection to the same source.

    Without it a connection enters a live playlist a few segments before its end, and reads these again.
    """

    next_number: int | None = None
    """Number of the next segment; None before the first connection, and for other sources than HLS."""
    last_name: str = ""
    """File name of the segment before it, which shows whether the server has begun to count anew."""
    last_end: datetime | None = None
    """When that segment ends by the server's clock, if the playlist has such times."""
    grown_at: float | None = None
    """When the playlist last had new segments, by the monotonic clock."""
    missed_s: float = 0.0
    """What the source had since the last picture that was read, and what did not arrive."""
    backlog_s: float = 0.0
    """What a playlist without a position listed from its first segment on, which is how old that was."""


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """Limits of one connection. They are wide for any real source and keep a hostile one from filling memory."""

    max_bytes_per_s: int = 8 * MEBIBYTE
    """Rate at which a source is read. One that sends faster is slowed down."""
    max_ahead_s: float = 30.0
    """How far a source may be ahead of the clock before it is slowed down to real time."""
    max_piece_bytes: int = 64 * MEBIBYTE
    max_picture_bytes: int = 16 * MEBIBYTE
    max_pixels: int = 3840 * 2160
    """Pixels of one picture."""
    max_lead_s: float = 12.0
    """Longest way back to a key frame. Pictures that are further away from theirs are left out."""
    max_keyless_s: float = 60.0
    """Time without a key frame after which the source is given up."""
    connect_timeout_s: float = 10.0
    max_playlist_bytes: int = MEBIBYTE
    max_segment_bytes: int = 32 * MEBIBYTE
    """Bytes of one segment of HLS, which is held in memory."""
    allow_shared_network: bool = False
    """
    Whether RTSP, RTMP and SRT are read where the system allows no network namespace. ffmpeg then has a network, and a
    hostile server could use a fault of it, or a redirect, to reach other hosts.
    """


@dataclass(frozen=True, slots=True)
class Piece:
    """
    A part of the live video, ``[start_s, end_s)``, as a file that can be decoded on its own.

    Times are seconds since the first picture of the connection, or since where the position that was given had come to.
    The next piece begins where this one ends, unless pictures in between did not arrive or were too far away from their
    key frame to be decoded.
    """

    start_s: float
    """Presentation time of the first picture."""
    end_s: float
    """Presentation time of the first picture after it; at an end or a jump, the end of the last picture."""
    lead_s: float
    """
    Seconds in ``data`` before ``start_s``: the file begins at a key frame. Only its pictures in
    ``[lead_s, lead_s + end_s - start_s)`` belong to this piece. Earlier ones belong to the piece before, and a few
    later ones are there because others refer to them.
    """
    data: bytes = field(repr=False)
    """A complete Matroska file with the video track only; the key frame is at 0."""
    codec: str
    """Name of the codec as ffmpeg calls it, for example ``h264``."""
    width_px: int
    height_px: int
    is_discontinuous: bool
    """Whether it is the first piece after a jump of the source's clock, or after a change of its size or codec."""
