"""The network that training begins with."""

from pathlib import Path

from shared.errors import ModelError
from worker.model.checkpoint import load_checkpoint
from worker.model.network import ForgeryNetwork
from worker.training.errors import DataError
from worker.training.fitting.recipes import Recipe
from worker.training.pretrained import load_imagenet


def make_initial_network(recipe: Recipe) -> ForgeryNetwork:
    """
    Make the network that training begins with: random, from ImageNet, or from a checkpoint.

    Raises:
        DataError: The start is missing, or of another architecture.
    """
    network = ForgeryNetwork(recipe.architecture, recipe.preprocessing.crop_size_px)
    if recipe.start == "random":
        return network
    if recipe.start == "imagenet":
        load_imagenet(network)
        return network
    folder = Path(recipe.start)
    try:
        given = load_checkpoint(folder.parent, folder.name).network.state_dict()
    except ModelError as error:
        raise DataError(f"training cannot start from {folder}: {error}") from error
    try:
        network.load_state_dict(given)
    except RuntimeError as error:
        raise DataError(f"the checkpoint {folder} has another architecture") from error
    return network
