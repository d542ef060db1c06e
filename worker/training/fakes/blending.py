"""
Fakes made from real faces: self-blended images and swaps between two people.

Self-blending follows Shiohara and Yamasaki, "Detecting Deepfakes with Self-Blended Images", CVPR 2022: a source and a
target are two differently transformed versions of one real face, and the source is pasted into the target through a
deformed face mask (their algorithm 1). Where they take a hull of 81 landmarks, a mean face outline is fitted to
MTCNN's five here. Their transformations are the ``textbook`` style. The ``subtle`` style is closer to the output of
swapping programs: matched colours, a source that is sharpened as often as it is degraded, wide soft masks, larger
misalignment and a smoothed seam.

All functions use (H, W, 3) uint8 RGB pictures and five landmarks in pixels, eyes first.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from worker.training.fakes.pictures import Landmarks, Mask, Picture

Points = NDArray[np.float32]
Pixels = TypeVar("Pixels", Picture, Mask)
Style = Literal["textbook", "subtle"]

LANDMARKS: Final = np.array([(-0.5, 0.0), (0.5, 0.0), (0.0, 0.58), (-0.42, 1.15), (0.42, 1.15)], np.float32)
"""MTCNN's five on a frontal mean face; the origin is between the eyes, whose distance is 1."""

_JAW: Final = [(1.0, -0.1), (1.0, 0.35), (0.93, 0.85), (0.78, 1.3), (0.5, 1.7), (0.2, 1.9)]
_FOREHEAD: Final = [(0.3, -1.15), (0.7, -0.95), (0.95, -0.5)]
_BROWS: Final = [(0.2, -0.5), (0.6, -0.58), (0.95, -0.4)]


def _mirror_outline(half: Sequence[tuple[float, float]]) -> Points:
    """Join half of an outline, from top to bottom, with its mirror image."""
    return np.array([*half, *((-x, y) for x, y in reversed(half))], np.float32)


OUTLINES: Final[dict[str, Points]] = {
    "head": _mirror_outline([(0.35, -1.5), (0.85, -1.2), (1.15, -0.6), *((x * 1.12, y * 1.05) for x, y in _JAW)]),
    "face": _mirror_outline([*_FOREHEAD, *_JAW]),
    "below the brows": _mirror_outline([*_BROWS, *_JAW]),
    "inner": _mirror_outline([(0.3, -0.45), (0.85, -0.4), (0.9, 0.3), (0.72, 1.05), (0.45, 1.5), (0.15, 1.58)]),
    "mouth": _mirror_outline([(0.25, 0.45), (0.75, 0.55), (0.85, 1.0), (0.7, 1.4), (0.35, 1.7), (0.15, 1.75)]),
}
"""Outlines of parts of a face, in the units of ``LANDMARKS``."""

_STYLE_OUTLINES: Final[dict[Style, tuple[tuple[str, ...], tuple[float, ...]]]] = {
    "textbook": (("face", "below the brows", "inner", "mouth"), (0.3, 0.4, 0.2, 0.1)),
    "subtle": (("head", "face", "below the brows", "inner"), (0.1, 0.5, 0.3, 0.1)),
}
_CHEEK_DEPTH: Final = 0.78
"""Depth of the cheek one unit from the middle of the face, as a share of the nose's height above it."""
_COPLANAR: Final = [0, 1, 3, 4]
"""Indices of the landmarks that are in one plane."""
_MASK_SIDE_PX: Final = 96
"""Side at which masks are made, in pixels, before they are enlarged: they are smooth."""


@dataclass(frozen=True, slots=True)
class Blend:
    """A fake, its real counterpart, and the mask of the change between them."""

    real: Picture
    """The target as it was before something was pasted into it."""
    fake: Picture
    mask: Mask


def self_blend(picture: Picture, landmarks: Landmarks, rng: Generator, style: Style = "textbook") -> Blend:
    """
    Blend two versions of one face.

    Args:
        picture: Around a face, with a margin on all sides.

    Returns:
        The fake, and the target version as its real counterpart, so that the two do not differ by processing alone.
    """
    change = _transform_textbook if style == "textbook" else _transform_subtly
    source = target = picture
    if style == "subtle" or rng.random() < 0.5:
        source = change(picture, rng)
    else:
        target = change(picture, rng)
    mask = face_mask(picture.shape[:2], landmarks, rng, style)
    source = _misalign(source, landmarks, rng, style)
    return blend_in_style(source, target, mask, rng, style)


