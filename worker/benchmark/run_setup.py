"""What all contenders of one run are given."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

YUNET: Final = "YuNet"
CEILING: Final = "ceiling"
"""Contenders that not every run has, or that scan nothing."""


@dataclass(frozen=True, slots=True)
class Setup:
    """Checkpoint, device and threads of one run of the benchmark."""

    models_dir: Path
    """Folder of checkpoints."""
    model: str
    """Name of the checkpoint that all contenders use."""
    device: str = "cpu"
    """Device of the networks, of detection and of resampling: ``cpu``, ``cuda`` or ``cuda:N``."""
    threads: int | None = None
    """Number of PyTorch's threads in each process; if not given, one for each core that it may use."""
    yunet: Path | None = None
    """File of OpenCV's detector YuNet, in ONNX; its contender cannot run without it."""
