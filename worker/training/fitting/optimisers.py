"""The optimiser, its learning rate over a run, and the momentum of batch norms."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from worker.training.fitting.recipes import Optimisation


def make_optimizer(network: nn.Module, optimisation: Optimisation, *, fused: bool) -> torch.optim.Optimizer:
    """Make AdamW: only weights decay, not batch norms and biases, and layers without ImageNet weights learn faster."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        # Whole parts of the name are compared: the backbone's "_conv_head" has ImageNet weights.
        is_new = not {"head", "locate", "_conv_stem"}.isdisjoint(name.split("."))
        rate = optimisation.head_learning_rate if is_new else optimisation.learning_rate
        decay = optimisation.weight_decay if parameter.dim() > 1 else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "lr": rate, "initial_lr": rate, "weight_decay": decay}
            for (rate, decay), parameters in groups.items()
        ],
        fused=fused,
    )


def restore_optimizer(optimizer: torch.optim.Optimizer, saved: Mapping[int, Mapping[str, Tensor]]) -> None:
    """Load the *saved* state of parameters, by their numbers, into *optimizer*; its options stay as they are."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state = {
        # Files hold tensors in contiguous order; the optimiser needs the memory layout of its parameters.
        number: {
            name: torch.empty_like(parameter).copy_(value) if value.dim() else value
            for name, value in saved[number].items()
        }
        for number, parameter in enumerate(parameters)
        if number in saved
    }
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def learning_rate_factor(seen: int, total: int, warm_up: int) -> float:
    """Return the factor: linear warm-up, then half a cosine to 0.01 (Loshchilov and Hutter, SGDR, ICLR 2017)."""
    if seen < warm_up:
        return (seen + 1) / warm_up
    share = min(1.0, (seen - warm_up) / max(1, total - warm_up))
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share))


def freeze_batch_norms(network: nn.Module) -> None:
    """Let every batch norm in *network* use its statistics instead of the batch's, and keep them, until ``train()``."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def set_batch_norm_momentum(network: nn.Module, momentum: float) -> None:
    """Set the momentum of every batch norm in *network*."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = momentum
