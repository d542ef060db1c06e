"""Memory and utilisation of GPUs, for metrics."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class DeviceState:
    """State of a GPU, including other processes."""

    used_bytes: int
    total_bytes: int
    utilisation: float | None
    """Share of the last sampling period in which a kernel ran, in [0, 1]; None without NVIDIA's management library."""


def read_device_state(device: torch.device) -> DeviceState | None:
    """Read the state of a GPU; return None for the CPU."""
    if device.type != "cuda":
        return None
    free, total = torch.cuda.mem_get_info(device)
    try:
        utilisation = torch.cuda.utilization(device) / 100
    except (ModuleNotFoundError, RuntimeError):
        utilisation = None
    return DeviceState(total - free, total, utilisation)
