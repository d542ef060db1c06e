"""
Cross-validation over people: one run for each fold, evaluated on the people of that fold, which it never saw.

Results on a few held-out people vary with these people; the spread over folds measures by how much.
"""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from shared.manifests import Scale
from worker.model.checkpoint import load_checkpoint
from worker.training.data.cache import SETTINGS_FILE, CropCache
from worker.training.data.media import Set
from worker.training.data.precropped import CROP_CACHE
from worker.training.data.sources import Source, link_source, record_split
from worker.training.errors import DataError, TrainingError
from worker.training.fakes.generators.painting import cache_names
from worker.training.fitting.ablation import train_in_process
from worker.training.fitting.inputs import build_caches, paint_recipe_faces
from worker.training.fitting.recipes import Recipe
from worker.training.scoring.metrics import roc_auc
from worker.training.scoring.scored_media import ScoredMedium, compare_with_originals, score_caches


@dataclass(frozen=True, slots=True)
class Fold:
    """The results of one run on the people that it did not see."""

    groups: tuple[str, ...]
    media: tuple[ScoredMedium, ...]

    @property
    def auc(self) -> float | None:
        """ROC-AUC by medium; None if there is only one class."""
        labels = np.array([int(medium.is_fake) for medium in self.media])
        return roc_auc(labels, np.array([medium.fake_score(Scale(1.0)) for medium in self.media]))

    @property
    def scores_above_original(self) -> list[bool]:
        """Whether each fake with a known original scores above that original."""
        rows = compare_with_originals(self.media, [medium.fake_score(Scale(1.0)) for medium in self.media])
        return [is_above for _, is_above in rows]


def divide_into_folds(sizes: Mapping[str, int], count: int) -> list[tuple[str, ...]]:
    """
    Divide groups into *count* folds of about the same number of media, each group whole.

    Args:
        sizes: Media of each group.

    Raises:
        DataError: There are fewer groups than folds, or fewer than two folds.
    """
    if not 2 <= count <= len(sizes):
        raise DataError(f"{len(sizes)} groups cannot be divided into {count} folds")
    folds: list[list[str]] = [[] for _ in range(count)]
    loads = [0] * count
    for group in sorted(sizes, key=lambda name: (-sizes[name], name)):
        least = loads.index(min(loads))
        folds[least].append(group)
        loads[least] += sizes[group]
    return [tuple(sorted(fold)) for fold in folds]


def cross_validate(
    recipe: Recipe,
    data: Path,
    caches: Path,
    runs: Path,
    *,
    path: Path,
    folds: int,
    images: int,
    processes: int = 1,
    train: Callable[[Path, Path, Path, Path], int] = train_in_process,
) -> list[Fold]:
    """
    Train a run for each fold of the people in one data set, and evaluate it on that fold.

    Faces are not cut out again, and painting networks are not trained again: they saw the real faces of held-out
    people, but no face that they painted of these people is trained on. People who are in another data set as well
    are not held out there.

    Args:
        runs: Folder that receives a folder for each fold; complete runs in it are not trained again.
        path: Path of the data set, as in the recipe.
        images: Number of images that each run is trained on, with the mixture of the recipe's last stage.
        train: Trains a recipe file with the folders of data, of caches and of the run; returns 0 if that succeeded.

    Raises:
        DataError: The recipe has no such data set, it has too few people, or the recipe starts from a checkpoint
            or has one as its teacher.
        TrainingError: A run failed.
    """
    places = [place for place, source in enumerate(recipe.sources) if source.path == path]
    if not places:
        raise DataError(f"the recipe {recipe.name} has no data set {path}")
    if recipe.distillation is not None:
        raise DataError(
            f"the teacher {recipe.distillation.teacher} may have been trained on the held-out people; leave"
            " distillation out of the recipe of folds"
        )
    if recipe.start not in {"imagenet", "random"}:
        raise DataError(
            f"{recipe.start} may have been trained on the held-out people; start folds from imagenet or random"
        )
    folders = build_caches(recipe, data, caches, processes=processes)
    paintings = paint_recipe_faces(recipe, folders, caches)
    cache = folders[places[0]]
    sizes = Counter({face.key: face.group for face in CropCache(cache).read_faces() if face.set != "test"}.values())
    made = []
    for number, groups in enumerate(divide_into_folds(sizes, folds)):
        run = runs / f"fold-{number}"
        sets: dict[str, Set] = {group: "validation" if group in groups else "train" for group in sizes}
        chosen = _make_fold_recipe(recipe, places[0], sets, number, images)
        own = run / "crops"
        own.mkdir(parents=True, exist_ok=True)
        for place, folder in enumerate(folders):
            if place == places[0]:
                _copy_with_sets(chosen.sources[place], data, folder, own / folder.name)
            else:
                _link(folder, own / folder.name)
        fold_caches = [own / folder.name for folder in folders]
        for folder, name in zip(paintings, cache_names(recipe.painters, recipe.seed, fold_caches), strict=True):
            _link(folder, own / name)
        file = run / "recipe.yaml"
        file.write_text(yaml.safe_dump(chosen.model_dump(mode="json"), sort_keys=False))
        if train(file, data, own, run) != 0:
            raise TrainingError(f"fold {number} failed; see {run / 'log.txt'}")
        judged = score_caches(load_checkpoint(run, "last"), [own / cache.name], sets={"validation"})
        made.append(Fold(groups, tuple(judged)))
    return made


