"""The loop that trains a painting network."""

from collections.abc import Callable
from typing import Final

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor, nn
from tqdm import tqdm

BATCH: Final = 16


def fit(
    network: nn.Module,
    batch_loss: Callable[[Generator], Tensor],
    *,
    images: int,
    seed: int,
    rate: float,
    title: str = "",
) -> list[float]:
    """
    Train *network* with AdamW and a one-cycle schedule, and leave it in eval mode.

    Args:
        batch_loss: Draws a batch of ``BATCH`` pictures with the generator that it is given, and returns its loss.
        images: Pictures that are drawn in all.
        seed: Seed of the draws. Weights are drawn before, where the network is made.
        rate: Highest learning rate.
        title: Title of the progress bar.

    Returns:
        The loss of each step.
    """
    rng = np.random.default_rng(seed)
    steps = max(1, images // BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=1e-4)
    # The schedule is undefined with a warm-up of no step, which a tenth of a few steps would be.
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=max(steps, 20), pct_start=0.1)
    losses: list[float] = []
    network.train()
    with tqdm(total=steps * BATCH, unit="img", desc=title) as bar:
        for _ in range(steps):
            loss = batch_loss(rng)
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
