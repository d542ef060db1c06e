"""
Augmentation: the changes that cameras, editors and networks make to faces, real and fake alike.

``Augmentation`` draws one series of changes and applies it, with the same random numbers, to every picture of a
couple, so that a fake and its real counterpart never differ by it. First come the changes to a crop at its native
size: rescaling, blur, noise, sharpening, JPEG, H.264. Then the crop is resized to the network's size by the serving
code's own interpolation, and its colours are changed: brightness, contrast, jitter, fancy PCA (Krizhevsky,
Sutskever and Hinton, "ImageNet Classification with Deep Convolutional Neural Networks", NIPS 2012), cutout (DeVries
and Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout", 2017).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from worker.detection.faces import Box, crop_face
from worker.training.fakes.pictures import Mask, Picture
from worker.training.fakes.transcoding import Transform, chain, h264, jpeg

PRINCIPAL: Final = np.array(
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]], np.float32
)
SPREAD: Final = np.array([0.2175, 0.0188, 0.0045], np.float32)
"""Eigenvectors and eigenvalues of ImageNet's colours, as torch7's reference training published them."""

Chance = float
SMALLER: Final = (0.35, 1.0)
MIN_SIDE_PX: Final = 24
"""Smallest side that rescaling shrinks a picture to."""
SIGMAS_PX: Final = (0.3, 1.3)
NOISE_LEVELS: Final = (1.0, 6.0)
SHARPENING: Final = (0.2, 0.9)
HALO_PX: Final = 1.2
"""Sigma of the blurred picture that unsharp masking subtracts."""
CUT: Final = (0.08, 0.35)
"""Sides of the rectangle of cutout, as a share of the picture's."""


@dataclass(slots=True)
class Cut:
    """A grey rectangle over a picture, in shares of its side, so that it is the same at every size."""

    sides: NDArray[np.float64]
    """Its width and height, as shares of the picture's side."""
    place: NDArray[np.float64]
    """Its upper left corner, as shares of the range in which it stays inside the picture."""
    grey: int


@dataclass(slots=True)
class Changes:
    """Changes to both pictures of a couple, in this order, on the loaders' processes or on the device."""

    small: float | None = None
    """Share of its side to which a picture is shrunk."""
    is_enlarged: bool = True
    """Whether a shrunk picture is enlarged again before other changes."""
    sigma_px: float | None = None
    noise: float | None = None
    noise_seed: int = 0
    sharpening: float | None = None
    jpegs: list[tuple[int, bool]] = field(default_factory=list)
    """Quality of each compression, and whether its chroma has half the resolution."""
    crf: int | None = None
    """Constant rate factor of H.264."""
    colours: NDArray[np.float32] | None = None
    cut: Cut | None = None


