"""Tracks in the headers of mp4 and Matroska, and the choice of the video track that players show."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from shared.errors import NoVideoStreamError


class VideoTrack(Protocol):
    """A video track, as the choice of the default track needs it."""

    @property
    def is_default(self) -> bool:
        """Whether the track is enabled (MP4) or default (Matroska)."""


VideoTrackT = TypeVar("VideoTrackT", bound=VideoTrack)


@dataclass(slots=True)
class Track:
    """Facts that a header claims about a track; 0, empty or None where it does not say."""

    is_video: bool = False
    is_default: bool = True
    coding: str = ""
    codec: str | None = None
    """One of VIDEO_CODECS; None if *coding* is not among them."""
    width_px: int = 0
    height_px: int = 0
    duration_s: float | None = None
    samples: int = 0
    frame_s: float = 0.0


def select_default_track(videos: Sequence[VideoTrackT]) -> VideoTrackT | None:
    """
    Return the video track that players show by default: the first default track, or otherwise the first.

    Args:
        videos: Video tracks in the file's order.
    """
    return next((track for track in videos if track.is_default), videos[0] if videos else None)


def select_video_track(tracks: Sequence[Track]) -> Track:
    """
    Return the video track among *tracks* that players show by default.

    Raises:
        NoVideoStreamError: There is no video track.
    """
    track = select_default_track([track for track in tracks if track.is_video])
    if track is None:
        raise NoVideoStreamError("the file has no video stream")
    return track