def format_table(folds: Sequence[Fold]) -> str:
    """Return the folds as a table in Markdown, with the mean and the standard deviation of their areas at the end."""
    lines = ["| fold | people | fakes | ROC-AUC by medium | above their original |", f"|{' --- |' * 5}"]
    for number, fold in enumerate(folds):
        fakes = sum(medium.is_fake for medium in fold.media)
        auc = "–" if fold.auc is None else f"{fold.auc:.3f}"
        above = fold.scores_above_original
        lines.append(f"| {number} | {len(fold.groups)} | {fakes} | {auc} | {sum(above)} of {len(above)} |")
    areas = [fold.auc for fold in folds if fold.auc is not None]
    above = [each for fold in folds for each in fold.scores_above_original]
    people = sum(len(fold.groups) for fold in folds)
    fakes = sum(medium.is_fake for fold in folds for medium in fold.media)
    spread = f"{np.mean(areas):.3f} ± {np.std(areas, ddof=1):.3f}" if len(areas) > 1 else "–"
    lines.append(f"| all | {people} | {fakes} | {spread} | {sum(above)} of {len(above)} |")
    return "\n".join(lines) + "\n"


def _make_fold_recipe(recipe: Recipe, place: int, sets: Mapping[str, Set], number: int, images: int) -> Recipe:
    content = recipe.model_dump(mode="json")
    content["name"] = f"{recipe.name}-fold-{number}"
    content["sources"][place] |= {"sets": dict(sets), "hold_out": {}}
    content["stages"] = [{"images": images, "mixture": content["stages"][-1]["mixture"]}]
    # Validation on the fold itself must not choose a state.
    content["validation"] |= {"every_images": images, "patience": 0}
    return Recipe.model_validate(content)


def _link(target: Path, link: Path) -> None:
    """Make *link* point to *target*, whatever it pointed to before."""
    if link.is_symlink():
        link.unlink()
    link.symlink_to(target.resolve(), target_is_directory=target.is_dir())


def _copy_with_sets(source: Source, data: Path, cache: Path, folder: Path) -> None:
    """Make *folder* a cache with the pictures of *cache* and the sets of *source*."""
    folder.mkdir(exist_ok=True)
    # Refuses a folder that was divided otherwise before anything in it is changed.
    record_split(source, data, folder)
    if source.kind == CROP_CACHE:
        link_source(source, data, folder)
        return
    shutil.copy(cache / SETTINGS_FILE, folder)
    for index in sorted(cache.glob("*.jsonl")):
        rows = [json.loads(line) for line in index.read_text().splitlines()]
        for row in rows:
            if "group" in row:
                row["set"] = source.sets.get(row["group"], row["set"])
        _link(index.with_suffix(".tar"), folder / f"{index.stem}.tar")
        (folder / index.name).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
