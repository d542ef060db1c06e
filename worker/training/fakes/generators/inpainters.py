"""
A small diffusion network that paints the inside of a face mask, given what surrounds it.

Diffusion (Ho, Jain and Abbeel, "Denoising Diffusion Probabilistic Models", NeurIPS 2020) with the cosine schedule of
Nichol and Dhariwal ("Improved Denoising Diffusion Probabilistic Models", ICML 2021). The network predicts the clear
picture (``x`` among the targets that Salimans and Ho compare, "Progressive Distillation for Fast Sampling of Diffusion
Models", ICLR 2022): after few steps of training it is smooth, whereas predicting ``v``, which is mostly noise,
left noise in the faces. The network sees the masked picture and the mask beside the noisy one, as Palette does
(Saharia et al., "Palette: Image-to-Image Diffusion Models", SIGGRAPH 2022), and works on squares of 2 by 2 pixels
(Luhman and Luhman, "Improving Diffusion Model Efficiency Through Patching", 2022), which costs a quarter.
Faces are drawn with few deterministic steps (Song, Meng and Ermon, "Denoising Diffusion Implicit Models", ICLR 2021),
from the face itself with much noise added (Meng et al., "SDEdit: Guided Image Synthesis and Editing with Stochastic
Differential Equations", ICLR 2022) or from noise alone.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Final, Literal, NamedTuple, Self

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from worker.inference import autocast
from worker.training.fakes.blending import alpha_blend, face_mask
from worker.training.fakes.generators.pictures import PATCH_PX, resize, to_picture, to_tensor
from worker.training.fakes.generators.training_loop import BATCH, fit
from worker.training.fakes.pictures import Landmarks, Picture

SHRINK: Final = 2
"""Side of the squares of pixels that the network processes as one."""
TIME_PLANES: Final = 64
GROUPS: Final = 8
MASK_LEVEL: Final = 0.02
"""Level of a soft mask above which a pixel is painted anew."""
Strength = Annotated[float, Field(ge=0.0, le=1.0)]


class Face(NamedTuple):
    """A face to learn from."""

    picture: Picture
    landmarks: Landmarks
    """Landmarks in the picture."""


class InpainterSettings(BaseModel):
    """One network that paints the inside of masks; its faces are of the kind ``inpainted``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    planes: int = Field(default=32, ge=8, multiple_of=8)
    """Planes at half of the picture's size; twice and four times as many at a quarter and an eighth."""
    steps: int = Field(default=15, ge=1, le=250)
    """Denoising steps for a face."""
    strength: tuple[Strength, Strength] = (0.2, 0.55)
    """Range of the share of noise that each face begins with: 0 is none, 1 only noise. More noise needs longer training
    before the result is a face."""
    images: int = Field(default=15_000, gt=0)
    """Number of pictures that it is trained on."""
    faces: int = Field(default=4_000, gt=0)
    """Largest number of faces, drawn at random, to train on and to paint."""

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if not 0.0 < self.strength[1] >= self.strength[0]:
            raise ValueError("strength needs the smaller value first, and a second one above 0")
        return self

    @property
    def kind(self) -> Literal["inpainted"]:
        """The kind of fakes that it paints."""
        return "inpainted"

    @property
    def method(self) -> str:
        """The part of the name of its caches that the settings decide."""
        return f"ddim{self.steps}"


