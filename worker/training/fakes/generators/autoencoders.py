"""
Small convolutional autoencoders, plain, variational and quantised.

Swapping programs such as DeepFaceLab (Perov et al., "DeepFaceLab: Integrated, flexible and extensible face-swapping
framework", 2020) paint a face with the decoder of an autoencoder and enlarge it step by step; latent diffusion and
token models paint whole pictures with the decoder of a variational or quantised one (Rombach et al., "High-Resolution
Image Synthesis with Latent Diffusion Models", CVPR 2022; Esser, Rombach and Ommer, CVPR 2021). A face that a small
autoencoder reconstructs has the same traces without a swap: no camera noise, and the artefacts of the decoder's
upsampling. There is one such fake for each real face, so that no identity can be memorised. (Rajan et al., "Aligned
Datasets Improve Detection of Latent Diffusion-Generated Images", ICLR 2025, found the same for whole pictures.)
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final, Literal

import numpy as np
import torch
from numpy.random import Generator
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from worker.inference import autocast
from worker.training.fakes.generators.pictures import PATCH_PX, draw_patch, resize, to_picture, to_tensor
from worker.training.fakes.generators.reconstruction_loss import ReconstructionLoss, ReconstructionLossSettings
from worker.training.fakes.generators.training_loop import BATCH, fit
from worker.training.fakes.pictures import Landmarks, Picture

Upsampling = Literal["shuffle", "transposed", "bilinear"]
Code = Literal["plain", "variational", "quantised"]
SIDES_PX: Final = (96, 320)
"""Range of the side of a painted picture; models for swapping paint 128 to 320 px."""
SCALES: Final = (0.7, 2.0)
"""Range of the size of a painted picture relative to the real one."""
HALF_LEVELS: Final = 4
"""A quantised code has this many levels on either side of 0 in each channel."""
DIVERGENCE: Final = 1e-3
"""Weight of the divergence of a variational code in the loss."""


class AutoencoderSettings(BaseModel):
    """One autoencoder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    upsampling: Upsampling
    code: Code = "plain"
    """A variational code is noisy during training (Kingma and Welling, "Auto-Encoding Variational Bayes", ICLR
    2014), a quantised one has whole numbers (Mentzer et al., "Finite Scalar Quantization: VQ-VAE Made Simple", ICLR
    2024). Faces of a plain one are of the kind ``painted``, others of the kind ``decoded``."""
    halvings: int = Field(default=4, ge=2, le=4)
    """Number of halvings of the size from the face to the code."""
    code_channels: int = Field(default=64, ge=4)
    whole: bool = False
    """Whether to train on and paint each face as a whole at ``PATCH_PX``, as one-shot swappers do, instead of patches
    at about its own size."""
    likeness: ReconstructionLossSettings = ReconstructionLossSettings()
    images: int = Field(default=15_000, gt=0)
    """Number of pictures that it is trained on."""
    faces: int = Field(default=20_000, gt=0)
    """Largest number of faces, drawn at random, to train on and to paint: it bounds memory and time on large sets."""

    @property
    def kind(self) -> Literal["painted", "decoded"]:
        """The kind of fakes that it paints."""
        return "painted" if self.code == "plain" else "decoded"

    @property
    def method(self) -> str:
        """The part of the name of its caches that the settings decide."""
        return self.upsampling if self.code == "plain" else f"{self.code}-{self.upsampling}"


