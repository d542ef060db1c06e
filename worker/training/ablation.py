"""Ablations: short runs that differ from a recipe in one thing each, and a table of what that does."""

import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from worker.training.errors import DataError, TrainingError
from worker.training.recipes import Recipe


def variants(recipe: Path, changes: Path) -> dict[str, dict[str, Any]]:
    """
    The recipes that *changes* makes of *recipe*, by name.

    Raises:
        DataError: A file cannot be read, or a changed recipe does not validate.
    """
    try:
        given = yaml.safe_load(changes.read_bytes())
        plain = yaml.safe_load(recipe.read_bytes())
    except (OSError, yaml.YAMLError) as error:
        raise DataError(f"{changes} or {recipe} cannot be read: {error}") from error
    base = _merged(plain, given.get("base", {}))
    return {name: _merged(base, change) for name, change in given["changes"].items()}


def run_ablations(recipe: Path, changes: Path, data: Path, caches: Path, runs: Path, *, side_by_side: int = 1) -> None:
    """
    Train every variant that is not trained yet, each in a process and a folder of its own below *runs*.

    Raises:
        TrainingError: One of them failed; the others are trained all the same.
    """
    jobs = []
    for name, variant in variants(recipe, changes).items():
        folder = runs / slug(name)
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "recipe.yaml"
        file.write_text(yaml.safe_dump({**variant, "name": slug(name)}, sort_keys=False))
        Recipe.read(file)
        jobs.append((name, file, folder))
    with ThreadPoolExecutor(side_by_side) as pool:
        codes = list(pool.map(lambda job: _train(job[1], data, caches, job[2]), jobs))
    failed = [name for (name, _, _), code in zip(jobs, codes, strict=True) if code != 0]
    if failed:
        raise TrainingError(f"these did not end well, see log.txt in their folders: {', '.join(failed)}")


def slug(name: str) -> str:
    """*name* as a folder's and a checkpoint's name."""
    return name.replace(" ", "-").replace("+", "-")


def _train(recipe: Path, data: Path, caches: Path, folder: Path) -> int:
    with (folder / "log.txt").open("ab") as log:
        command = [sys.executable, "-m", "worker.training", "train", str(recipe), str(data)]
        command += ["--caches", str(caches), "--run", str(folder)]
        return subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False).returncode


def _merged(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """*base* with what *change* names replaced; objects are merged, lists are not."""
    merged = dict(base)
    for key, value in change.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged
