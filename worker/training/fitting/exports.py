"""Checkpoints of a run in training: loadable, but neither calibrated nor called trained."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from shared.manifests import Calibration, Manifest, Weights
from worker.model.checkpoint import WEIGHTS_FILE, save_checkpoint
from worker.model.network import ForgeryNetwork
from worker.training.fitting.recipes import Recipe


def export_checkpoint(folder: Path, recipe: Recipe, network: ForgeryNetwork, measured: Mapping[str, float]) -> Manifest:
    """
    Write *network* as a checkpoint with the preprocessing and sampling of *recipe*, in place of what is in *folder*.

    Args:
        measured: Metrics of the last validation, for the manifest.
    """
    manifest = Manifest(
        name=recipe.name,
        version=recipe.version,
        trained=False,
        architecture=recipe.architecture,
        preprocessing=recipe.preprocessing,
        sampling=recipe.sampling,
        calibration=Calibration(temperature=1.0, threshold=0.5, uncertainty_band=(0.5, 0.5)),
        weights=Weights(file=WEIGHTS_FILE, sha256="0" * 64),
        training_data=[source.path.as_posix() for source in recipe.sources],
        metrics={key: round(value, 4) for key, value in measured.items()},
    )
    # A run that is killed here must not leave new weights beside an old manifest.
    partial, old = (folder.with_name(f"{folder.name}.{ending}") for ending in ("partial", "old"))
    for leftover in (partial, old):
        shutil.rmtree(leftover, ignore_errors=True)
    written = save_checkpoint(partial, manifest, network, f"# {recipe.name}\n\nNot calibrated yet.\n")
    if folder.exists():
        folder.rename(old)
    partial.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
    return written
