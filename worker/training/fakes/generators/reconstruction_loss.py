"""
The loss of painted pictures: difference of pixels, structure and features, and a discriminator that learns with it.

Pixels alone give smooth faces. Current generators are trained against features of a network that was trained on
ImageNet (Johnson, Alahi and Fei-Fei, "Perceptual Losses for Real-Time Style Transfer and Super-Resolution", ECCV
2016) and against a discriminator of patches (Isola et al., "Image-to-Image Translation with Conditional Adversarial
Networks", CVPR 2017), as in Esser, Rombach and Ommer, "Taming Transformers for High-Resolution Image Synthesis", CVPR
2021: they invent texture, and that leaves their traces.
"""

from typing import Final

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from shared.manifests import Architecture
from worker.inference import autocast
from worker.model.network import DEVIATION, MEAN, ForgeryNetwork
from worker.training.fakes.generators.pictures import PATCH_PX
from worker.training.pretrained import load_imagenet

LEVELS: Final = 3
"""Feature maps that are compared, at a half, a quarter and an eighth of the picture's size."""


class ReconstructionLossSettings(BaseModel):
    """Weights of the parts of the loss; the absolute difference of pixels has weight 1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    structure: float = Field(default=0.5, ge=0.0)
    """Weight of structural dissimilarity (Wang et al., "Image quality assessment", IEEE TIP 2004)."""
    perception: float = Field(default=0.0, ge=0.0)
    adversary: float = Field(default=0.0, ge=0.0)
    adversary_from: float = Field(default=0.3, ge=0.0, lt=1.0)
    """Share of the training after which the discriminator joins in: at first it would recognise blur at once."""


class ReconstructionLoss:
    """
    The loss of painted pictures against wanted ones.

    Args:
        images: Number of pictures in the whole training, which decides when the discriminator begins.
    """

    def __init__(self, settings: ReconstructionLossSettings, *, images: int) -> None:
        self._settings = settings
        self._perception = PerceptualDistance() if settings.perception > 0.0 else None
        self._discriminator = Discriminator() if settings.adversary > 0.0 else None
        if self._discriminator is not None:
            self._optimizer = torch.optim.AdamW(self._discriminator.parameters(), 2e-4, betas=(0.5, 0.9))
        self._begin = settings.adversary_from * images
        self._seen = 0

    def __call__(self, painted: Tensor, wanted: Tensor) -> Tensor:
        """Return the mean loss of two batches, (B, 3, H, W) in 0..1; train the discriminator, if any, by one step."""
        settings = self._settings
        loss = functional.l1_loss(painted, wanted)
        if settings.structure > 0.0:
            loss = loss + settings.structure * structural_dissimilarity(painted, wanted)
        if self._perception is not None:
            # Half of the batch suffices: features cost more than everything else.
            half = max(1, len(wanted) // 2)
            loss = loss + settings.perception * self._perception(painted[:half], wanted[:half])
        if self._discriminator is not None and self._seen >= self._begin:
            self._train_discriminator(painted.detach(), wanted)
            loss = loss - settings.adversary * self._discriminator(painted).mean()
        self._seen += len(wanted)
        return loss

    def _train_discriminator(self, painted: Tensor, wanted: Tensor) -> None:
        """Train the discriminator by a step with the hinge loss (Lim and Ye, "Geometric GAN", 2017)."""
        if self._discriminator is None:
            return
        real, fake = self._discriminator(torch.cat([wanted, painted])).chunk(2)
        loss = functional.relu(1.0 - real).mean() + functional.relu(1.0 + fake).mean()
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # PyTorch leaves it untyped.
        self._optimizer.step()


class PerceptualDistance(nn.Module):
    """
    Distance of two pictures in the features of an EfficientNet-Lite0 that was trained on ImageNet.

    Features are brought to length 1 at each place, as Zhang et al., "The Unreasonable Effectiveness of Deep Features as
    a Perceptual Metric", CVPR 2018, do; their learnt weights of planes are left out.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        architecture = Architecture(backbone="efficientnet-lite0", input_planes="rgb", head_channels=8, dropout=0.0)
        # The random initialisation of this network must not change the draws of the painting network.
        with torch.random.fork_rng(devices=[]):
            network = ForgeryNetwork(architecture, PATCH_PX)
            load_imagenet(network)
        body = network.features.network
        stem = nn.Sequential(body._conv_stem, body._bn0, nn.ReLU6())  # noqa: SLF001 - it has no public names
        blocks = []
        stride, level = 2, [stem]
        for block in body._blocks:  # noqa: SLF001
            if block._depthwise_conv.stride[0] == 2:  # noqa: SLF001
                blocks.append(nn.Sequential(*level))
                stride, level = stride * 2, []
            if len(blocks) == LEVELS:
                break
            level.append(block)
        self.levels = nn.ModuleList(blocks)
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("deviation", torch.tensor(DEVIATION).view(1, 3, 1, 1))
        self.eval().requires_grad_(requires_grad=False)

    def forward(self, painted: Tensor, wanted: Tensor) -> Tensor:
        """Return the mean distance of two batches, (B, 3, H, W) in 0..1: 0 for equal pictures."""
        with torch.no_grad():
            targets = self._features(wanted)
        distances = [
            (one - other).square().sum(dim=1).mean()
            for one, other in zip(self._features(painted), targets, strict=True)
        ]
        return torch.stack(distances).mean()

    def _features(self, pictures: Tensor) -> list[Tensor]:
        with autocast(pictures.device):
            planes = (pictures - self.mean) / self.deviation
            found = []
            for level in self.levels:
                planes = level(planes)
                found.append(functional.normalize(planes.float(), dim=1, eps=1e-3))
        return found


class Discriminator(nn.Module):
    """
    Rates how real each patch of a picture looks: (B, 3, H, W) in 0..1 → (B, 1, H/8, W/8), larger is more real.

    Spectral norms (Miyato et al., "Spectral Normalization for Generative Adversarial Networks", ICLR 2018) keep its
    training stable.
    """

    def __init__(self) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for before, after in ((3, 24), (24, 48), (48, 96)):
            parts += [spectral_norm(nn.Conv2d(before, after, 4, stride=2, padding=1)), nn.LeakyReLU(0.2)]
        self.body = nn.Sequential(*parts, spectral_norm(nn.Conv2d(96, 1, 3, padding=1)))

    def forward(self, pictures: Tensor) -> Tensor:
        """Rate each patch."""
        with autocast(pictures.device):
            judged = self.body(pictures * 2.0 - 1.0)
        return torch.as_tensor(judged.float())


def structural_dissimilarity(one: Tensor, other: Tensor) -> Tensor:
    """Return 1 - SSIM, averaged over windows of 7 pixels."""

    def mean(values: Tensor) -> Tensor:
        return functional.avg_pool2d(values, 7, stride=2)

    mean_one, mean_other = mean(one), mean(other)
    spread = mean(one * one) + mean(other * other) - mean_one**2 - mean_other**2
    together = mean(one * other) - mean_one * mean_other
    likeness = (2 * mean_one * mean_other + 1e-4) * (2 * together + 9e-4)
    return (1 - likeness / ((mean_one**2 + mean_other**2 + 1e-4) * (spread + 9e-4))).mean()
