"""Pictures of heat maps, in colours that people with any colour vision tell apart."""

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

MAX_BYTES: Final = 20_000
"""Largest size of an encoded picture."""
QUALITIES: Final = (85, 70, 50, 30, 10, 1)
"""WebP qualities, of which the first that fits into ``MAX_BYTES`` is taken. Faces
fit at the first; pure noise of 320 px does at the last."""
OPACITY: Final = 0.8
"""Opacity of an overlay where the map is 1; where it is 0, the face shows through unchanged."""
VIRIDIS: Final = (
    *("#440154", "#482475", "#414487", "#355f8d", "#2a788e", "#21918c"),
    *("#22a884", "#44bf70", "#7ad151", "#bddf26", "#fde725"),
)
"""Eleven evenly spaced colours of matplotlib's map of that name, whose lightness rises evenly: it reads the same
without red, without green and in print. Its middle stands out from a grey face, which that of cividis does not."""

Picture = NDArray[np.uint8]


def colour_map(values: NDArray[np.float32]) -> Picture:
    """
    Colour a map from violet, where nothing raises the score, to yellow.

    Args:
        values: (H, W) in [0, 1].

    Returns:
        (H, W, 3) uint8 RGB.
    """
    colours = np.array([[int(colour[start : start + 2], 16) for start in (1, 3, 5)] for colour in VIRIDIS], np.float32)
    places = np.linspace(0.0, 1.0, len(VIRIDIS))
    planes = [np.interp(values, places, colours[:, plane]) for plane in range(3)]
    return np.asarray(np.rint(np.stack(planes, axis=-1)), np.uint8)


def overlay(crop: Picture, values: NDArray[np.float32]) -> Picture:
    """
    Lay a map over the grey picture of its crop; it is the more opaque, the higher its values are.

    Args:
        crop: (H, W, 3) uint8 RGB.
        values: (H, W) in [0, 1].

    Returns:
        (H, W, 3) uint8 RGB.
    """
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)[:, :, None].astype(np.float32)
    weight = OPACITY * values[:, :, None]
    return np.asarray(np.rint(grey * (1.0 - weight) + colour_map(values) * weight), np.uint8)


def encode_webp(picture: Picture) -> bytes:
    """
    Encode a picture of a crop's size as WebP, without metadata.

    Args:
        picture: (H, W, 3) uint8 RGB.

    Returns:
        The same bytes for the same picture; at most ``MAX_BYTES``.

    Raises:
        ValueError: The picture is too large.
    """
    for quality in QUALITIES:
        done, data = cv2.imencode(
            ".webp", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_WEBP_QUALITY, quality]
        )
        if done and data.size <= MAX_BYTES:
            return data.tobytes()
    raise ValueError(f"a picture of {picture.shape[1]} x {picture.shape[0]} px does not fit into {MAX_BYTES} bytes")


def encode_lossless(picture: Picture) -> bytes:
    """
    Encode a picture as lossless WebP, without metadata.

    Args:
        picture: (H, W, 3) uint8 RGB.

    Returns:
        The same bytes for the same picture, from which every pixel can be read again.

    Raises:
        ValueError: It cannot be encoded.
    """
    # OpenCV encodes without loss where the quality is above 100.
    done, data = cv2.imencode(".webp", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_WEBP_QUALITY, 101])
    if not done:
        raise ValueError(f"a picture of {picture.shape[1]} x {picture.shape[0]} px cannot be encoded")
    return data.tobytes()


def shrink(picture: Picture, side_px: int) -> Picture:
    """
    Shrink a square picture.

    Args:
        picture: (S, S, 3) uint8 RGB.
        side_px: Side of the result; a smaller picture is returned as it is.
    """
    if picture.shape[0] <= side_px:
        return picture
    return np.asarray(cv2.resize(picture, (side_px, side_px), interpolation=cv2.INTER_AREA), np.uint8)
