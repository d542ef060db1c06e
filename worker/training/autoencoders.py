"""
Small convolutional autoencoders, and faces painted by them.

Swapping programs such as DeepFaceLab (Perov et al., "DeepFaceLab: Integrated, flexible and extensible face-swapping
framework", 2020) paint a face with the decoder of an autoencoder, enlarge it step by step, match its colours and blend
it into the frame. A face that a small autoencoder of our own paints again has the same history without anybody being
swapped: no camera noise, the traces of the decoder's enlarging, and for each face there is one, so that no identity
can be learnt by heart. (Rajan et al., "Aligned Datasets Improve Detection of Latent Diffusion-Generated Images", ICLR
2025, found the like for whole pictures.)

``paint_faces`` trains the autoencoders and writes what they painted as crop caches of their own.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Final, Literal

import cv2
import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from worker.detection.faces import square_around
from worker.training.cache import CachedFace, CropCache, add_picture, open_tar
from worker.training.errors import DataError
from worker.training.splits import split_digest

Upsampling = Literal["shuffle", "transposed", "bilinear"]
DATASET: Final = "painted"
SHARD: Final = "00000"
VERSION: Final = 1
"""Of what this module paints; another one has caches of its own."""
MOST_FACES: Final = 20_000
"""That are learnt from and painted, drawn at random: it bounds memory and time on large sets."""
MARGIN: Final = 0.3
"""Around the face, of what is painted."""
PATCH_PX: Final = 128
"""Of what an autoencoder is trained on."""
SIDES_PX: Final = (96, 320)
"""Of a painted picture; models for swapping paint 128 to 320."""
SCALES: Final = (0.7, 2.0)
"""Of a painted picture beside what it was made from."""
BATCH: Final = 16


class AutoencoderSettings(BaseModel):
    """One autoencoder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    upsampling: Upsampling
    halvings: int = Field(default=4, ge=2, le=4)
    """How often a face is halved on its way to the code."""
    code_channels: int = Field(default=64, ge=4)
    images: int = Field(default=15_000, gt=0)
    """Patches that it is trained on."""


class Autoencoder(nn.Module):
    """
    Convolutions down to a code and up again; takes and gives (B, 3, H, W) in 0..1, sides multiples of 16.

    The code is a small map, so that any size of picture can be painted.
    """

    def __init__(self, settings: AutoencoderSettings) -> None:
        super().__init__()
        widths = [3, 24, 48, 96, 160][: settings.halvings + 1]
        down: list[nn.Module] = []
        for before, after in pairwise(widths):
            down += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.LeakyReLU(0.1)]
        code = settings.code_channels
        up: list[nn.Module] = [nn.Conv2d(widths[-1], code, 1), nn.Conv2d(code, widths[-1], 3, padding=1)]
        for before, after in zip(widths[:0:-1], [*widths[-2:0:-1], 16], strict=True):
            up += [nn.LeakyReLU(0.1), *_doubled(settings.upsampling, before, after)]
        self.body = nn.Sequential(*down, *up, nn.LeakyReLU(0.1))
        self.last = nn.Conv2d(16, 3, 3, padding=1)

    def forward(self, faces: Tensor) -> Tensor:
        """The faces, painted again; values may lie a little outside 0..1."""
        with torch.autocast(faces.device.type, torch.bfloat16):
            features = self.body(faces * 2.0 - 1.0)
        # Half precision would round colours to steps that can be seen.
        return torch.as_tensor(self.last(features.float()) * 0.5 + 0.5)


def _doubled(upsampling: Upsampling, before: int, after: int) -> list[nn.Module]:
    match upsampling:
        case "shuffle":
            return [nn.Conv2d(before, after * 4, 3, padding=1), nn.PixelShuffle(2)]
        case "transposed":
            return [nn.ConvTranspose2d(before, after, 4, stride=2, padding=1)]
        case "bilinear":
            return [
                nn.Conv2d(before, after, 3, padding=1),
                nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
            ]


