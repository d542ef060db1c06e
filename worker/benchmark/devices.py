"""The device of a run: whether it exists, what it is, and how much of its memory a contender uses."""

import platform
import re
import subprocess
from contextlib import suppress
from typing import Any, Final

import torch

from worker.benchmark.errors import BenchmarkError
from worker.config import DEVICE
from worker.cores import available_cores

DRIVER_QUERY: Final = ("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
QUERY_TIMEOUT_S: Final = 20.0
MB: Final = 1024 * 1024


def find_device(name: str) -> torch.device:
    """
    Return the device *name*.

    Raises:
        BenchmarkError: It is no name of a device, or this machine has no such device.
    """
    if not DEVICE.fullmatch(name):
        raise BenchmarkError(f"unknown device {name!r}: use cpu, cuda or cuda:N")
    device = torch.device(name)
    if device.type == "cpu":
        return torch.device("cpu")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (device.index or 0) >= count:
        found = f"PyTorch finds {count} on it" if count else f"PyTorch {torch.__version__} finds no CUDA device on it"
        raise BenchmarkError(f"this machine has no device {name!r}: {found}; --device cpu always exists")
    return device


def describe_device(device: torch.device) -> dict[str, Any]:
    """Return what the report says about *device*; of a GPU also its memory, driver and CUDA's version."""
    if device.type == "cpu":
        return {"device": "cpu", "name": platform.processor() or platform.machine(), "cores": available_cores()}
    card = torch.cuda.get_device_properties(device)
    return {
        "device": str(device),
        "name": card.name,
        "memory_mb": card.total_memory // MB,
        "driver": read_driver_version(),
        "cuda": torch.version.cuda,
    }


def reset_peak_memory(device: torch.device) -> None:
    """Forget the peak of this process's memory on *device*; nothing for the CPU."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def read_peak_memory_mb(device: torch.device) -> float | None:
    """
    Return the most memory on *device* that PyTorch has held in this process since the last reset; None for the CPU.

    CUDA's own memory, some hundred MB for each process, is not included.
    """
    return torch.cuda.max_memory_reserved(device) / MB if device.type == "cuda" else None


def read_driver_version() -> str | None:
    """Return the version of NVIDIA's driver; None if its tool is not there."""
    with suppress(OSError, subprocess.SubprocessError):
        found = subprocess.run(DRIVER_QUERY, capture_output=True, text=True, check=True, timeout=QUERY_TIMEOUT_S)
        if version := re.search(r"[0-9.]+", found.stdout):
            return version[0]
    return None
