"""Video tracks, as the headers of mp4 and Matroska tell of them, and the one that players show."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from shared.errors import NoVideoStreamError


class Choosable(Protocol):
    """A video track of a file."""

    @property
    def is_default(self) -> bool:
        """Enabled in MP4, default in Matroska."""


Video = TypeVar("Video", bound=Choosable)


@dataclass(slots=True)
class Track:
    """What a header claims of a track; 0, empty or None where it does not say."""

    is_video: bool = False
    is_default: bool = True
    coding: str = ""
    codec: str | None = None
    """A name of VIDEO_CODECS, where *coding* is one of them."""
    width_px: int = 0
    height_px: int = 0
    duration_s: float | None = None
    samples: int = 0
    frame_s: float = 0.0


def select_default_track(videos: Sequence[Video]) -> Video | None:
    """
    The video track that players show unless somebody chooses another: the first default one, or else the first.

    Args:
        videos: In the file's order.
    """
    return next((track for track in videos if track.is_default), videos[0] if videos else None)


def select_video_track(tracks: Sequence[Track]) -> Track:
    """
    Of all *tracks* of a file, the video that players show.

    Raises:
        NoVideoStreamError: None of *tracks* is a video.
    """
    track = select_default_track([track for track in tracks if track.is_video])
    if track is None:
        raise NoVideoStreamError("the file holds no video stream")
    return track