class Autoencoder(nn.Module):
    """
    Convolutions down to a code and up again, of (B, 3, H, W) in 0..1 with sides that are multiples of 16.

    The code is a small map, so that any size of picture can be painted.
    """

    def __init__(self, settings: AutoencoderSettings) -> None:
        super().__init__()
        self.settings = settings
        widths = [3, 24, 48, 96, 160][: settings.halvings + 1]
        down: list[nn.Module] = []
        for before, after in pairwise(widths):
            down += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.LeakyReLU(0.1)]
        code = settings.code_channels
        self.down = nn.Sequential(*down, nn.Conv2d(widths[-1], 2 * code if settings.code == "variational" else code, 1))
        up: list[nn.Module] = [nn.Conv2d(code, widths[-1], 3, padding=1)]
        for before, after in zip(widths[:0:-1], [*widths[-2:0:-1], 16], strict=True):
            up += [nn.LeakyReLU(0.1), *_upsampling_layers(settings.upsampling, before, after)]
        self.up = nn.Sequential(*up, nn.LeakyReLU(0.1))
        self.last = nn.Conv2d(16, 3, 3, padding=1)

    def forward(self, faces: Tensor) -> Tensor:
        """Reconstruct the faces; values may be slightly outside 0..1."""
        return self.reconstruct(faces)[0]

    def reconstruct(self, faces: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstruct the faces; also return the loss of their code: 0 unless it is variational."""
        with autocast(faces.device):
            code, cost = self.encode(self.down(faces * 2.0 - 1.0).float())
            features = self.up(code)
        # Half precision would round colours to visible steps.
        return torch.as_tensor(self.last(features.float()) * 0.5 + 0.5), cost

    def encode(self, code: Tensor) -> tuple[Tensor, Tensor]:
        """Apply the bottleneck to the output of the down-sampling layers; return the code and its loss, a scalar."""
        nothing = code.new_zeros(())
        match self.settings.code:
            case "plain":
                return code, nothing
            case "variational":
                mean, log_variance = code.chunk(2, dim=1)
                log_variance = log_variance.clamp(-20.0, 10.0)
                divergence = 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).mean()
                if self.training:
                    mean = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
                return mean, DIVERGENCE * divergence
            case "quantised":
                bounded = torch.tanh(code) * HALF_LEVELS
                # The gradient passes as if nothing had been rounded.
                return (bounded + (bounded.round() - bounded).detach()) / HALF_LEVELS, nothing

    @torch.inference_mode()
    def paint(self, part: Picture, _landmarks: Landmarks, rng: Generator) -> Picture:
        """Reconstruct a face, at a size that is drawn; see ``painting.Painter``."""
        smaller = min(part.shape[:2])
        side = float(PATCH_PX)
        if not self.settings.whole:
            side = float(np.clip(smaller * rng.uniform(*SCALES), *SIDES_PX))
        width, height = (max(16, round(side * length / smaller / 16) * 16) for length in part.shape[1::-1])
        return to_picture(self(to_tensor(resize(part, width, height)[None]))[0])


def _upsampling_layers(upsampling: Upsampling, before: int, after: int) -> list[nn.Module]:
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
    settings: AutoencoderSettings, pictures: Sequence[Picture], *, seed: int, title: str = ""
) -> tuple[Autoencoder, list[float]]:
    """
    Train on patches of *pictures*, (H, W, 3) uint8 RGB with sides of ``PATCH_PX`` or more, or on whole ones.

    Without an adversary the loss is DeepFaceLab's structural dissimilarity, with the absolute difference instead of the
    squared one.

    Returns:
        The autoencoder in eval mode, and the loss of each step.
    """
    torch.manual_seed(seed)
    network = Autoencoder(settings).to(memory_format=torch.channels_last)
    likeness = ReconstructionLoss(settings.likeness, images=settings.images)
    if settings.whole:
        pictures = [resize(picture, PATCH_PX, PATCH_PX) for picture in pictures]

    def batch_loss(rng: Generator) -> Tensor:
        chosen = rng.integers(len(pictures), size=BATCH)
        wanted = to_tensor(np.stack([draw_patch(pictures[number], rng) for number in chosen]))
        painted, cost = network.reconstruct(wanted)
        return likeness(painted, wanted) + cost

    losses = fit(network, batch_loss, images=settings.images, seed=seed, rate=2e-3, title=title)
    return network, losses