def train_autoencoder(
    settings: AutoencoderSettings, pictures: Sequence[NDArray[np.uint8]], *, seed: int, title: str = ""
) -> Autoencoder:
    """
    Train on patches of *pictures*, (H, W, 3) uint8 RGB: structural dissimilarity (Wang et al., "Image quality
    assessment", IEEE TIP 2004), as DeepFaceLab does, and absolute difference where that takes squared ones.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    network = Autoencoder(settings).to(memory_format=torch.channels_last)
    steps = max(1, settings.images // BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=1e-4)
    # A warm-up of no step at all, as a tenth of a few would be, is not defined.
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=max(steps, 20), pct_start=0.1)
    with tqdm(total=steps * BATCH, unit="img", desc=title) as bar:
        for _ in range(steps):
            chosen = rng.integers(len(pictures), size=BATCH)
            patches = np.stack([_patch(pictures[number], rng) for number in chosen])
            wanted = _tensor(patches)
            painted = network(wanted)
            loss = functional.l1_loss(painted, wanted) + 0.5 * _dissimilarity(painted, wanted)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # PyTorch leaves it untyped.
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            bar.update(BATCH)
            bar.set_postfix(loss=f"{float(loss.detach()):.4f}", refresh=False)
    return network.eval()


def _tensor(pictures: NDArray[np.uint8]) -> Tensor:
    """(B, H, W, 3) uint8 to (B, 3, H, W) in 0..1, channels last in memory."""
    planes = torch.tensor(pictures).permute(0, 3, 1, 2).to(torch.float32) / 255.0
    return planes.contiguous(memory_format=torch.channels_last)


def _patch(picture: NDArray[np.uint8], rng: Generator) -> NDArray[np.uint8]:
    """A square of ``PATCH_PX``, mirrored half the time, of a picture that is at least as large."""
    y, x = (int(rng.integers(side - PATCH_PX + 1)) for side in picture.shape[:2])
    patch = picture[y : y + PATCH_PX, x : x + PATCH_PX]
    return patch[:, ::-1] if rng.random() < 0.5 else patch


def _dissimilarity(one: Tensor, other: Tensor) -> Tensor:
    """1 - SSIM over windows of 7 pixels, averaged."""

    def mean(values: Tensor) -> Tensor:
        return functional.avg_pool2d(values, 7, stride=2)

    mean_one, mean_other = mean(one), mean(other)
    spread = mean(one * one) + mean(other * other) - mean_one**2 - mean_other**2
    together = mean(one * other) - mean_one * mean_other
    likeness = (2 * mean_one * mean_other + 1e-4) * (2 * together + 9e-4)
    return (1 - likeness / ((mean_one**2 + mean_other**2 + 1e-4) * (spread + 9e-4))).mean()


def paint_faces(
    caches: Sequence[Path], folder: Path, settings: Sequence[AutoencoderSettings], *, seed: int = 0
) -> list[Path]:
    """
    Train each autoencoder on the real faces of the training set in *caches*, and let it paint them again.

    Args:
        folder: Receives a crop cache for each autoencoder, named after what decides its contents: one that is there is
            kept. Its faces' label is ``fake``, their data set ``painted``, and ``original`` tells which face was
            painted (see ``face_name``).

    Returns:
        The folders of these caches.

    Raises:
        DataError: There is no real face.
    """
    made = [folder / name for name in cache_names(settings, seed, caches)]
    rows: list[tuple[CropCache, CachedFace]] = []
    pictures: list[NDArray[np.uint8]] = []
    for number, (each, place) in enumerate(zip(settings, made, strict=True)):
        if (place / f"{SHARD}.jsonl").exists():
            continue
        if not rows:
            rows = _drawn_faces(caches, seed)
            pictures = [_sized(_part(cache.picture(face), face)[0]) for cache, face in rows]
        network = train_autoencoder(each, pictures, seed=seed + number, title=place.name)
        _paint(network, rows, place, seed=seed + number)
    return made


def face_name(face: CachedFace) -> str:
    """What tells a face of a cache from every other, for ``CachedFace.original`` of one that was painted after it."""
    return f"{face.dataset}/{face.key}@{face.shard}:{face.offset}"


def cache_names(settings: Sequence[AutoencoderSettings], seed: int, caches: Sequence[Path]) -> list[str]:
    """Of the caches that ``paint_faces`` paints after the faces in *caches*."""
    split = split_digest(caches)
    digests = [
        hashlib.sha256(json.dumps([VERSION, each.model_dump(), seed + number, split]).encode())
        for number, each in enumerate(settings)
    ]
    for face in (face for folder in caches for face in CropCache(folder).faces() if face.label == "real"):
        for digest in digests:
            digest.update(f"{face_name(face)}:{face.length}\n".encode())
    return [
        f"{DATASET}-{each.upsampling}-{digest.hexdigest()[:8]}" for each, digest in zip(settings, digests, strict=True)
    ]


def _drawn_faces(caches: Sequence[Path], seed: int) -> list[tuple[CropCache, CachedFace]]:
    """Real faces of the training set, ``MOST_FACES`` at most, in the order of the caches."""
    rng = np.random.default_rng(seed)
    drawn: list[tuple[float, CropCache, CachedFace]] = []
    for folder in caches:
        cache = CropCache(folder)
        drawn += ((rng.random(), cache, face) for face in cache.faces() if _is_learnt_from(face))
    if not drawn:
        raise DataError("no cache holds a real face of the training set for an autoencoder to paint")
    limit = sorted(place for place, _, _ in drawn)[:MOST_FACES][-1]
    return [(cache, face) for place, cache, face in drawn if place <= limit]


def _is_learnt_from(face: CachedFace) -> bool:
    return face.label == "real" and face.set == "train"


def _part(picture: NDArray[np.uint8], face: CachedFace) -> tuple[NDArray[np.uint8], int, int]:
    """The picture about the face alone, and where its corner lies."""
    x, y, side = square_around(face.box_px, MARGIN)
    x, y = max(x, 0), max(y, 0)
    return np.ascontiguousarray(picture[y : y + side, x : x + side]), x, y


def _sized(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Large enough for a patch, and not larger than needed for what is painted."""
    factor = float(np.clip(min(picture.shape[:2]), PATCH_PX, SIDES_PX[1])) / min(picture.shape[:2])
    if factor == 1.0:
        return picture
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    size = [max(PATCH_PX, round(length * factor)) for length in picture.shape[1::-1]]
    return np.asarray(cv2.resize(picture, size, interpolation=how), np.uint8)


