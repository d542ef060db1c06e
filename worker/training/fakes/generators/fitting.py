"""The loop that trains a painting network, and how pictures become tensors and back."""

from collections.abc import Callable
from typing import Final

import cv2
import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

Picture = NDArray[np.uint8]

BATCH: Final = 16
PATCH_PX: Final = 128
"""Side of the pictures that networks are trained on."""


def fit(
    network: nn.Module, loss_of: Callable[[Generator], Tensor], *, images: int, seed: int, rate: float, title: str = ""
) -> list[float]:
    """
    Train *network* with AdamW and a one-cycle schedule, and leave it in eval mode.

    Args:
        loss_of: Draws a batch of ``BATCH`` pictures with the generator that it is given, and returns its loss.
        images: Pictures that are drawn in all.
        seed: Of the draws. Weights are drawn before, where the network is made.
        rate: Highest learning rate.
        title: Of the progress bar.

    Returns:
        The loss of each step.
    """
    rng = np.random.default_rng(seed)
    steps = max(1, images // BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=1e-4)
    # A warm-up of no step at all, as a tenth of a few would be, is not defined.
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=max(steps, 20), pct_start=0.1)
    losses: list[float] = []
    network.train()
    with tqdm(total=steps * BATCH, unit="img", desc=title) as bar:
        for _ in range(steps):
            loss = loss_of(rng)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # PyTorch leaves it untyped.
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
            bar.update(BATCH)
            bar.set_postfix(loss=f"{losses[-1]:.4f}", refresh=False)
    network.eval()
    return losses


def to_tensor(pictures: NDArray[np.uint8]) -> Tensor:
    """(B, H, W, 3) uint8 to (B, 3, H, W) in 0..1, channels last in memory."""
    planes = torch.tensor(pictures).permute(0, 3, 1, 2).to(torch.float32) / 255.0
    return planes.contiguous(memory_format=torch.channels_last)


def to_picture(planes: Tensor) -> Picture:
    """(3, H, W) in about 0..1 to (H, W, 3) uint8."""
    return np.asarray(np.clip(planes.permute(1, 2, 0).numpy() * 255.0 + 0.5, 0, 255), np.uint8)


def resized(picture: Picture, width: int, height: int) -> Picture:
    """*picture* at another size: averaged where it becomes smaller, cubic where it becomes larger."""
    if picture.shape[:2] == (height, width):
        return picture
    how = cv2.INTER_AREA if width < picture.shape[1] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, (width, height), interpolation=how), np.uint8)


def patch(picture: Picture, rng: Generator) -> Picture:
    """A square of ``PATCH_PX``, mirrored half the time, of a picture that is at least as large."""
    y, x = (int(rng.integers(side - PATCH_PX + 1)) for side in picture.shape[:2])
    cut = picture[y : y + PATCH_PX, x : x + PATCH_PX]
    return cut[:, ::-1] if rng.random() < 0.5 else cut
