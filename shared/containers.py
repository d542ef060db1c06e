from dataclasses import dataclass


@dataclass(frozen=True)
class MediaLimits:
    max_bytes: int
    max_duration_s: float
    max_pixels: int
    max_frame_rate: float