@torch.inference_mode()
def _paint(network: Autoencoder, rows: Sequence[tuple[CropCache, CachedFace]], folder: Path, *, seed: int) -> None:
    rng = np.random.default_rng((seed, 1))
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    # Others may paint the same at the same time. The index is renamed last: without it there is no shard.
    tar_partial, index_partial = (folder / f"{SHARD}.{kind}.{os.getpid()}.partial" for kind in ("tar", "jsonl"))
    with tar_partial.open("wb") as file:
        tar = open_tar(file)
        for number, (cache, face) in enumerate(tqdm(rows, unit="face", desc=f"{folder.name} paints")):
            part, x, y = _part(cache.picture(face), face)
            side = float(np.clip(min(part.shape[:2]) * rng.uniform(*SCALES), *SIDES_PX))
            width, height = (
                max(16, round(side * length / min(part.shape[:2]) / 16) * 16) for length in part.shape[1::-1]
            )
            how = cv2.INTER_AREA if width < part.shape[1] else cv2.INTER_CUBIC
            sized = np.asarray(cv2.resize(part, (width, height), interpolation=how), np.uint8)
            painted = network(_tensor(sized[None]))[0].permute(1, 2, 0).numpy()
            picture = np.asarray(np.clip(painted * 255.0 + 0.5, 0, 255), np.uint8)
            offset, length = add_picture(tar, file, f"{SHARD}-{number:06d}.png", picture)
            across, down = width / part.shape[1], height / part.shape[0]
            left, top, right, bottom = face.box_px
            made = replace(
                face,
                shard=SHARD,
                offset=offset,
                length=length,
                label="fake",
                dataset=DATASET,
                method=folder.name,
                original=face_name(face),
                box_px=((left - x) * across, (top - y) * down, (right - x) * across, (bottom - y) * down),
                landmarks_px=tuple(((a - x) * across, (b - y) * down) for a, b in face.landmarks_px),
            )
            lines.append(json.dumps(asdict(made)))
        tar.close()
    index_partial.write_text("".join(f"{line}\n" for line in lines))
    tar_partial.rename(folder / f"{SHARD}.tar")
    index_partial.rename(folder / f"{SHARD}.jsonl")