class _Block(nn.Module):
    """Two convolutions with a scale and a shift of all planes between them, which depend on the time."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.GroupNorm(GROUPS, before), nn.SiLU(), nn.Conv2d(before, after, 3, padding=1))
        self.time = nn.Linear(TIME_PLANES, 2 * after)
        self.norm = nn.GroupNorm(GROUPS, after)
        self.second = nn.Sequential(nn.SiLU(), nn.Conv2d(after, after, 3, padding=1))
        self.skip = nn.Conv2d(before, after, 1) if before != after else nn.Identity()

    def forward(self, planes: Tensor, time: Tensor) -> Tensor:
        scale, shift = self.time(time)[..., None, None].chunk(2, dim=1)
        changed = self.norm(self.first(planes)) * (1.0 + scale) + shift
        return torch.as_tensor(self.skip(planes) + self.second(changed))


class Inpainter(nn.Module):
    """
    A U-Net over three sizes that predicts a noisy picture without its noise.

    Pictures are (B, 3, S, S) in -1..1, with S a multiple of 8; masks (B, 1, S, S), 1 where a picture is painted anew.
    """

    def __init__(self, settings: InpainterSettings) -> None:
        super().__init__()
        self.settings = settings
        one, two, four = (settings.planes * factor for factor in (1, 2, 4))
        self.time = nn.Sequential(nn.Linear(TIME_PLANES, TIME_PLANES), nn.SiLU(), nn.Linear(TIME_PLANES, TIME_PLANES))
        self.first = nn.Conv2d((3 + 3 + 1) * SHRINK**2, one, 3, padding=1)
        self.down = nn.ModuleList([_Block(one, one), _Block(one, two), _Block(two, four)])
        self.middle = nn.ModuleList([_Block(four, four), _Block(four, four)])
        self.up = nn.ModuleList([_Block(four + four, two), _Block(two + two, one), _Block(one + one, one)])
        self.last = nn.Sequential(nn.GroupNorm(GROUPS, one), nn.SiLU(), nn.Conv2d(one, 3 * SHRINK**2, 3, padding=1))

    def forward(self, noisy: Tensor, known: Tensor, mask: Tensor, time: Tensor) -> Tensor:
        """
        Predict the clear pictures, (B, 3, S, S).

        Args:
            noisy: Pictures with noise, where the mask is 1.
            known: The same without noise, and 0 where the mask is 1.
            time: (B,) in 0..1; 1 is only noise.
        """
        with autocast(noisy.device):
            given = functional.pixel_unshuffle(torch.cat([noisy * mask, known, mask], dim=1), SHRINK)
            seen = self.time(_encode_time(time))
            planes = self.first(given)
            kept = []
            for number, block in enumerate(self.down):
                planes = block(functional.avg_pool2d(planes, 2) if number else planes, seen)
                kept.append(planes)
            for block in self.middle:
                planes = block(planes, seen)
            for number, block in enumerate(self.up):
                planes = functional.interpolate(planes, scale_factor=2.0) if number else planes
                planes = block(torch.cat([planes, kept.pop()], dim=1), seen)
            clear = functional.pixel_shuffle(self.last(planes), SHRINK)
        return torch.as_tensor(clear.float())

    def loss(self, pictures: Tensor, masks: Tensor, time: Tensor, noise: Tensor) -> Tensor:
        """Return the mean squared error within the masks, at *time* (B,), with *noise* of the shape of *pictures*."""
        signal, spread = _schedule(time)
        noisy = signal * pictures + spread * noise
        clear = self(noisy, pictures * (1.0 - masks), masks, time)
        return torch.as_tensor(((clear - pictures).square() * masks).sum() / (3.0 * masks.sum()).clamp(min=1.0))

    @torch.inference_mode()
    def sample(self, pictures: Tensor, masks: Tensor, noise: Tensor, strength: float) -> Tensor:
        """
        Paint *pictures* anew where *masks* are 1; elsewhere they stay.

        Args:
            noise: Normal noise of the shape of *pictures*.
            strength: Share of noise to begin with, in 0..1.
        """
        known = pictures * (1.0 - masks)
        times = torch.linspace(strength, 0.0, self.settings.steps + 1)
        signal, spread = _schedule(times[:1])
        now = signal * pictures + spread * noise
        clear = pictures
        for before, after in pairwise(times):
            signal, spread = _schedule(before[None])
            clear = self(now, known, masks, before.expand(len(pictures))).clamp(-1.0, 1.0)
            # The noise that the estimated picture implies.
            left = (now - signal * clear) / spread
            signal, spread = _schedule(after[None])
            now = signal * clear + spread * left
        return known + clear * masks

    def paint(self, part: Picture, landmarks: Landmarks, rng: Generator) -> Picture:
        """Paint a face anew within a soft mask, at the size that it has; see ``painting.Painter``."""
        height, width = part.shape[:2]
        mask = face_mask((height, width), landmarks, rng, "subtle")
        mask = mask / max(float(mask.max()), 1e-6)
        small = resize(part, PATCH_PX, PATCH_PX)
        inside = _binarise(_shrink_mask(mask))
        noise = torch.from_numpy(rng.standard_normal((1, 3, PATCH_PX, PATCH_PX), np.float32))
        strength = float(rng.uniform(*self.settings.strength))
        drawn = self.sample(to_tensor(small[None]) * 2.0 - 1.0, torch.from_numpy(inside)[None, None], noise, strength)
        painted = resize(to_picture(drawn[0] * 0.5 + 0.5), width, height)
        return alpha_blend(painted, part, np.asarray(mask, np.float32))


def train_inpainter(
    settings: InpainterSettings, faces: Sequence[Face], *, seed: int, title: str = ""
) -> tuple[Inpainter, list[float]]:
    """
    Train on whole *faces*, (H, W, 3) uint8 RGB of any size, behind random face masks.

    Returns:
        The network in eval mode, and the loss of each step.
    """
    torch.manual_seed(seed)
    network = Inpainter(settings).to(memory_format=torch.channels_last)
    pictures = [resize(face.picture, PATCH_PX, PATCH_PX) for face in faces]

    def batch_loss(rng: Generator) -> Tensor:
        chosen = rng.integers(len(faces), size=BATCH)
        masks = [
            _binarise(_shrink_mask(face_mask(face.picture.shape[:2], face.landmarks, rng, "subtle")))
            for face in (faces[number] for number in chosen)
        ]
        batch = to_tensor(np.stack([pictures[number] for number in chosen])) * 2.0 - 1.0
        inside = torch.from_numpy(np.stack(masks))[:, None]
        if rng.random() < 0.5:
            batch, inside = batch.flip(3), inside.flip(3)
        noise = torch.from_numpy(rng.standard_normal(tuple(batch.shape), np.float32))
        # Painting never begins with more noise than the largest strength, so more is not trained on.
        time = torch.from_numpy(rng.random(BATCH, np.float32)) * settings.strength[1]
        return network.loss(batch, inside, time, noise)

    losses = fit(network, batch_loss, images=settings.images, seed=seed, rate=2e-3, title=title)
    return network, losses


def _shrink_mask(mask: NDArray[np.float32]) -> NDArray[np.float32]:
    levels = np.asarray(np.clip(mask * 255.0, 0, 255), np.uint8)
    return np.asarray(resize(levels, PATCH_PX, PATCH_PX), np.float32) / 255.0


def _binarise(mask: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(mask > MASK_LEVEL * max(float(mask.max()), 1e-6), np.float32)


def _schedule(time: Tensor) -> tuple[Tensor, Tensor]:
    """Return the shares of the picture and of the noise at (B,) times: (B, 1, 1, 1) each."""
    angle = (time.clamp(0.0, 1.0) * 0.5 * math.pi * 0.995 + 0.005)[:, None, None, None]
    return torch.cos(angle), torch.sin(angle)


def _encode_time(time: Tensor) -> Tensor:
    """Encode (B,) times as (B, ``TIME_PLANES``) sines and cosines of growing frequency."""
    frequencies = torch.exp(torch.linspace(0.0, math.log(200.0), TIME_PLANES // 2))
    angles = time[:, None] * frequencies * math.pi
    return torch.cat([angles.sin(), angles.cos()], dim=1)
