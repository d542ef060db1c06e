"""
The network as it is trained: beside its score it predicts where a face was changed.

Masks are a stronger training signal than one label for each picture, as Li et al., "Face X-ray for More General Face
Forgery Detection", CVPR 2020, found. The mask comes from a 1 × 1 convolution on the last map at a sixteenth of the
picture's size, which serving does not have.
"""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from worker.model.network import ForgeryNetwork

STRIDE = 16


class LocalisingNetwork(nn.Module):
    """
    A forgery network with a mask beside its logit.

    Args:
        network: Network that shares its parameters with this one.
    """

    def __init__(self, network: ForgeryNetwork) -> None:
        super().__init__()
        self.network = network
        block = _last_block(network)
        planes = block._project_conv.out_channels  # noqa: SLF001 - efficientnet-pytorch has no public names
        self.locate = nn.Sequential(nn.BatchNorm2d(planes), nn.SiLU(), nn.Conv2d(planes, 1, 1))
        self._seen: list[Tensor] = []
        block.register_forward_hook(self._keep)

    def forward(self, faces: Tensor) -> tuple[Tensor, Tensor]:
        """Score (N, 3, S, S) RGB in [0, 1]: (N,) logits, and (N, C, C) logits of the mask, C = S / 16."""
        self._seen.clear()
        logits = self.network(faces)
        return logits, self.locate(self._seen.pop()).squeeze(1)

    def _keep(self, _block: nn.Module, _given: Any, planes: Tensor) -> None:
        self._seen.append(planes)


def mask_loss(mask_logits: Tensor, masks: Tensor) -> Tensor:
    """
    Return the binary cross-entropy over cells, with equal weight for real pictures and fakes.

    Args:
        mask_logits: (2B, C, C), real before fake.
        masks: (B, C, C) of the fakes in [0, 1]; negative cells are unknown and ignored.
    """
    real, fake = mask_logits.chunk(2)
    known = (masks >= 0.0).to(fake.dtype)
    wrong = functional.binary_cross_entropy_with_logits(fake, masks.clamp(min=0.0), reduction="none")
    return 0.5 * (functional.softplus(real).mean() + (wrong * known).sum() / known.sum().clamp(min=1.0))


def _last_block(network: ForgeryNetwork) -> Any:
    """Return the last block of the backbone at a sixteenth of the picture's size."""
    stride, last = 2, None  # The stem halves it.
    for block in network.features.network._blocks:  # noqa: SLF001
        stride *= block._depthwise_conv.stride[0]  # noqa: SLF001
        if stride == STRIDE:
            last = block
    return last
