"""
The part of ``Augmentation`` that can be applied to whole batches on the network's device: rescaling, blur, noise,
sharpening, JPEG, colours and cutout.

Video codecs stay with the loaders. A pair for which a codec, or a chain of them, is drawn gets all earlier changes
there as well, so that their order is kept; other pairs leave their loader unchanged. Changes here are made at the
network's size: a block of JPEG is eight of the network's pixels, where loaders take eight of the crop's.

The changes of a pair follow from the seed and its number alone, except the noise itself, which follows from the seed
and the number of the batch, and differs between kinds of devices.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from worker.training.fakes.augmentation import MIN_SIDE_PX, UNSHARP_SIGMA_PX, Augmentation, Changes, Cutout

BLUR_RADIUS_PX: Final = 4
"""Radius of the blur at the largest sigma."""
_RANDOM_STREAM: Final = 1
"""Separates the random numbers of this module from others with the same seed and number."""

LUMA_TABLE: Final = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMA_TABLE: Final = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
"""Quantisation of JPEG at quality 50: ITU-T T.81, tables K.1 and K.2."""


def select_loader_augmentation(augmentation: Augmentation, seed: int, number: int) -> Augmentation:
    """Return the part of *augmentation* that the loader of the pair with this number applies."""
    codec, _, _ = _draw_codec(augmentation, seed, number)
    nothing = {"rescale": 0.0, "blur": 0.0, "noise": 0.0, "sharpen": 0.0}
    update: dict[str, float] = {"jpeg": 0.0, "h264": 0.0, "chain": 0.0, "colour": 0.0, "cutout": 0.0}
    return augmentation.model_copy(update=update | ({codec: 1.0} if codec else nothing))


def draw_changes(augmentation: Augmentation, seed: int, number: int) -> Changes:
    """Draw the changes that ``OnDevice`` applies, with the probabilities and strengths of ``Augmentation``."""
    codec, is_jpeg, rng = _draw_codec(augmentation, seed, number)
    changes = Changes()
    if not codec:
        # JPEG was decided together with the codec, and H.264 is ruled out.
        changes = augmentation.model_copy(update={"jpeg": float(is_jpeg), "h264": 0.0}).draw_native(rng)
    return augmentation.draw_final(rng, changes)


class OnDevice:
    """
    Augmentation of batches of pairs on their device.

    Args:
        stages: Number of pairs and augmentation of each; the last one never ends.
        seed: Seed of the stream.
    """

    def __init__(self, stages: Sequence[tuple[int, Augmentation]], seed: int) -> None:
        self._stages = list(stages)
        self._seed = seed

    def apply(self, pictures: Tensor, number: int) -> Tensor:
        """
        Apply the same changes to both pictures of every pair.

        Args:
            pictures: (2B, 3, S, S) uint8, real before fake, of the batch with this number.

        Returns:
            The same shape and type.
        """
        count = len(pictures) // 2
        pairs = range(number * count, (number + 1) * count)
        changes = [draw_changes(self._augmentation(pair), self._seed, pair) for pair in pairs]
        generator = torch.Generator(pictures.device).manual_seed(hash((self._seed, _RANDOM_STREAM, number)) % 2**63)
        return apply_changes(pictures, changes, generator)

    def _augmentation(self, pair: int) -> Augmentation:
        for pairs, augmentation in self._stages:
            if pair < pairs:
                return augmentation
            pair -= pairs
        return self._stages[-1][1]


@torch.no_grad()
def apply_changes(pictures: Tensor, changes: Sequence[Changes], generator: torch.Generator) -> Tensor:
    """
    Apply *changes*, one for each pair, to both of its pictures.

    Args:
        pictures: (2B, 3, S, S) uint8, real before fake.
        generator: Generator of noise, on the same device.

    Returns:
        The same shape and type.
    """
    batch = _Batch(pictures, len(changes))
    rows = list(enumerate(changes))
    batch.apply_to([(n, c.rescale_factor) for n, c in rows if c.rescale_factor is not None], rescale)
    batch.apply_to([(n, c.blur_sigma_px) for n, c in rows if c.blur_sigma_px is not None], blur)
    batch.apply_to(
        [(n, c.noise_level) for n, c in rows if c.noise_level is not None],
        lambda planes, levels: add_noise(planes, levels, generator),
    )
    batch.apply_to([(n, c.sharpening) for n, c in rows if c.sharpening is not None], sharpen)
    for turn in range(max((len(c.jpegs) for c in changes), default=0)):
        for is_coarse in (True, False):
            chosen = [
                (n, float(c.jpegs[turn][0]))
                for n, c in rows
                if c.jpegs[turn : turn + 1] and c.jpegs[turn][1] == is_coarse
            ]
            batch.apply_to(chosen, compress_jpeg_420 if is_coarse else compress_jpeg_444)
    batch.apply_to([(n, c.colours) for n, c in rows if c.colours is not None], map_colours)
    batch.apply_to([(n, _rectangle_and_grey(c.cutout)) for n, c in rows if c.cutout is not None], cover_rectangle)
    return batch.planes.to(torch.uint8)


class _Batch:
    """Grey levels as floating-point numbers, rounded after each change as programs with 8-bit pictures do."""

    def __init__(self, pictures: Tensor, pairs: int) -> None:
        self.planes = pictures.to(torch.float32)
        self._pairs = pairs

    def apply_to(self, chosen: Sequence[tuple[int, Any]], transform: Callable[[Tensor, Tensor], Tensor]) -> None:
        """Apply *transform* to both pictures of the *chosen* pairs, each with its own parameter."""
        if not chosen:
            return
        numbers = [number for number, _ in chosen]
        # Two small transfers from pinned memory; the host knows all sizes, so it never waits for the device.
        rows = self._send(np.array(numbers + [number + self._pairs for number in numbers], np.int64))
        values = self._send(np.array([value for _, value in chosen] * 2, np.float32))
        changed = transform(self.planes.index_select(0, rows), values)
        self.planes.index_copy_(0, rows, changed.round().clamp(0.0, 255.0))

    def _send(self, values: NDArray[Any]) -> Tensor:
        tensor = torch.from_numpy(values)
        if self.planes.is_cuda:
            tensor = tensor.pin_memory()
        return tensor.to(self.planes.device, non_blocking=True)


def rescale(planes: Tensor, factors: Tensor) -> Tensor:
    """Shrink by averaging areas, and enlarge to the old size by linear interpolation."""
    side = planes.shape[-1]
    small = (side * factors).round().clamp(min=MIN_SIDE_PX, max=side).view(-1, 1, 1)
    places = torch.arange(side, device=planes.device, dtype=torch.float32)
    rows, columns = places.view(1, -1, 1), places.view(1, 1, -1)
    # Row i of the small picture covers [i, i + 1) * side / small; rows beyond the small picture cover nothing.
    width = side / small
    covered = torch.minimum((rows + 1) * width, columns + 1) - torch.maximum(rows * width, columns)
    shrink = covered.clamp(min=0.0) / width * (rows < small)  # (N, S, S)
    centres = ((rows + 0.5) / width - 0.5).clamp(min=0.0)
    grow = (1.0 - (torch.minimum(centres, small - 1) - columns).abs()).clamp(min=0.0)
    return _multiply_both_sides(_multiply_both_sides(planes, shrink).round(), grow)


def blur(planes: Tensor, sigmas_px: Tensor) -> Tensor:
    """Apply a Gaussian blur, whose kernels end where OpenCV's do."""
    reach = torch.arange(-BLUR_RADIUS_PX, BLUR_RADIUS_PX + 1, device=planes.device, dtype=torch.float32)
    # OpenCV takes (6 sigma + 1) taps, rounded, and one more if that is even.
    radius = ((sigmas_px * 6.0 + 1.0).round() / 2.0).floor().view(-1, 1)
    kernels = torch.exp(-0.5 * (reach / sigmas_px.view(-1, 1)).square()) * (reach.abs() <= radius)
    kernels = (kernels / kernels.sum(1, keepdim=True)).repeat_interleave(3, 0)  # (3N, taps)
    count, _, height, width = planes.shape
    padded = functional.pad(planes, (BLUR_RADIUS_PX,) * 4, mode="reflect").reshape(
        1, 3 * count, *(height + 2 * BLUR_RADIUS_PX, width + 2 * BLUR_RADIUS_PX)
    )
    across = functional.conv2d(padded, kernels[:, None, None, :], groups=3 * count)
    return functional.conv2d(across, kernels[:, None, :, None], groups=3 * count).view_as(planes)


def add_noise(planes: Tensor, levels: Tensor, generator: torch.Generator) -> Tensor:
    """Add normal noise of these deviations, the same to both pictures of a pair."""
    half = planes.shape[0] // 2
    grains = torch.randn(half, *planes.shape[1:], generator=generator, device=planes.device)
    return planes + torch.cat([grains, grains]) * levels.view(-1, 1, 1, 1)


def sharpen(planes: Tensor, amounts: Tensor) -> Tensor:
    """Sharpen by unsharp masking."""
    amounts = amounts.view(-1, 1, 1, 1)
    smooth = blur(planes, torch.full_like(amounts.flatten(), UNSHARP_SIGMA_PX)).round()
    return planes * (1.0 + amounts) - smooth * amounts


def compress_jpeg_420(planes: Tensor, qualities: Tensor) -> Tensor:
    """Apply JPEG with chroma at half resolution."""
    return compress_jpeg(planes, qualities, coarse_chroma=True)


def compress_jpeg_444(planes: Tensor, qualities: Tensor) -> Tensor:
    """Apply JPEG with chroma at full resolution."""
    return compress_jpeg(planes, qualities, coarse_chroma=False)


def compress_jpeg(planes: Tensor, qualities: Tensor, *, coarse_chroma: bool) -> Tensor:
    """
    Apply the loss of JPEG without writing a file: ITU-T T.81 with the tables and scaling of libjpeg.

    Args:
        planes: (N, 3, H, W) RGB levels.
        qualities: (N,) from 1 to 100.

    Returns:
        (N, 3, H, W) levels, not rounded.
    """
    height, width = planes.shape[2:]
    block = 16 if coarse_chroma else 8
    padded = functional.pad(planes, (0, -width % block, 0, -height % block), mode="replicate")
    red, green, blue = padded.unbind(1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    chroma = torch.stack([(blue - luma) / 1.772, (red - luma) / 1.402], 1).round()  # Without the offset of 128.
    if coarse_chroma:
        chroma = functional.avg_pool2d(chroma, 2).round()
    scale = torch.where(qualities < 50, 5000.0 / qualities, 200.0 - 2.0 * qualities).view(-1, 1, 1)
    luma = _quantise_blocks(luma.round()[:, None] - 128.0, LUMA_TABLE, scale)[:, 0] + 128.0
    chroma = _quantise_blocks(chroma, CHROMA_TABLE, scale)
    if coarse_chroma:
        # libjpeg's "fancy" upsampling: three quarters of the nearer sample and one of the farther.
        chroma = functional.interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False)
    chroma_blue, chroma_red = chroma.round().unbind(1)
    rgb = torch.stack(
        [luma + 1.402 * chroma_red, luma - 0.344136 * chroma_blue - 0.714136 * chroma_red, luma + 1.772 * chroma_blue],
        1,
    )
    return rgb[:, :, :height, :width]


def map_colours(planes: Tensor, maps: Tensor) -> Tensor:
    """Apply a (3, 4) map of colours to each picture."""
    mapped = torch.bmm(maps[:, :, :3], planes.flatten(2)) + maps[:, :, 3:]
    return mapped.view_as(planes)


def cover_rectangle(planes: Tensor, cuts: Tensor) -> Tensor:
    """Cover a rectangle of each picture with grey."""
    side = planes.shape[-1]
    left, top, right, bottom = ((cuts[:, place] * side).floor().view(-1, 1, 1, 1) for place in range(4))
    places = torch.arange(side, device=planes.device, dtype=torch.float32)
    rows, columns = places.view(1, 1, -1, 1), places.view(1, 1, 1, -1)
    inside = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
    return torch.where(inside, cuts[:, 4].view(-1, 1, 1, 1), planes)


def _draw_codec(augmentation: Augmentation, seed: int, number: int) -> tuple[str, bool, Generator]:
    """Draw the codec of the loader, if any, and whether the device applies JPEG; return these and the generator."""
    rng = np.random.default_rng((seed, number, _RANDOM_STREAM))
    is_chained = rng.random() < augmentation.chain
    draw = rng.random()
    is_jpeg = draw < augmentation.jpeg
    if is_chained:
        return "chain", False, rng
    return ("h264" if not is_jpeg and draw < augmentation.jpeg + augmentation.h264 else ""), is_jpeg, rng


def _rectangle_and_grey(cutout: Cutout) -> tuple[float, float, float, float, float]:
    """Return left, top, right and bottom as shares of the side, and the grey level, for ``cover_rectangle``."""
    corner = cutout.corner * (1.0 - cutout.sides)
    return (*corner, *(corner + cutout.sides), float(cutout.grey))


def _multiply_both_sides(planes: Tensor, matrices: Tensor) -> Tensor:
    """Return M P Mᵀ for each plane of a picture and its matrix: (N, 3, S, S), (N, S, S)."""
    matrices = matrices[:, None]
    return matrices @ planes @ matrices.mT


def _quantise_blocks(planes: Tensor, table: tuple[tuple[int, ...], ...], scale: Tensor) -> Tensor:
    """Quantise the cosine transform of (N, C, H, W) levels about 0, and transform back, within a byte's range."""
    count, channels, height, width = planes.shape
    steps = _constant_on(table, planes.device)
    steps = ((steps * scale + 50.0) / 100.0).floor().clamp(1.0, 255.0).view(count, 1, 1, 1, 8, 8)
    cosines = _constant_on(_COSINES, planes.device)
    blocks = planes.view(count, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    levels = (cosines @ blocks @ cosines.mT / steps).round() * steps
    decoded = (cosines.mT @ levels @ cosines).round().clamp(-128.0, 127.0)
    return decoded.transpose(3, 4).reshape(planes.shape)


_COSINES: Final = tuple(
    tuple(
        (math.sqrt(1 / 8) if not row else 0.5) * math.cos((2 * column + 1) * row * math.pi / 16) for column in range(8)
    )
    for row in range(8)
)
"""The orthonormal cosine transform of eight samples."""
_CONSTANTS: dict[tuple[int, torch.device], Tensor] = {}


def _constant_on(values: tuple[tuple[float, ...], ...], device: torch.device) -> Tensor:
    """Return *values* as a tensor on *device*, transferred once."""
    key = (id(values), device)
    if key not in _CONSTANTS:
        _CONSTANTS[key] = torch.tensor(values, dtype=torch.float32, device=device)
    return _CONSTANTS[key]