def swap(
    target: Picture,
    landmarks: Landmarks,
    source: Picture,
    source_landmarks: Landmarks,
    rng: Generator,
    *,
    source_is: Literal["real", "painted", "swapped"] = "real",
) -> Blend:
    """
    Put another person's face into a picture: aligned by landmarks, colours matched, feathered or Poisson-blended.

    Args:
        source_is: A ``real`` face is changed to look generated, a ``painted`` one is sometimes sharpened, as swapping
            programs do, and a ``swapped`` one, which is from a swap, is used as it is.

    Pérez, Gangnet and Blake, "Poisson Image Editing", SIGGRAPH 2003; Reinhard et al., "Color Transfer between
    Images", IEEE CG&A 2001.
    """
    height, width = target.shape[:2]
    marks = np.asarray(landmarks, np.float32)
    matrix = fit_affine(np.asarray(source_landmarks, np.float32), marks, similar=rng.random() < 0.5)
    how = cv2.INTER_AREA if _affine_scale(matrix) < 0.7 else cv2.INTER_LINEAR
    warped = cv2.warpAffine(source, matrix, (width, height), flags=how, borderMode=cv2.BORDER_REFLECT)
    picture = np.asarray(warped, np.uint8)
    if source_is == "real":
        picture = _imitate_generator(picture, rng)
    elif source_is == "painted" and rng.random() < 0.35:
        picture = _sharpen(picture, rng)
    mask = face_mask((height, width), landmarks, rng, "subtle")
    # Two versions of one face may be half transparent, two faces may not: swapping programs leave no double features.
    mask = mask / max(float(mask.max()), 1e-6)
    if rng.random() < 0.9:
        picture = match_colours(picture, target, inner_face_mask((height, width), landmarks))
    if rng.random() < 0.15:
        seam = blend_poisson(picture, target, mask)
        if seam is not None:
            return Blend(target, seam, mask)
    return blend_in_style(picture, target, mask, rng, "subtle")


