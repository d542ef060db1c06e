"""The loss of a batch of pairs, and its transfer from the device to the host."""

import torch
from torch import Tensor
from torch.nn import functional

from worker.training.fitting.recipes import Optimisation


def pair_loss(logits: Tensor, aligned: Tensor, optimisation: Optimisation) -> Tensor:
    """
    Return the loss of a batch of pairs.

    Args:
        logits: (2B,), real before fake.
        aligned: (B,), 1 where the two of a pair may be ranked.

    Returns:
        Mean binary cross-entropy, or focal loss (Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017),
        plus the weighted ranking loss (Burges et al., "Learning to Rank using Gradient Descent", ICML 2005) and the
        weighted mean square of the common offset of the logits of aligned pairs.
    """
    real, fake = logits.chunk(2)
    margins = torch.cat([-real, fake])  # The distance of each logit from 0, positive on the right side.
    losses = functional.softplus(-margins)
    if optimisation.loss == "focal":
        losses = losses * torch.sigmoid(-margins) ** optimisation.focal_gamma
    count = aligned.sum().clamp(min=1.0)
    ranking = (functional.softplus(real - fake) * aligned).sum() / count
    common = ((real + fake).square() / 4 * aligned).sum() / count
    return losses.mean() + optimisation.ranking * ranking + optimisation.centring * common


class PendingLoss:
    """
    The loss of a step, in transfer to the host.

    Args:
        loss: Loss on a device, which may not have computed it yet.
    """

    def __init__(self, step: int, loss: Tensor) -> None:
        self.step = step
        self._loss = loss.to("cpu", non_blocking=True)
        self._arrived: torch.cuda.Event | None = None
        if loss.is_cuda:
            # Waiting for this event waits for this step alone, not for work queued since.
            self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call] # torch has no types there
            self._arrived.record()

    def read(self) -> float:
        """Wait for the transfer, and return the loss."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return float(self._loss)
