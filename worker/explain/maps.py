"""
Heat maps of face crops: which parts raise the fake score.

The map is HiResCAM (Draelos and Carin, "Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional
neural networks", 2020): the gradient of the logit by a feature map, times that map, summed over its planes. It is taken
at an eighth of the crop's size, where it did best in a deletion test (docs/explanations.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shared.errors import ModelError
from shared.manifests import SCORE_DIGITS, Manifest
from worker.explain.hiding import hide, hottest_area
from worker.model.checkpoint import Checkpoint, load_checkpoint, load_pinned
from worker.model.network import ForgeryNetwork

ENDPOINT: Final = "reduction_3"
"""The last map at an eighth of the crop's size, as efficientnet-pytorch calls it."""
HIDDEN_SHARE: Final = 0.1
"""Share of the crop that is hidden to see what the score is without its hottest part."""

Crop = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class HeatMap:
    """Which parts of one crop raise its fake score."""

    values: NDArray[np.float32]
    """(S, S) in [0, 1], relative to the hottest place of this crop: 1 there, unless nothing raises the score. Maps of
    two crops cannot be compared."""
    fake_score: float
    """Score of the crop by the network in float32, which may differ from the stored one by what the engine rounds."""
    fake_score_hidden: float
    """Score where the hottest tenth of the crop is blurred. If it is not lower, the map explains nothing."""


class Explainer:
    """
    The network of one checkpoint, loaded so that it has gradients, which the engines of ``worker.inference`` lack.

    Args:
        checkpoint: With its network on *device* already.
    """

    def __init__(self, checkpoint: Checkpoint, device: str | torch.device) -> None:
        self.manifest: Manifest = checkpoint.manifest
        self._network = checkpoint.network
        self._device = torch.device(device)

    @classmethod
    def load(cls, models_dir: Path, name: str, device: str = "cpu") -> Self:
        """
        Load the checkpoint *name* onto *device*.

        Raises:
            ModelError: It cannot be loaded.
        """
        return cls(load_checkpoint(models_dir, name, device), device)

    @classmethod
    def load_pinned(cls, models_dir: Path, manifest: Manifest, device: str = "cpu") -> Self:
        """
        Load the checkpoint that a job has pinned onto *device*; see ``worker.model.checkpoint.load_pinned``.

        Raises:
            ModelError: It cannot be loaded.
        """
        return cls(load_pinned(models_dir, manifest, device), device)

    def explain_faces(self, crops: Sequence[Crop]) -> list[HeatMap]:
        """
        Explain the score of each crop.

        Crops are worked on one by one, so that a map does not depend on the others and memory not on their number.

        Args:
            crops: (S, S, 3) uint8 RGB each, with S as the manifest says, as ``faces.cut_face`` cuts them.

        Returns:
            Their maps, in order; the same for the same crop.

        Raises:
            ModelError: The network gave something that is not a number.
        """
        return [self._explain(crop) for crop in crops]

    def _explain(self, crop: Crop) -> HeatMap:
        logit, features, gradient = features_and_gradient(self._network, self._input(crop))
        contributions = spread_out((features * gradient).sum(axis=0), crop.shape[0])
        if not (np.isfinite(logit) and np.isfinite(contributions).all()):
            raise ModelError("the network gave a score or a gradient that is not a number")
        hidden = hide(crop, hottest_area(contributions, HIDDEN_SHARE))
        with torch.inference_mode():
            hidden_logit = float(self._network(self._input(hidden)))
        return HeatMap(as_map(contributions), self._probability(logit), self._probability(hidden_logit))

    def _input(self, crop: Crop) -> Tensor:
        return as_input(crop).to(self._device)

    def _probability(self, logit: float) -> float:
        return round(self.manifest.calibration.scale.probability(logit), SCORE_DIGITS)


def as_input(crop: Crop) -> Tensor:
    """Return *crop*, (S, S, 3) uint8 RGB, as the network takes it: (1, 3, S, S) float32 in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(crop))[None].permute(0, 3, 1, 2).to(torch.float32) / 255.0


def features_and_gradient(
    network: ForgeryNetwork, face: Tensor, endpoint: str = ENDPOINT
) -> tuple[float, NDArray[np.float32], NDArray[np.float32]]:
    """
    Return a feature map of a face, and how the logit changes with it.

    Args:
        network: In eval mode.
        face: (1, 3, S, S) float RGB in [0, 1].
        endpoint: Feature map, as efficientnet-pytorch's ``extract_endpoints`` names it.

    Returns:
        The logit, the feature map, (C, h, w), and the gradient of the logit by it, (C, h, w).
    """
    with torch.enable_grad():
        maps = network.features.network.extract_endpoints(network.make_input_planes(face).requires_grad_())
        # The last endpoint is what ``ForgeryNetwork.forward`` gives its head.
        logit = network.head(maps["reduction_6"])
        (gradient,) = torch.autograd.grad(logit.sum(), maps[endpoint])
    features, slope = (tensor.detach().float().numpy(force=True)[0] for tensor in (maps[endpoint], gradient))
    return float(logit.detach()), features, slope


def spread_out(contributions: NDArray[np.float32], side_px: int) -> NDArray[np.float32]:
    """
    Enlarge what places of a feature map add to the logit to the size of the crop.

    Args:
        contributions: (h, w); negative ones lower the score.
        side_px: Side of the result.

    Returns:
        (side_px, side_px) float32.
    """
    return np.asarray(cv2.resize(contributions, (side_px, side_px), interpolation=cv2.INTER_CUBIC), np.float32)


def as_map(contributions: NDArray[np.float32]) -> NDArray[np.float32]:
    """
    Keep what raises the score, relative to the highest place.

    Args:
        contributions: (H, W); negative ones lower the score.

    Returns:
        (H, W) in [0, 1]: 0 where nothing raises the score, and 1 at the highest place if anything does.
    """
    raising = np.maximum(contributions, 0.0)
    highest = float(raising.max())
    return np.asarray(raising / highest if highest > 0.0 else raising, np.float32)
