"""The inputs of training: the crop caches of a recipe, the faces its networks paint, and the pairs made of both."""

from collections.abc import Sequence
from pathlib import Path

from worker.training.data.sources import build_source_caches
from worker.training.fakes.generators.painting import paint_faces
from worker.training.fakes.kinds import Stage
from worker.training.fakes.pair_stream import RealFakePairStream
from worker.training.fitting.recipes import Recipe


def build_caches(recipe: Recipe, data: Path, caches: Path, *, processes: int = 1) -> list[Path]:
    """
    Build the crop cache of every source of *recipe* below *caches*, or finish building it.

    Returns:
        Their folders, in the recipe's order: see ``data.sources.build_source_caches``.

    Raises:
        DataError: A source cannot be read or has mistakes, or a cache was built with other settings or another
            division.
    """
    return build_source_caches(recipe.sources, data, caches, recipe.cache, processes=processes)


def paint_recipe_faces(recipe: Recipe, caches: Sequence[Path], folder: Path) -> list[Path]:
    """Paint the faces in *caches* with the networks that the mixtures need; return the new crop caches."""
    return paint_faces(caches, folder, recipe.painters, seed=recipe.seed)


def make_pair_stream(
    recipe: Recipe,
    caches: Sequence[Path],
    *,
    stages: Sequence[Stage] | None = None,
    painted: Sequence[Path] = (),
    first: int = 0,
    rank: int = 0,
    ranks: int = 1,
    shuffle_labels: bool = False,
) -> RealFakePairStream:
    """Make the stream that *recipe* trains on; *stages* replace the recipe's. See ``RealFakePairStream``."""
    if stages is None:
        stages = [Stage(stage.images // 2, stage.mixture, stage.augmentation) for stage in recipe.stages]
    return RealFakePairStream(
        caches,
        stages,
        recipe.augmentation,
        size_px=recipe.preprocessing.crop_size_px,
        margin=recipe.preprocessing.crop_margin,
        batch=recipe.optimisation.batch // 2,
        seed=recipe.seed,
        first=first,
        rank=rank,
        ranks=ranks,
        shuffle_labels=shuffle_labels,
        real_from=recipe.real_from,
        painted=painted,
        data_set_power=recipe.draws.data_set,
        person_power=recipe.draws.person,
        augment_on_device=recipe.augment_on == "device",
        with_clean=recipe.distillation is not None,
    )