def face_mask(shape: tuple[int, int], landmarks: Landmarks, rng: Generator, style: Style) -> Mask:
    """Draw the mask of a face outline that is fitted to *landmarks* and elastically deformed, with soft edges."""
    names, chances = _STYLE_OUTLINES[style]
    outline = OUTLINES[str(rng.choice(names, p=chances))]
    outline = outline * (1.0 + rng.normal(0.0, 0.04, outline.shape).astype(np.float32))
    points = map_outline(outline, landmarks)
    height, width = shape
    scale = np.array([_MASK_SIDE_PX / width, _MASK_SIDE_PX / height], np.float32)
    mask = np.zeros((_MASK_SIDE_PX, _MASK_SIDE_PX), np.float32)
    hull = cv2.convexHull((points * scale).astype(np.float32)).astype(np.int32)
    cv2.fillConvexPoly(mask, hull, 1.0)
    side = float(np.ptp(hull[:, 0, 0]) + np.ptp(hull[:, 0, 1])) / 2  # Of the face, in the small mask's pixels.
    mask = _warp(mask, rng, amplitude=side * rng.uniform(0.01, 0.06), cells=4)
    softness = rng.uniform(0.02, 0.10) if style == "textbook" else rng.uniform(0.03, 0.18)
    blurred = cv2.GaussianBlur(mask, (0, 0), max(0.5, softness * side))
    if rng.random() < 0.5:
        # Blurring spreads both ways; feathering keeps to the inside of the outline.
        blurred = np.clip((blurred - 0.5) * 2.0, 0.0, 1.0)
        blurred = cv2.GaussianBlur(blurred, (0, 0), max(0.5, softness * side / 3))
    largest = max(float(blurred.max()), 1e-6)
    opacity = float(rng.choice([0.5, 0.75, 1.0, 1.0, 1.0, 1.0]))
    scaled = np.asarray(blurred / largest * opacity, np.float32)
    enlarged = cv2.resize(scaled, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(enlarged, np.float32)


def part_mask(shape: tuple[int, int], landmarks: Landmarks, rng: Generator) -> Mask:
    """Draw a mask of one to three soft, deformed blobs at landmarks: parts of a face too small to identify a person."""
    marks = np.asarray(landmarks, np.float32)
    unit = max(4.0, float(np.linalg.norm(marks[1] - marks[0])), float(np.linalg.norm(marks[3] - marks[0])) * 0.8)
    height, width = shape
    scale = np.array([_MASK_SIDE_PX / width, _MASK_SIDE_PX / height])
    mask = np.zeros((_MASK_SIDE_PX, _MASK_SIDE_PX), np.float32)
    for mark in rng.permutation(marks)[: int(rng.integers(1, 4))]:
        centre = (mark + rng.normal(0.0, 0.25, 2) * unit) * scale
        axes = np.maximum(rng.uniform(0.3, 0.9, 2) * unit * scale, 1.0)
        place, size = (tuple(round(float(value)) for value in pair) for pair in (centre, axes))
        cv2.ellipse(mask, place, size, float(rng.uniform(0, 180)), 0.0, 360.0, 1.0, -1)
    side = unit * float(scale.mean())
    bent = _warp(mask, rng, amplitude=side * rng.uniform(0.02, 0.12), cells=4)
    soft = cv2.GaussianBlur(bent, (0, 0), max(0.5, side * rng.uniform(0.05, 0.25)))
    return np.asarray(cv2.resize(soft, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)


def alpha_blend(source: Picture, target: Picture, mask: Mask) -> Picture:
    """Blend *source* over *target* by *mask*."""
    return _to_uint8(_alpha_blend_float(source, target, mask))


def _alpha_blend_float(source: Picture, target: Picture, mask: Mask) -> NDArray[np.float32]:
    """Blend without rounding."""
    weights = cv2.merge([mask, mask, mask])
    apart = cv2.subtract(source, target, dtype=cv2.CV_32F)
    return np.asarray(cv2.add(cv2.multiply(apart, weights), target, dtype=cv2.CV_32F), np.float32)


def map_outline(outline: Points, landmarks: Landmarks) -> Points:
    """
    Map an outline from the units of ``LANDMARKS`` into a picture.

    Eyes and mouth give an affine map. In a face turned to a side the nose is then beside its place, and the cheeks,
    which are behind that plane, as much to the other side: the outline would else reach past the nose into the
    background.
    """
    marks = np.asarray(landmarks, np.float32)
    matrix = fit_affine(LANDMARKS[_COPLANAR], marks[_COPLANAR])
    across = matrix[:, 0] / max(float(np.linalg.norm(matrix[:, 0])), 1e-6)
    reach = 0.5 * float(np.linalg.norm(matrix[:, 1]))
    turn = float(np.clip((marks[2] - matrix[:, :2] @ LANDMARKS[2] - matrix[:, 2]) @ across, -reach, reach))
    behind = _CHEEK_DEPTH * turn * outline[:, :1] ** 2
    return np.asarray(outline @ matrix[:, :2].T + matrix[:, 2] - behind * across, np.float32)


def inner_face_mask(shape: tuple[int, int], landmarks: Landmarks) -> Mask:
    """Return a mask from the brows to the chin, so that hair, hats and background do not affect mean colours."""
    mask = np.zeros(shape, np.float32)
    hull = cv2.convexHull(map_outline(OUTLINES["inner"], landmarks)).astype(np.int32)
    return np.asarray(cv2.fillConvexPoly(mask, hull, 1.0), np.float32)


def match_colours(source: Picture, target: Picture, mask: Mask) -> Picture:
    """
    Give *source* the mean and deviation of *target*'s L, a and b within *mask*, where it is more than half as strong
    as it gets. Deviations change by no more than a factor of 0.6 to 1.6, so that noise and shadows are not blown up.
    """
    inside = np.asarray(mask > 0.5 * float(mask.max()), np.uint8)
    planes = cv2.cvtColor(source, cv2.COLOR_RGB2LAB)
    mean, deviation = cv2.meanStdDev(planes, mask=inside)
    wanted_mean, wanted_deviation = cv2.meanStdDev(cv2.cvtColor(target, cv2.COLOR_RGB2LAB), mask=inside)
    ratio = np.clip(wanted_deviation / np.maximum(deviation, 1.0), 0.6, 1.6)
    matrix = np.column_stack([np.diag(ratio[:, 0]), wanted_mean - mean * ratio])
    return np.asarray(cv2.cvtColor(cv2.transform(planes, matrix), cv2.COLOR_LAB2RGB), np.uint8)


def blend_in_style(source: Picture, target: Picture, mask: Mask, rng: Generator, style: Style) -> Blend:
    """Blend *source* over *target* by *mask*; the style ``subtle`` smooths the seam in half of the cases."""
    blend = _alpha_blend_float(source, target, mask)
    if style == "subtle" and rng.random() < 0.5:
        # Swapping programs often smooth the seam: where the mask rises, not where it is flat.
        height = mask / max(float(mask.max()), 1e-6)
        ring = np.sqrt(np.maximum(4.0 * height * (1.0 - height), 0.0))
        smooth = np.asarray(cv2.GaussianBlur(blend, (0, 0), rng.uniform(0.7, 2.0)), np.float32)
        blend = blend + np.asarray(cv2.multiply(smooth - blend, cv2.merge([ring, ring, ring])), np.float32)
    return Blend(target, _to_uint8(blend), mask)


def _transform_textbook(picture: Picture, rng: Generator) -> Picture:
    """Shiohara and Yamasaki's transformations: RGB shift, HSV and brightness, then down-scaling or sharpening."""
    changed = _add_offsets(picture, rng.uniform(-20, 20, 3))
    planes = np.asarray(cv2.cvtColor(changed, cv2.COLOR_RGB2HSV), np.uint8)
    hsv = _add_offsets(planes, rng.uniform((-5, -40, -40), (5, 40, 40)))
    hsv[..., 0] %= 180
    contrast = rng.uniform(0.9, 1.1)
    changed = np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.uint8)
    changed = _change_contrast(changed, contrast, rng.uniform(-12, 12, 1).repeat(3))
    return _draw_one((_lose_resolution, _sharpen), (0.6, 0.4), rng)(changed, rng)


def _transform_subtly(picture: Picture, rng: Generator) -> Picture:
    """Change sharpness, noise or compression of the face, and its colours slightly."""
    changed = _draw_one(
        (_lose_resolution, _sharpen, _soften, _denoise, _add_noise, _recompress, _keep),
        (0.25, 0.25, 0.1, 0.1, 0.08, 0.12, 0.1),
        rng,
    )(picture, rng)
    return _change_contrast(changed, rng.normal(1.0, 0.03), rng.normal(0.0, 2.5, 3))


def _add_offsets(picture: Picture, offsets: NDArray[np.float64]) -> Picture:
    shifted = cv2.add(picture, (*offsets, 0.0))  # type: ignore[call-overload]  # OpenCV's stubs know no scalars.
    return np.asarray(shifted, np.uint8)


def _change_contrast(picture: Picture, contrast: float, offsets: NDArray[np.float64]) -> Picture:
    """Scale contrast about middle grey, and add an offset to each channel."""
    matrix = np.column_stack([np.eye(3) * contrast, offsets + 128.0 * (1.0 - contrast)])
    return np.asarray(cv2.transform(picture, matrix), np.uint8)


def _imitate_generator(picture: Picture, rng: Generator) -> Picture:
    """Imitate a generator's output: few pixels, enlarged again, sometimes sharpened."""
    changed = _draw_one((_lose_resolution, _soften, _denoise, _keep), (0.4, 0.15, 0.2, 0.25), rng)(picture, rng)
    return _sharpen(changed, rng) if rng.random() < 0.35 else changed


def _draw_one(
    choices: Sequence[Callable[[Picture, Generator], Picture]], chances: Sequence[float], rng: Generator
) -> Callable[[Picture, Generator], Picture]:
    return choices[int(rng.choice(len(choices), p=chances))]


def _keep(picture: Picture, _rng: Generator) -> Picture:
    return picture


def _lose_resolution(picture: Picture, rng: Generator) -> Picture:
    """Shrink and enlarge again."""
    height, width = picture.shape[:2]
    factor = 1.0 / rng.uniform(1.3, 3.5)
    small = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    how = cv2.INTER_CUBIC if rng.random() < 0.5 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(small, (width, height), interpolation=how), np.uint8)


