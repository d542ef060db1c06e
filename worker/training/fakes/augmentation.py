"""
Augmentation: the changes that cameras, editors and networks make to faces, real and fake alike.

``Augmentation`` draws one series of changes and applies it, with the same random numbers, to every picture of a
pair, so that a fake and its real counterpart never differ by it. First come the changes to a crop at its native
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
from worker.training.fakes.transcoding import Transform, draw_chain, make_h264, make_jpeg

COLOUR_EIGENVECTORS: Final = np.array(
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]], np.float32
)
COLOUR_EIGENVALUES: Final = np.array([0.2175, 0.0188, 0.0045], np.float32)
"""Eigenvectors and eigenvalues of ImageNet's colours, as torch7's reference training published them."""

Probability = float
RESCALE_FACTORS: Final = (0.35, 1.0)
MIN_SIDE_PX: Final = 24
"""Smallest side that rescaling shrinks a picture to."""
BLUR_SIGMAS_PX: Final = (0.3, 1.3)
NOISE_LEVELS: Final = (1.0, 6.0)
SHARPEN_AMOUNTS: Final = (0.2, 0.9)
UNSHARP_SIGMA_PX: Final = 1.2
"""Sigma of the blurred picture that unsharp masking subtracts."""
CUTOUT_SIDES: Final = (0.08, 0.35)
"""Sides of the rectangle of cutout, as a share of the picture's."""


@dataclass(slots=True)
class Cutout:
    """A grey rectangle over a picture, in shares of its side, so that it is the same at every size."""

    sides: NDArray[np.float64]
    """Its width and height, as shares of the picture's side."""
    corner: NDArray[np.float64]
    """Its upper left corner, as shares of the range in which it stays inside the picture."""
    grey: int


@dataclass(slots=True)
class Changes:
    """Changes to both pictures of a pair, in this order, on the loaders' processes or on the device."""

    rescale_factor: float | None = None
    """Share of its side to which a picture is shrunk."""
    is_enlarged: bool = True
    """Whether a shrunk picture is enlarged again before other changes."""
    blur_sigma_px: float | None = None
    noise_level: float | None = None
    noise_seed: int = 0
    sharpening: float | None = None
    jpegs: list[tuple[int, bool]] = field(default_factory=list)
    """Quality of each compression, and whether its chroma has half the resolution."""
    crf: int | None = None
    """Constant rate factor of H.264."""
    colours: NDArray[np.float32] | None = None
    cutout: Cutout | None = None


