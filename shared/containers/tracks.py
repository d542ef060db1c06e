"""Video tracks, as the headers of mp4 and Matroska tell of them, and the one that players show."""

from collections.abc import Sequence
from dataclasses import dataclass

from shared.errors import NoVideoStreamError


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


def shown_track(tracks: Sequence[Track]) -> Track:
    """
    The video track that players show: the first default one, or the first.

    Raises:
        NoVideoStreamError: None of *tracks* is a video.
    """
    videos = [track for track in tracks if track.is_video]
    if not videos:
        raise NoVideoStreamError("the file holds no video stream")
    return next((track for track in videos if track.is_default), videos[0])
