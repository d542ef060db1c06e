"""
The state that a run resumes from: tensors in files of limited size, and an index of the files that belong together.

A state is written beside the previous one, under other names, and becomes valid when its index replaces the old one;
then the old files are removed. A kill at any moment leaves one complete state. Every file carries the token of its
state, so that an inconsistent copy of a run's folder is recognised. No file is larger than ``MAX_FILE_BYTES``, unless
a single tensor is, so that states fit through limits on the size of files.
"""

import json
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from worker.training.errors import TrainingError
from worker.training.fitting.recipes import Recipe

INDEX_FILE: Final = "state.json"
OLDER_FILE: Final = "state.ckpt"
"""File of a whole state in older versions."""
MAX_FILE_BYTES: Final = 15_000_000
_SLOTS: Final = ("a", "b")


def read_index(folder: Path) -> dict[str, Any] | None:
    """
    Read the index of the state in *folder*, without its tensors; None if there is no state.

    Raises:
        TrainingError: It is damaged, or of an older layout.
    """
    path = folder / INDEX_FILE
    if not path.exists():
        if (folder / OLDER_FILE).exists():
            raise TrainingError(
                f"{folder / OLDER_FILE} was written by an older version; finish it there, or choose another folder"
            )
        return None
    try:
        index: dict[str, Any] = json.loads(path.read_bytes())
    except ValueError as error:
        raise TrainingError(f"{path} is damaged: {error}") from error
    return index


def check_recipe(folder: Path, recipe: Recipe) -> dict[str, Any] | None:
    """
    Read the index of the run in *folder*; None if there is no state.

    Raises:
        TrainingError: It belongs to another recipe, or to an older version.
    """
    about = read_index(folder)
    if about is not None and about["recipe"] != recipe.digest():
        raise TrainingError(f"{folder / INDEX_FILE} belongs to another recipe; choose another folder, or delete it")
    return about


def write_state(folder: Path, about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """
    Replace the state in *folder*.

    Args:
        about: Entries of the index, JSON values.
        tensors: Tensors by name, on any device.
    """
    folder.mkdir(parents=True, exist_ok=True)
    old = read_index(folder) or {"slot": _SLOTS[1]}
    slot = _SLOTS[old["slot"] == _SLOTS[0]]
    _remove(folder, slot)  # Files that a killed process left there.
    token = secrets.token_hex(8)
    files = []
    for number, part in enumerate(_parts(tensors)):
        files.append(f"state-{slot}-{number:02d}.safetensors")
        save_file(part, folder / files[-1], {"state": token})
    partial = folder / f"{INDEX_FILE}.partial"
    partial.write_text(json.dumps({**about, "slot": slot, "token": token, "files": files}, indent=1))
    partial.rename(folder / INDEX_FILE)
    _remove(folder, old["slot"])


def read_tensors(folder: Path, index: Mapping[str, Any]) -> dict[str, Tensor]:
    """
    Read the tensors of a state, on CPU.

    Raises:
        TrainingError: A file is missing, damaged or of another state.
    """
    tensors: dict[str, Tensor] = {}
    for name in index["files"]:
        try:
            with safe_open(folder / name, "pt") as file:
                if (file.metadata() or {}).get("state") != index["token"]:
                    raise TrainingError(f"{folder / name} belongs to another state than {INDEX_FILE}")
                tensors |= {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
        except (OSError, SafetensorError) as error:
            raise TrainingError(f"{folder / name} cannot be read: {error}") from error
    return tensors


def _parts(tensors: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Divide *tensors*, in their order, into parts that fit into one file."""
    part: dict[str, Tensor] = {}
    size = 0
    for name, tensor in tensors.items():
        if part and size + tensor.nbytes > MAX_FILE_BYTES:
            yield part
            part, size = {}, 0
        part[name] = tensor.detach().cpu().contiguous()
        size += tensor.nbytes
    yield part


def _remove(folder: Path, slot: str) -> None:
    for path in folder.glob(f"state-{slot}-*.safetensors"):
        path.unlink()
