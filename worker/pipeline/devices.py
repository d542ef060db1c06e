"""What a device is doing, for operators."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class DeviceState:
    """A GPU at one moment, with all that runs on it."""

    used_bytes: int
    total_bytes: int
    utilisation: float | None
    """Share of the last sampling period in which something ran, in [0, 1]; None without NVIDIA's management library."""


def device_state(device: torch.device) -> DeviceState | None:
    """The state of a GPU; None for the processor."""
    if device.type != "cuda":
        return None
    free, total = torch.cuda.mem_get_info(device)
    try:
        utilisation = torch.cuda.utilization(device) / 100
    except (ModuleNotFoundError, RuntimeError):
        utilisation = None
    return DeviceState(total - free, total, utilisation)
