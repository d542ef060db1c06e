"""Checkpoints: a manifest with weights as safetensors. Only this module of the package accesses files."""

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from shared.errors import ModelError
from shared.manifests import Manifest, Weights, read_manifest
from worker.model.network import ForgeryNetwork

WEIGHTS_FILE = "weights.safetensors"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A loaded network, and the manifest that defines its scores."""

    manifest: Manifest
    network: ForgeryNetwork
    """The network in eval mode, in float32, on the requested device."""


def load_checkpoint(models_dir: Path, name: str, device: str | torch.device = "cpu") -> Checkpoint:
    """
    Load the checkpoint *name* from its folder below *models_dir*.

    Raises:
        ModelError: The checkpoint does not exist, or its weights do not match its manifest.
    """
    folder = models_dir / name
    if folder.parent != models_dir:
        raise ModelError(f"invalid checkpoint name {name!r}; a name is that of a folder, without a path")
    manifest = read_manifest(folder)
    return _build(manifest, _weights(folder, manifest), device)


def load_pinned(models_dir: Path, pinned: Manifest, device: str | torch.device = "cpu") -> Checkpoint:
    """
    Load the checkpoint that a job has pinned, with exactly the weights of its digest.

    They are searched in the folder of its name, then in all others: an operator who replaces a checkpoint can keep the
    old one in another folder until the jobs that need it have ended.

    Raises:
        ModelError: No folder below *models_dir* has these weights.
    """
    folders = sorted(file.parent for file in models_dir.glob("*/manifest.json"))
    for folder in sorted(folders, key=lambda folder: folder.name != pinned.name):
        # A folder may be in the middle of a replacement; another one may still have the complete weights.
        with suppress(ModelError):
            found = read_manifest(folder)
            if found.weights.sha256 == pinned.weights.sha256:
                return _build(pinned, _weights(folder, found), device)
    raise ModelError(
        f"the weights of checkpoint {pinned.name!r} (SHA-256 {pinned.weights.sha256[:12]}…) with which this job was"
        " accepted are not installed on the worker that took it"
    )


def _build(manifest: Manifest, data: bytes, device: str | torch.device) -> Checkpoint:
    name = manifest.name
    network = ForgeryNetwork(manifest.architecture, manifest.preprocessing.crop_size_px)
    if hashlib.sha256(data).hexdigest() != manifest.weights.sha256:
        raise ModelError(f"the weights of checkpoint {name!r} do not have the SHA-256 in its manifest")
    try:
        state = {key: _widened(value) for key, value in load(data).items()}
        network.load_state_dict(state)
    except (SafetensorError, RuntimeError) as error:
        raise ModelError(f"the weights of checkpoint {name!r} do not fit its architecture") from error
    network.eval().requires_grad_(requires_grad=False)
    return Checkpoint(manifest, network.to(device).to(memory_format=torch.channels_last))


def save_checkpoint(folder: Path, manifest: Manifest, network: ForgeryNetwork, card: str) -> Manifest:
    """
    Write *network* in half precision, its manifest with the digest filled in, and its model card.

    Returns:
        The manifest that was written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    data = save({key: _narrowed(value) for key, value in network.state_dict().items()})
    weights = Weights(file=WEIGHTS_FILE, sha256=hashlib.sha256(data).hexdigest())
    written = manifest.model_copy(update={"weights": weights})
    (folder / WEIGHTS_FILE).write_bytes(data)
    (folder / "manifest.json").write_text(written.model_dump_json(indent=2) + "\n")
    (folder / "MODEL_CARD.md").write_text(card)
    return written


def _weights(folder: Path, manifest: Manifest) -> bytes:
    """Read the weights file; raise ModelError if it is missing or outside of *folder*."""
    file = manifest.weights.file
    if Path(file).name != file:
        raise ModelError(f"the manifest of checkpoint {folder.name!r} names weights outside its folder")
    try:
        return (folder / file).read_bytes()
    except OSError as error:
        raise ModelError(f"checkpoint {folder.name!r} has no weights file") from error


def _narrowed(value: Tensor) -> Tensor:
    value = value.detach().cpu().contiguous()
    return value.to(torch.float16) if value.is_floating_point() else value


def _widened(value: Tensor) -> Tensor:
    return value.to(torch.float32) if value.is_floating_point() else value
