"""
Non-maximum suppression by torchvision's compiled operator.

Importing torchvision takes as long as importing PyTorch, since it also imports PyTorch's compiler, and nothing else of
it is used. Its library of operators is therefore loaded without it.
"""

from collections.abc import Callable
from functools import lru_cache
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, FileFinder
from importlib.util import find_spec
from typing import Final

import torch
from torch import Tensor

LIBRARIES: Final = ("_C_stable", "_C")
"""Names of torchvision's library of operators, the present one first."""
MAX_SHIFTED: Final = 1000
"""More boxes are compared group by group, since the time grows with the square of their number."""

Suppress = Callable[[Tensor, Tensor, float], Tensor]
"""Takes (N, 4) boxes, (N,) scores and a threshold; returns the rows to keep, best first."""


def suppress_overlaps(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float) -> Tensor:
    """
    Find the boxes that overlap no better box of the same group by more than *threshold*.

    Gives exactly the rows of ``torchvision.ops.batched_nms``.

    Args:
        boxes: (N, 4) float32 left, top, right and bottom, on the CPU; N may be 0.
        scores: (N,) float32.
        groups: (N,) int64.
        threshold: Largest intersection over union of two boxes that are both kept.

    Returns:
        Rows to keep, int64, by decreasing score.
    """
    if len(boxes) == 0:
        return torch.empty(0, dtype=torch.int64)
    suppress = find_operator()
    if len(boxes) <= MAX_SHIFTED:
        # Groups are moved apart, so that boxes of different ones cannot overlap.
        return suppress(boxes + (groups.to(boxes) * (boxes.max() + 1.0))[:, None], scores, threshold)
    is_kept = torch.zeros_like(scores, dtype=torch.bool)
    for group in torch.unique(groups):
        [rows] = torch.where(groups == group)
        is_kept[rows[suppress(boxes[rows], scores[rows], threshold)]] = True
    [kept] = torch.where(is_kept)
    return kept[scores[kept].sort(descending=True)[1]]


@lru_cache(maxsize=1)
def find_operator() -> Suppress:
    """Return the operator, from the library alone if this version of torchvision has one of a known name."""
    for library in LIBRARIES:
        if load_library(library):
            operator: Suppress = torch.ops.torchvision.nms
            return operator
    from torchvision.ops import nms

    whole: Suppress = nms
    return whole


def load_library(name: str) -> bool:
    """Load the library *name* of torchvision; return whether it exists and fits this PyTorch."""
    package = find_spec("torchvision")
    loader = (ExtensionFileLoader, EXTENSION_SUFFIXES)
    for folder in (package.submodule_search_locations or ()) if package is not None else ():
        found = FileFinder(folder, loader).find_spec(name)
        if found is not None and found.origin is not None:
            try:
                torch.ops.load_library(found.origin)  # type: ignore[no-untyped-call]
            except OSError:
                return False
            return hasattr(torch.ops.torchvision, "nms")
    return False