def _sharpen(picture: Picture, rng: Generator) -> Picture:
    smooth = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.8, 2.0))
    amount = rng.uniform(0.3, 1.2)
    return np.asarray(cv2.addWeighted(picture, 1.0 + amount, smooth, -amount, 0.0), np.uint8)


def _soften(picture: Picture, rng: Generator) -> Picture:
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.4, 1.6)), np.uint8)


def _denoise(picture: Picture, rng: Generator) -> Picture:
    """Remove texture but keep edges, as in a face that a network painted."""
    if rng.random() < 0.4:
        return np.asarray(cv2.medianBlur(picture, 3), np.uint8)
    return np.asarray(cv2.bilateralFilter(picture, 5, rng.uniform(12, 40), rng.uniform(1.5, 3.0)), np.uint8)


def _add_noise(picture: Picture, rng: Generator) -> Picture:
    noise = rng.standard_normal(picture.shape[:2], np.float32)[..., None] * np.float32(rng.uniform(1.0, 5.0))
    return _to_uint8(picture + noise)


def _recompress(picture: Picture, rng: Generator) -> Picture:
    options = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(40, 90))]
    _, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), options)
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR_RGB), np.uint8)


def _misalign(picture: Picture, landmarks: Landmarks, rng: Generator, style: Style) -> Picture:
    """Shift, scale, rotate and warp the face slightly, so that it no longer fits its position."""
    marks = np.asarray(landmarks, np.float32)
    unit = max(4.0, float(np.linalg.norm(marks[1] - marks[0])), float(np.linalg.norm(marks[3] - marks[0])) * 0.8)
    reach = 0.06 if style == "textbook" else 0.10
    angle = math.radians(rng.normal(0.0, 1.0 if style == "textbook" else 2.0))
    scale = rng.uniform(1 - reach, 1 + reach)
    shift = rng.uniform(-reach, reach, 2) * unit
    centre = marks.mean(axis=0)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]) * scale
    matrix = np.column_stack([turn, centre - turn @ centre + shift])
    height, width = picture.shape[:2]
    moved = cv2.warpAffine(picture, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    if style == "textbook" or rng.random() < 0.4:
        return np.asarray(moved, np.uint8)
    return _warp(np.asarray(moved, np.uint8), rng, amplitude=unit * rng.uniform(0.01, 0.05), cells=5)


def _warp(picture: Pixels, rng: Generator, *, amplitude: float, cells: int) -> Pixels:
    """Warp a picture by a smooth random field of about *amplitude* pixels."""
    height, width = picture.shape[:2]
    field = rng.standard_normal((cells, cells, 2), np.float32) * np.float32(amplitude)
    field = np.asarray(cv2.resize(field, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)
    field[..., 0] += np.arange(width, dtype=np.float32)
    field[..., 1] += np.arange(height, dtype=np.float32)[:, None]
    bent = cv2.remap(picture, field[..., 0], field[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return np.asarray(bent, picture.dtype)


def blend_poisson(source: Picture, target: Picture, mask: Mask) -> Picture | None:
    """
    Blend by Poisson's equation; None where the mask is too small or too close to the edge for it to be defined.

    OpenCV solves it over the mask's whole bounding box and so changes pixels outside the mask, too: those are faded
    back into the target, and where the mask is 0 nothing changes.
    """
    inside = (mask > 0.3 * float(mask.max())).astype(np.uint8) * 255
    inside[:2], inside[-2:], inside[:, :2], inside[:, -2:] = 0, 0, 0, 0
    x, y, width, height = cv2.boundingRect(inside)
    if width < 16 or height < 16:
        return None
    centre = (x + width // 2, y + height // 2)
    solved = cv2.seamlessClone(source, target, inside, centre, cv2.NORMAL_CLONE)
    weights = np.minimum(mask / (0.3 * max(float(mask.max()), 1e-6)), 1.0)[..., None]
    return _to_uint8(target + (solved.astype(np.float32) - target) * weights)


def fit_affine(points: Points, wanted: Points, *, similar: bool = False) -> NDArray[np.float64]:
    """Fit the (2, 3) map of *points* onto *wanted* by least squares; with *similar*, only scale, rotation and shift."""
    count = len(points)
    if similar:
        rows = np.zeros((2 * count, 4))
        rows[:count] = np.column_stack([points[:, 0], -points[:, 1], np.ones(count), np.zeros(count)])
        rows[count:] = np.column_stack([points[:, 1], points[:, 0], np.zeros(count), np.ones(count)])
        a, b, x, y = np.linalg.lstsq(rows, wanted.T.reshape(-1), rcond=None)[0]
        return np.array([[a, -b, x], [b, a, y]])
    rows = np.column_stack([points, np.ones(count)])
    return np.asarray(np.linalg.lstsq(rows, wanted, rcond=None)[0].T, np.float64)


def _affine_scale(matrix: NDArray[np.float64]) -> float:
    return math.sqrt(abs(float(np.linalg.det(matrix[:, :2]))))


def _to_uint8(values: NDArray[np.float32] | NDArray[np.floating]) -> Picture:
    return np.asarray(np.clip(values + 0.5, 0.0, 255.0), np.uint8)