class Augmentation(BaseModel):
    """
    The probability of each change.

    ``jpeg`` and ``h264`` exclude each other: one draw decides between them, and the rest stays uncompressed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    jitter: float = Field(default=0.06, ge=0.0)
    """Largest shift of the crop and change of its margin, as a share of the face."""
    flip: Probability = Field(default=0.5, ge=0.0, le=1.0)
    rescale: Probability = Field(default=0.35, ge=0.0, le=1.0)
    blur: Probability = Field(default=0.12, ge=0.0, le=1.0)
    noise: Probability = Field(default=0.12, ge=0.0, le=1.0)
    sharpen: Probability = Field(default=0.12, ge=0.0, le=1.0)
    jpeg: Probability = Field(default=0.4, ge=0.0, le=1.0)
    jpeg_quality: tuple[int, int] = (30, 95)
    h264: Probability = Field(default=0.25, ge=0.0, le=1.0)
    h264_crf: tuple[int, int] = (18, 36)
    colour: Probability = Field(default=0.5, ge=0.0, le=1.0)
    cutout: Probability = Field(default=0.15, ge=0.0, le=1.0)
    chain: Probability = Field(default=0.0, ge=0.0, le=1.0)
    """Probability of a chain of rescaling and compression (``transcoding.draw_chain``), which replaces all other
    changes at the crop's native size."""

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
        moved, wide, is_flipped = self._draw_geometry(box, rng, margin)
        native_px = max(32, round(max(box[2] - box[0], box[3] - box[1]) * (1 + 2 * wide)))
        crops = [crop_face(picture, moved, size_px=native_px, margin=wide) for picture in pictures]
        # All numbers are drawn before any change, in the order of earlier versions, so that a seed keeps its meaning.
        transforms = self._make_native_transforms(rng, native_px)
        changes = self.draw_final(rng, Changes())
        for transform in transforms:
            crops = [transform(crop) for crop in crops]
        crops = [resize_to_network(crop, size_px) for crop in crops]
        for transform in _make_final_transforms(changes, size_px):
            crops = [transform(crop) for crop in crops]
        return [np.ascontiguousarray(crop[:, ::-1]) for crop in crops] if is_flipped else crops

    def without_changes(self) -> "Augmentation":
        """Return an augmentation that draws the same geometry (jitter and flip) and changes nothing else."""
        changes = ("rescale", "blur", "noise", "sharpen", "jpeg", "h264", "colour", "cutout", "chain")
        return self.model_copy(update=dict.fromkeys(changes, 0.0))

    def crop_mask(self, mask: Mask, box: Box, rng: Generator, *, cells: int, margin: float) -> Mask:
        """
        Crop a mask as ``apply`` crops the picture that it belongs to.

        Args:
            mask: (H, W) in [0, 1].
            rng: Generator in the state in which ``apply`` receives it.

        Returns:
            (cells, cells) means over the crop.
        """
        moved, wide, is_flipped = self._draw_geometry(box, rng, margin)
        levels = np.asarray(np.clip(mask * 255.0, 0, 255), np.uint8)
        planes = np.asarray(cv2.merge([levels, levels, levels]), np.uint8)
        crop = crop_face(planes, moved, size_px=4 * cells, margin=wide)[..., 0]
        placed = cv2.resize(crop, (cells, cells), interpolation=cv2.INTER_AREA).astype(np.float32) / 255.0
        return np.ascontiguousarray(placed[:, ::-1]) if is_flipped else placed

    def _draw_geometry(self, box: Box, rng: Generator, margin: float) -> tuple[Box, float, bool]:
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
            changes.rescale_factor, changes.is_enlarged = rng.uniform(*RESCALE_FACTORS), bool(rng.random() < 0.7)
        if rng.random() < self.blur:
            changes.blur_sigma_px = rng.uniform(*BLUR_SIGMAS_PX)
        if rng.random() < self.noise:
            changes.noise_level, changes.noise_seed = rng.uniform(*NOISE_LEVELS), int(rng.integers(2**31))
        if rng.random() < self.sharpen:
            changes.sharpening = rng.uniform(*SHARPEN_AMOUNTS)
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
            changes.colours = draw_colour_map(rng)
        if rng.random() < self.cutout:
            sides = rng.uniform(*CUTOUT_SIDES, 2)
            changes.cutout = Cutout(sides, rng.random(2), int(rng.integers(256)))
        return changes

    def _make_native_transforms(self, rng: Generator, native_px: int) -> list[Transform]:
        # Without chains no number is drawn here, so that pairs of older recipes do not change.
        if self.chain > 0.0 and rng.random() < self.chain:
            return [draw_chain(rng, native_px)]
        return _make_native_transforms(self.draw_native(rng))


def _make_native_transforms(changes: Changes) -> list[Transform]:
    transforms: list[Transform] = []
    if changes.rescale_factor is not None:
        transforms.append(make_rescale(changes.rescale_factor, enlarge=changes.is_enlarged))
    if changes.blur_sigma_px is not None:
        transforms.append(make_blur(changes.blur_sigma_px))
    if changes.noise_level is not None:
        transforms.append(make_noise(changes.noise_level, changes.noise_seed))
    if changes.sharpening is not None:
        transforms.append(make_sharpen(changes.sharpening))
    transforms += [make_jpeg(quality, coarse_chroma=is_coarse) for quality, is_coarse in changes.jpegs]
    if changes.crf is not None:
        transforms.append(make_h264(changes.crf))
    return transforms


def _make_final_transforms(changes: Changes, size_px: int) -> list[Transform]:
    transforms: list[Transform] = []
    if changes.colours is not None:
        transforms.append(make_colour_change(changes.colours))
    if changes.cutout is not None:
        sides = (changes.cutout.sides * size_px).astype(int)
        corner = (changes.cutout.corner * (size_px - sides)).astype(int)
        transforms.append(make_cutout(corner, sides, changes.cutout.grey))
    return transforms


