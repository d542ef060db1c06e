"""A finished checkpoint as the teacher of another network, and the loss of the distance between them."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from shared.errors import ModelError
from shared.manifests import Preprocessing
from worker.inference import ChannelsLastInput, make_engine
from worker.model.checkpoint import load_checkpoint
from worker.training.errors import DataError


class Teacher:
    """
    A checkpoint that scores clean faces, by the serving engine in float32.

    Args:
        folder: Folder of the checkpoint.
        preprocessing: How the faces are cut, which must be the same as for the checkpoint.

    Raises:
        DataError: The checkpoint cannot be read, or judges crops of another size or margin.
    """

    def __init__(self, folder: str, preprocessing: Preprocessing, device: torch.device) -> None:
        path = Path(folder)
        try:
            checkpoint = load_checkpoint(path.parent, path.name)
        except ModelError as error:
            raise DataError(f"the teacher {folder} cannot be read: {error}") from error
        given = checkpoint.manifest.preprocessing
        crops = [(part.crop_size_px, part.crop_margin) for part in (given, preprocessing)]
        if crops[0] != crops[1]:
            raise DataError(
                f"the teacher {folder} judges crops of {given.crop_size_px} px with a margin of {given.crop_margin:g},"
                f" but the recipe cuts them to {preprocessing.crop_size_px} px with {preprocessing.crop_margin:g}"
            )
        side_px = given.crop_size_px
        example = np.zeros((2, side_px, side_px, 3), np.uint8)
        network = checkpoint.network.eval().to(device)
        self._engine = make_engine(ChannelsLastInput(network, divisor=255.0), example, device, "float32")

    def score(self, pictures: Tensor) -> Tensor:
        """
        Return the logits (N,) of (N, 3, S, S) uint8 pictures, on their device.

        A GPU may still be computing them.
        """
        given = pictures.permute(0, 2, 3, 1).contiguous()
        if self._engine.run_on_device is None:
            (logits,) = self._engine.run(given)
            return torch.from_numpy(logits)
        (result,) = self._engine.run_on_device(given)
        return result.clone()  # A tensor made in inference mode takes no part in a loss.


def distillation_loss(logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """
    Return the mean Kullback-Leibler divergence of two outcomes, fake or real, from the teacher's.

    It is multiplied by the square of the temperature, so that the size of gradients does not depend on that.

    Args:
        logits: (N,) of the network.
        targets: (N,) of the teacher.
    """
    wanted = torch.sigmoid(targets / temperature)
    cross_entropy = functional.binary_cross_entropy_with_logits(logits / temperature, wanted)
    entropy = functional.binary_cross_entropy(wanted, wanted)
    return (cross_entropy - entropy) * temperature**2
