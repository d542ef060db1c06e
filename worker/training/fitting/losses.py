"""The loss of a batch of couples, and a loss on its way from the device to the host."""

import torch
from torch import Tensor
from torch.nn import functional

from worker.training.fitting.recipes import Optimisation


def couple_loss(logits: Tensor, aligned: Tensor, optimisation: Optimisation) -> Tensor:
    """
    The loss of a batch of couples.

    Args:
        logits: (2B,), real before fake.
        aligned: (B,), 1 where the two of a couple may be ranked.

    Returns:
        Mean binary cross-entropy, or focal loss (Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017),
        plus the weighted ranking loss (Burges et al., "Learning to Rank using Gradient Descent", ICML 2005) and the
        weighted mean square of what the two of an aligned couple have in common.
    """
    real, fake = logits.chunk(2)
    margins = torch.cat([-real, fake])  # How far each logit lies on its own side.
    losses = functional.softplus(-margins)
    if optimisation.loss == "focal":
        losses = losses * torch.sigmoid(-margins) ** optimisation.focal_gamma
    count = aligned.sum().clamp(min=1.0)
    ranking = (functional.softplus(real - fake) * aligned).sum() / count
    common = ((real + fake).square() / 4 * aligned).sum() / count
    return losses.mean() + optimisation.ranking * ranking + optimisation.centring * common


class PendingLoss:
    """
    The loss of a step, on its way to the host.

    Args:
        loss: On a device, which may not have got to it yet.
    """

    def __init__(self, step: int, loss: Tensor) -> None:
        self.step = step
        self._loss = loss.to("cpu", non_blocking=True)
        self._arrived: torch.cuda.Event | None = None
        if loss.is_cuda:
            # Whoever waits for this waits for this step alone, not for what was asked of the device since.
            self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call] # torch has no types there
            self._arrived.record()

    def read(self) -> float:
        """Wait until it has arrived."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return float(self._loss)
