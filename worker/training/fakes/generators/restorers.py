"""
Small networks that enlarge shrunk and degraded faces, and invent the details.

Swappers that paint 128 px or less are followed by restoration: GFPGAN (Wang et al., "Towards Real-World Blind Face
Restoration with Generative Facial Prior", CVPR 2021) or CodeFormer (Zhou et al., "Towards Robust Blind Face
Restoration with Codebook Lookup Transformer", NeurIPS 2022). The visible texture of such a fake is the restorer's.
These are residual networks with pixel shuffle at the end (Lim et al., "Enhanced Deep Residual Networks for Single Image
Super-Resolution", CVPR Workshops 2017), trained with features and an adversary as ESRGAN is (Wang et al., "ESRGAN:
Enhanced Super-Resolution Generative Adversarial Networks", ECCV Workshops 2018) on pictures that were degraded at
random (Wang et al., "Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data", ICCV Workshops
2021).
"""

from collections.abc import Sequence
from typing import Final, Literal

import cv2
import numpy as np
import torch
from numpy.random import Generator
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional

from worker.inference import autocast
from worker.training.fakes.generators.pictures import PATCH_PX, draw_patch, resize, to_picture, to_tensor
from worker.training.fakes.generators.reconstruction_loss import ReconstructionLoss, ReconstructionLossSettings
from worker.training.fakes.generators.training_loop import BATCH, fit
from worker.training.fakes.pictures import Landmarks, Picture
from worker.training.fakes.transcoding import make_jpeg

SIDES_PX: Final = (128, 256)
"""Range of the side of a restored face."""
NOISE_LEVELS: Final = 4.0
"""Largest deviation of the noise that is added to small faces."""
QUALITIES: Final = (40, 95)
"""Range of the JPEG quality of small faces."""
RESIDUAL_WEIGHT: Final = 0.2
"""Weight of the residual of a block, which keeps deep sums near their input at first."""


class RestorerSettings(BaseModel):
    """One network that restores faces; they are of the kind ``restored``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    factor: Literal[2, 4] = 4
    """Factor by which it enlarges."""
    blocks: int = Field(default=6, ge=1)
    planes: int = Field(default=32, ge=8)
    likeness: ReconstructionLossSettings = ReconstructionLossSettings(structure=0.0, perception=1.0, adversary=0.1)
    images: int = Field(default=15_000, gt=0)
    """Number of patches that it is trained on."""
    faces: int = Field(default=20_000, gt=0)
    """Largest number of faces, drawn at random, to train on and to paint."""

    @property
    def kind(self) -> Literal["restored"]:
        """The kind of fakes that it paints."""
        return "restored"

    @property
    def method(self) -> str:
        """The part of the name of its caches that the settings decide."""
        return f"x{self.factor}"


class Restorer(nn.Module):
    """Enlarges faces: (B, 3, h, w) in 0..1 → (B, 3, factor h, factor w)."""

    def __init__(self, settings: RestorerSettings) -> None:
        super().__init__()
        self.settings = settings
        planes = settings.planes
        self.first = nn.Conv2d(3, planes, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(planes, planes, 3, padding=1), nn.LeakyReLU(0.1), nn.Conv2d(planes, planes, 3, padding=1)
            )
            for _ in range(settings.blocks)
        )
        doubled: list[nn.Module] = []
        for _ in range(settings.factor // 2):
            doubled += [nn.Conv2d(planes, 4 * planes, 3, padding=1), nn.PixelShuffle(2), nn.LeakyReLU(0.1)]
        self.up = nn.Sequential(*doubled)
        self.last = nn.Conv2d(planes, 3, 3, padding=1)

    def forward(self, small: Tensor) -> Tensor:
        """Enlarge the faces; values may be slightly outside 0..1."""
        with autocast(small.device):
            features = self.first(small * 2.0 - 1.0)
            for block in self.blocks:
                features = features + RESIDUAL_WEIGHT * block(features)
            features = self.up(features)
        # The network learns the difference from bilinear enlarging, in full precision so that colours have no steps.
        plain = functional.interpolate(
            small, scale_factor=float(self.settings.factor), mode="bilinear", align_corners=False
        )
        return torch.as_tensor(plain + self.last(features.float()) * 0.5)

    @torch.inference_mode()
    def paint(self, part: Picture, _landmarks: Landmarks, rng: Generator) -> Picture:
        """Shrink and degrade a face, and restore it; see ``painting.Painter``."""
        side = rng.uniform(*SIDES_PX) / self.settings.factor
        width, height = (max(8, round(side * length / min(part.shape[:2]))) for length in part.shape[1::-1])
        return to_picture(self(to_tensor(degrade(part, width, height, rng)[None]))[0])


def degrade(picture: Picture, width: int, height: int, rng: Generator) -> Picture:
    """Blur and shrink *picture*, and add noise and compression."""
    if rng.random() < 0.5:
        sigma = rng.uniform(0.2, 0.5) * picture.shape[1] / width
        picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma), np.uint8)
    small = resize(picture, width, height)
    if rng.random() < 0.5:
        noise = rng.standard_normal(small.shape, np.float32) * np.float32(rng.uniform(0.0, NOISE_LEVELS))
        small = np.asarray(np.clip(small + noise + 0.5, 0, 255), np.uint8)
    return make_jpeg(int(rng.integers(*QUALITIES)))(small) if rng.random() < 0.5 else small


def train_restorer(
    settings: RestorerSettings, pictures: Sequence[Picture], *, seed: int, title: str = ""
) -> tuple[Restorer, list[float]]:
    """
    Train on patches of *pictures*, (H, W, 3) uint8 RGB with sides of ``PATCH_PX`` or more.

    Returns:
        The network in eval mode, and the loss of each step.
    """
    torch.manual_seed(seed)
    network = Restorer(settings).to(memory_format=torch.channels_last)
    likeness = ReconstructionLoss(settings.likeness, images=settings.images)
    small_px = PATCH_PX // settings.factor

    def batch_loss(rng: Generator) -> Tensor:
        chosen = rng.integers(len(pictures), size=BATCH)
        wanted = [draw_patch(pictures[number], rng) for number in chosen]
        small = [degrade(picture, small_px, small_px, rng) for picture in wanted]
        return likeness(network(to_tensor(np.stack(small))), to_tensor(np.stack(wanted)))

    losses = fit(network, batch_loss, images=settings.images, seed=seed, rate=1e-3, title=title)
    return network, losses
