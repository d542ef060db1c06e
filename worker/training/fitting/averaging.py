"""The exponential moving average of a network's weights, updated without waiting for the device."""

import copy

import torch
from torch import Tensor, nn


class WeightAverage:
    """
    A network whose weights follow another's: quickly at first, then with a fixed decay.

    The count of updates, on which the decay depends, is on the host. ``torch.optim.swa_utils.AveragedModel`` keeps it
    on the device and reads it back for every tensor, hundreds of times a step, and the device is idle each time.

    Args:
        network: Network that is copied, including its buffers.
        decay: Share of the old average that is kept by each update, after a warm-up.
    """

    def __init__(self, network: nn.Module, decay: float, device: torch.device) -> None:
        self.module = copy.deepcopy(network).to(device).requires_grad_(requires_grad=False)
        self.count = 0
        self._decay = decay
        self._floats, self._counters = _tensors(self.module)

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Add *network*, of the same architecture: floating-point tensors are averaged, counters copied."""
        floats, counters = _tensors(network)
        keep = min(self._decay, (1 + self.count) / (10 + self.count)) if self.count else 0.0
        # As torch.optim.swa_utils does: a handful of kernels instead of one for each tensor.
        torch._foreach_lerp_(self._floats, floats, 1.0 - keep)
        torch._foreach_copy_(self._counters, counters)
        self.count += 1


def _tensors(network: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Return the parameters and buffers of floating point, and the counters."""
    tensors = [tensor.detach() for tensor in (*network.parameters(), *network.buffers())]
    floats = [tensor for tensor in tensors if tensor.is_floating_point()]
    return floats, [tensor for tensor in tensors if not tensor.is_floating_point()]