def crop_at_native_size(picture: Picture, box: Box, margin: float) -> Picture:
    """Crop around *box* at its native size, on which compression works: a square of at least 32 px."""
    left, top, right, bottom = box
    native_px = max(32, round(max(right - left, bottom - top) * (1 + 2 * margin)))
    return crop_face(picture, box, size_px=native_px, margin=margin)


def resize_to_network(crop: Picture, size_px: int) -> Picture:
    """Resize a crop to the network's size, by the serving code's own interpolation."""
    return crop_face(crop, (0.0, 0.0, float(crop.shape[1]), float(crop.shape[0])), size_px=size_px, margin=0.0)


def make_rescale(factor: float, *, enlarge: bool) -> Transform:
    """Return a transform that shrinks a picture to *factor* of its side and, with *enlarge*, enlarges it again."""

    def transform(picture: Picture) -> Picture:
        side = picture.shape[0]
        small_px = max(MIN_SIDE_PX, round(side * factor))
        small = cv2.resize(picture, (small_px, small_px), interpolation=cv2.INTER_AREA)
        if not enlarge:
            return np.asarray(small, np.uint8)
        return np.asarray(cv2.resize(small, (side, side), interpolation=cv2.INTER_LINEAR), np.uint8)

    return transform


def make_blur(sigma: float) -> Transform:
    """Return a transform that blurs by a Gaussian of *sigma* pixels."""
    return lambda picture: np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma), np.uint8)


def make_noise(level: float, seed: int) -> Transform:
    """Return a transform that adds Gaussian noise with a deviation of *level*, drawn from *seed*."""

    def transform(picture: Picture) -> Picture:
        noise = np.random.default_rng(seed).standard_normal(picture.shape, np.float32) * np.float32(level)
        return np.asarray(np.clip(picture + noise + 0.5, 0, 255), np.uint8)

    return transform


def make_sharpen(amount: float) -> Transform:
    """Return a transform that sharpens by an unsharp mask of weight *amount*."""

    def transform(picture: Picture) -> Picture:
        smooth = cv2.GaussianBlur(picture, (0, 0), UNSHARP_SIGMA_PX)
        return np.asarray(cv2.addWeighted(picture, 1.0 + amount, smooth, -amount, 0.0), np.uint8)

    return transform


def draw_colour_map(rng: Generator) -> NDArray[np.float32]:
    """Draw contrast, brightness, saturation, hue and fancy PCA as one (3, 4) map: a matrix and an offset."""
    contrast, saturation = rng.uniform(0.8, 1.2), rng.uniform(0.6, 1.4)
    grey = np.full((3, 3), 1 / 3, np.float32)
    matrix = contrast * (saturation * np.eye(3, dtype=np.float32) + (1 - saturation) * grey)
    matrix = matrix @ _hue_rotation(rng.normal(0.0, 0.06))
    fancy = COLOUR_EIGENVECTORS @ (rng.normal(0.0, 0.1, 3).astype(np.float32) * COLOUR_EIGENVALUES) * 255.0
    offset = 128.0 * (1.0 - contrast) + rng.uniform(-20.0, 20.0) + fancy
    return np.column_stack([matrix, offset]).astype(np.float32)


def make_colour_change(colours: NDArray[np.float32]) -> Transform:
    """Return a transform that applies the (3, 4) map of ``draw_colour_map`` to every pixel."""
    return lambda picture: np.asarray(cv2.transform(picture, colours), np.uint8)


def _hue_rotation(angle: float) -> NDArray[np.float32]:
    """Return the rotation of RGB space about its grey axis (Rodrigues)."""
    axis = 1.0 / np.sqrt(3.0)
    cross = np.array([[0, -axis, axis], [axis, 0, -axis], [-axis, axis, 0]])
    turned = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return np.asarray(turned, np.float32)


def make_cutout(corner: NDArray[np.int_], sides: NDArray[np.int_], grey: int) -> Transform:
    """Return a transform that fills a rectangle with *grey*; *corner* and *sides* are (x, y) in pixels."""

    def transform(picture: Picture) -> Picture:
        cut = picture.copy()
        cut[corner[1] : corner[1] + sides[1], corner[0] : corner[0] + sides[0]] = grey
        return cut

    return transform