class Augmentation(BaseModel):
    """
    The probability of each change.

    ``jpeg`` and ``h264`` exclude each other: one draw decides between them, and the rest stays uncompressed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    jitter: float = Field(default=0.06, ge=0.0)
    """Largest shift of the crop and change of its margin, as a share of the face."""
    flip: Chance = Field(default=0.5, ge=0.0, le=1.0)
    rescale: Chance = Field(default=0.35, ge=0.0, le=1.0)
    blur: Chance = Field(default=0.12, ge=0.0, le=1.0)
    noise: Chance = Field(default=0.12, ge=0.0, le=1.0)
    sharpen: Chance = Field(default=0.12, ge=0.0, le=1.0)
    jpeg: Chance = Field(default=0.4, ge=0.0, le=1.0)
    jpeg_quality: tuple[int, int] = (30, 95)
    h264: Chance = Field(default=0.25, ge=0.0, le=1.0)
    h264_crf: tuple[int, int] = (18, 36)
    colour: Chance = Field(default=0.5, ge=0.0, le=1.0)
    cutout: Chance = Field(default=0.15, ge=0.0, le=1.0)
    chain: Chance = Field(default=0.0, ge=0.0, le=1.0)
    """Probability of a chain of rescaling and compression (``transcoding.chain``) in place of all other changes at the
    crop's native size."""

    def apply(
        self, pictures: Sequence[Picture], box: Box, rng: Generator, *, size_px: int, margin: float
    ) -> list[Picture]:
        """
        Crop *pictures* around *box* and apply the same changes to all of them.

        Args:
            pictures: (H, W, 3) uint8 RGB each, of one size.
            box: The face, in each of them.

        Returns:
            (size_px, size_px, 3) uint8 RGB, in order.
        """
        moved, wide, is_flipped = self._geometry(box, rng, margin)
        native_px = max(32, round(max(box[2] - box[0], box[3] - box[1]) * (1 + 2 * wide)))
        crops = [crop_face(picture, moved, size_px=native_px, margin=wide) for picture in pictures]
        # All numbers are drawn before any change, in the order of earlier versions, so that seeds stay comparable.
        transforms = self._native_transforms(rng, native_px)
        changes = self.draw_final(rng, Changes())
        for transform in transforms:
            crops = [transform(crop) for crop in crops]
        crops = [to_size(crop, size_px) for crop in crops]
        for transform in _final_transforms(changes, size_px):
            crops = [transform(crop) for crop in crops]
        return [np.ascontiguousarray(crop[:, ::-1]) for crop in crops] if is_flipped else crops

    def place(self, mask: Mask, box: Box, rng: Generator, *, cells: int, margin: float) -> Mask:
        """
        Crop a mask as ``apply`` crops the picture that it belongs to.

        Args:
            mask: (H, W) in [0, 1].
            rng: Generator in the state in which ``apply`` receives it.

        Returns:
            (cells, cells) means over the crop.
        """
        moved, wide, is_flipped = self._geometry(box, rng, margin)
        levels = np.asarray(np.clip(mask * 255.0, 0, 255), np.uint8)
        planes = np.asarray(cv2.merge([levels, levels, levels]), np.uint8)
        crop = crop_face(planes, moved, size_px=4 * cells, margin=wide)[..., 0]
        placed = cv2.resize(crop, (cells, cells), interpolation=cv2.INTER_AREA).astype(np.float32) / 255.0
        return np.ascontiguousarray(placed[:, ::-1]) if is_flipped else placed

    def _geometry(self, box: Box, rng: Generator, margin: float) -> tuple[Box, float, bool]:
        """Draw the box and the margin of the crop, and whether it is mirrored."""
        left, top, right, bottom = box
        side = max(right - left, bottom - top)
        shift_x, shift_y, widen = rng.uniform(-self.jitter, self.jitter, 3)
        moved = (left + shift_x * side, top + shift_y * side, right + shift_x * side, bottom + shift_y * side)
        return moved, max(0.0, margin + widen), bool(rng.random() < self.flip)

    def draw_native(self, rng: Generator) -> Changes:
        """Draw the changes at the crop's native size, except ``chain``, which is drawn before and replaces them."""
        changes = Changes()
        if rng.random() < self.rescale:
            changes.small, changes.is_enlarged = rng.uniform(*SMALLER), bool(rng.random() < 0.7)
        if rng.random() < self.blur:
            changes.sigma_px = rng.uniform(*SIGMAS_PX)
        if rng.random() < self.noise:
            changes.noise, changes.noise_seed = rng.uniform(*NOISE_LEVELS), int(rng.integers(2**31))
        if rng.random() < self.sharpen:
            changes.sharpening = rng.uniform(*SHARPENING)
        draw = rng.random()
        if draw < self.jpeg:
            qualities = rng.integers(self.jpeg_quality[0], self.jpeg_quality[1] + 1, 1 + (rng.random() < 0.2))
            changes.jpegs = [(int(quality), bool(rng.random() < 0.8)) for quality in qualities]
        elif draw < self.jpeg + self.h264:
            changes.crf = int(rng.integers(self.h264_crf[0], self.h264_crf[1] + 1))
        return changes

    def draw_final(self, rng: Generator, changes: Changes) -> Changes:
        """Draw the changes at the network's size, add them to *changes*, and return these."""
        if rng.random() < self.colour:
            changes.colours = colour_map(rng)
        if rng.random() < self.cutout:
            sides = rng.uniform(*CUT, 2)
            changes.cut = Cut(sides, rng.random(2), int(rng.integers(256)))
        return changes

    def _native_transforms(self, rng: Generator, native_px: int) -> list[Transform]:
        # Without chains nothing is drawn here, so that older recipes get the couples that they always got.
        if self.chain > 0.0 and rng.random() < self.chain:
            return [chain(rng, native_px)]
        return _native_transforms(self.draw_native(rng))


def _native_transforms(changes: Changes) -> list[Transform]:
    transforms: list[Transform] = []
    if changes.small is not None:
        transforms.append(_rescaling(changes.small, enlarge=changes.is_enlarged))
    if changes.sigma_px is not None:
        transforms.append(_blurring(changes.sigma_px))
    if changes.noise is not None:
        transforms.append(_adding_noise(changes.noise, changes.noise_seed))
    if changes.sharpening is not None:
        transforms.append(_sharpening(changes.sharpening))
    transforms += [jpeg(quality, coarse_chroma=is_coarse) for quality, is_coarse in changes.jpegs]
    if changes.crf is not None:
        transforms.append(h264(changes.crf))
    return transforms


def _final_transforms(changes: Changes, size_px: int) -> list[Transform]:
    transforms: list[Transform] = []
    if changes.colours is not None:
        transforms.append(_recolouring(changes.colours))
    if changes.cut is not None:
        sides = (changes.cut.sides * size_px).astype(int)
        corner = (changes.cut.place * (size_px - sides)).astype(int)
        transforms.append(_cutting_out(corner, sides, changes.cut.grey))
    return transforms


def native_crop(picture: Picture, box: Box, margin: float) -> Picture:
    """Crop around *box* at its native size, on which compression works: a square of at least 32 px."""
    left, top, right, bottom = box
    native_px = max(32, round(max(right - left, bottom - top) * (1 + 2 * margin)))
    return crop_face(picture, box, size_px=native_px, margin=margin)


def to_size(crop: Picture, size_px: int) -> Picture:
    """Resize a crop to the network's size, by the serving code's own interpolation."""
    return crop_face(crop, (0.0, 0.0, float(crop.shape[1]), float(crop.shape[0])), size_px=size_px, margin=0.0)


def _rescaling(factor: float, *, enlarge: bool) -> Transform:
    def transform(picture: Picture) -> Picture:
        side = picture.shape[0]
        small_px = max(MIN_SIDE_PX, round(side * factor))
        small = cv2.resize(picture, (small_px, small_px), interpolation=cv2.INTER_AREA)
        if not enlarge:
            return np.asarray(small, np.uint8)
        return np.asarray(cv2.resize(small, (side, side), interpolation=cv2.INTER_LINEAR), np.uint8)

    return transform


def _blurring(sigma: float) -> Transform:
    return lambda picture: np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma), np.uint8)


def _adding_noise(level: float, seed: int) -> Transform:
    def transform(picture: Picture) -> Picture:
        noise = np.random.default_rng(seed).standard_normal(picture.shape, np.float32) * np.float32(level)
        return np.asarray(np.clip(picture + noise + 0.5, 0, 255), np.uint8)

    return transform


def _sharpening(amount: float) -> Transform:
    def transform(picture: Picture) -> Picture:
        smooth = cv2.GaussianBlur(picture, (0, 0), HALO_PX)
        return np.asarray(cv2.addWeighted(picture, 1.0 + amount, smooth, -amount, 0.0), np.uint8)

    return transform


def colour_map(rng: Generator) -> NDArray[np.float32]:
    """Draw contrast, brightness, saturation, hue and fancy PCA as one (3, 4) map: a matrix and an offset."""
    contrast, saturation = rng.uniform(0.8, 1.2), rng.uniform(0.6, 1.4)
    grey = np.full((3, 3), 1 / 3, np.float32)
    matrix = contrast * (saturation * np.eye(3, dtype=np.float32) + (1 - saturation) * grey)
    matrix = matrix @ _hue_rotation(rng.normal(0.0, 0.06))
    fancy = PRINCIPAL @ (rng.normal(0.0, 0.1, 3).astype(np.float32) * SPREAD) * 255.0
    offset = 128.0 * (1.0 - contrast) + rng.uniform(-20.0, 20.0) + fancy
    return np.column_stack([matrix, offset]).astype(np.float32)


def _recolouring(colours: NDArray[np.float32]) -> Transform:
    return lambda picture: np.asarray(cv2.transform(picture, colours), np.uint8)


def _hue_rotation(angle: float) -> NDArray[np.float32]:
    """Return the rotation of RGB space about its grey axis (Rodrigues)."""
    axis = 1.0 / np.sqrt(3.0)
    cross = np.array([[0, -axis, axis], [axis, 0, -axis], [-axis, axis, 0]])
    turned = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return np.asarray(turned, np.float32)


def _cutting_out(corner: NDArray[np.int_], sides: NDArray[np.int_], grey: int) -> Transform:
    def transform(picture: Picture) -> Picture:
        cut = picture.copy()
        cut[corner[1] : corner[1] + sides[1], corner[0] : corner[0] + sides[0]] = grey
        return cut

    return transform
