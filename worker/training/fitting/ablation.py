"""Ablations: short runs that differ from a recipe in one setting each, and a table of their results."""

import csv
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydantic import ValidationError

from shared.manifests import Scale
from worker.model.checkpoint import load_checkpoint
from worker.training.errors import DataError, TrainingError
from worker.training.fitting.inputs import build_caches, paint_recipe_faces
from worker.training.fitting.progress import CURVES_FILE
from worker.training.fitting.recipes import Recipe
from worker.training.scoring.metrics import bootstrap, roc_auc
from worker.training.scoring.scored_media import ScoredMedium, score_caches


def read_variants(recipe: Path, changes: Path) -> dict[str, dict[str, Any]]:
    """
    Read *recipe* and *changes*, and return the changed recipes by name.

    Raises:
        DataError: A file cannot be read, a changed recipe does not validate, or two would share a folder; the message
            lists every mistake.
    """
    try:
        given = yaml.safe_load(changes.read_bytes())
        plain = yaml.safe_load(recipe.read_bytes())
    except (OSError, yaml.YAMLError) as error:
        raise DataError(f"{changes} or {recipe} cannot be read: {error}") from error
    if not isinstance(plain, dict) or not isinstance(given, dict) or not isinstance(given.get("changes"), dict):
        raise DataError(f"{recipe} has to be an object, and {changes} one with the object 'changes'")
    base = _merged(plain, given.get("base") or {})
    made = {str(name): _merged(base, change or {}) for name, change in given["changes"].items()}
    made = {name: {**variant, "name": slug(name)} for name, variant in made.items()}
    mistakes = []
    for name, variant in made.items():
        try:
            Recipe.model_validate(variant)
        except ValidationError as error:
            mistakes.append(f"{name}: {error}")
    for folder, count in Counter(slug(name) for name in made).items():
        if count > 1:
            mistakes.append(f"{count} variants would be trained in the folder {folder}")
    if mistakes:
        raise DataError(f"{changes}: " + "\n".join(mistakes))
    return made


def run_ablations(recipe: Path, changes: Path, data: Path, caches: Path, runs: Path, *, side_by_side: int = 1) -> None:
    """
    Train every variant that is not trained yet, each in a process and a folder of its own below *runs*.

    Raises:
        TrainingError: One of them failed; the others are trained nevertheless.
    """
    jobs = []
    made = read_variants(recipe, changes)
    for variant in made.values():
        # Painted once here, since parallel runs would each paint.
        parsed = Recipe.model_validate(variant)
        if parsed.painters:
            paint_recipe_faces(parsed, build_caches(parsed, data, caches), caches)
    for name, variant in made.items():
        folder = runs / slug(name)
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "recipe.yaml"
        file.write_text(yaml.safe_dump(variant, sort_keys=False))
        jobs.append((name, file, folder))
    with ThreadPoolExecutor(side_by_side) as pool:
        codes = list(pool.map(lambda job: train_in_process(job[1], data, caches, job[2]), jobs))
    failed = [name for (name, _, _), code in zip(jobs, codes, strict=True) if code != 0]
    if failed:
        raise TrainingError(f"these runs failed, see log.txt in their folders: {', '.join(failed)}")


def compare_variants(recipe: Path, changes: Path, caches: Sequence[Path], runs: Path) -> str:
    """
    Return a table, in Markdown, of the results of the trained variants on the validation set, by medium.

    Beside all videos, each data set of videos that holds both classes has a column. Intervals are 95 % bootstrap
    intervals over groups.

    Raises:
        DataError: A file cannot be read.
    """
    rows: list[list[str]] = []
    sets: list[str] = []
    for name in read_variants(recipe, changes):
        folder = runs / slug(name)
        if not (folder / "last" / "manifest.json").exists():
            continue
        media = score_caches(load_checkpoint(folder, "last"), caches, sets={"validation"})
        with (folder / CURVES_FILE).open(newline="") as file:
            row = list(csv.DictReader(file))[-1]
        videos = [medium for medium in media if medium.is_video]
        sets = sorted(_faked(videos))
        cells = [name, row["images"], f"{float(row['seconds']) / 60:.1f}", f"{float(row['made_auc']):.3f}"]
        cells += [_auc([medium for medium in videos if medium.dataset == one]) for one in sets]
        stills = [medium for medium in media if not medium.is_video and medium.dataset in _faked(media)]
        above = f"{float(row['above']):.2f}" if row.get("above") else "–"
        rows.append([*cells, _auc(videos), _auc(stills), above])
    columns = ["made fakes", *sets, "video", "stills"]
    heads = ["variant", "images", "minutes", *(f"{column}, AUC" for column in columns), "above original"]
    lines = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
    return "\n".join([*lines, *(f"| {' | '.join(cells)} |" for cells in rows)]) + "\n"


def _faked(media: Sequence[ScoredMedium]) -> set[str]:
    return {medium.dataset for medium in media if medium.is_fake}


def _auc(media: Sequence[ScoredMedium]) -> str:
    labels = np.array([int(medium.is_fake) for medium in media])
    scores = np.array([medium.fake_score(Scale(1.0)) for medium in media])
    value = roc_auc(labels, scores) if len(media) else None
    if value is None:
        return "–"
    interval = bootstrap(roc_auc, labels, scores, [f"{medium.dataset}/{medium.group}" for medium in media])
    return f"{value:.3f}" + (f" [{interval[0]:.2f}, {interval[1]:.2f}]" if interval else "")


def slug(name: str) -> str:
    """Return *name* as the name of a folder and a checkpoint."""
    return name.replace(" ", "-").replace("+", "-")


def train_in_process(recipe: Path, data: Path, caches: Path, folder: Path) -> int:
    """Train in a process of its own, whose output goes to ``log.txt`` in *folder*; return its exit code."""
    with (folder / "log.txt").open("ab") as log:
        command = [sys.executable, "-m", "worker.training", "train", str(recipe), str(data)]
        command += ["--caches", str(caches), "--run", str(folder)]
        return subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False).returncode


def _merged(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Return *base* with the values of *change*; objects are merged, lists are replaced."""
    merged = dict(base)
    for key, value in change.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged
