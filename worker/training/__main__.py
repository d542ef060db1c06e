"""
``python -m worker.training``: crops, train, evaluate and what belongs to them.

Each command says where it writes, shows how far it is, and goes on where it was when it is started again.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from worker.training.arguments import PROGRAM, make_parser
from worker.training.errors import TrainingError

if TYPE_CHECKING:
    from worker.model.checkpoint import Checkpoint
    from worker.training.fitting.recipes import Recipe

INSTALLATION: Final = "pip install -c configs/constraints.txt -e '.[worker,train]'"
OURS: Final = ("worker", "shared")
"""Packages that are part of this one: one of their modules that is missing is a fault, and no missing installation."""


def main(arguments: list[str] | None = None) -> int:
    """
    Run the command line.

    Returns:
        The exit status: 2 where a command cannot go on, with one sentence on standard error that says why.
    """
    try:
        return _run(arguments)
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if not package or package in OURS:
            raise
        message = f"the package {package!r} is missing; install what training needs, from the checkout: {INSTALLATION}"
        print(f"{PROGRAM}: {message}", file=sys.stderr)  # noqa: T201
        return 2


def _run(arguments: list[str] | None) -> int:
    given = make_parser().parse_args(arguments)
    try:
        return int(globals()[f"_{given.command.replace('-', '_')}"](given))
    except TrainingError as error:
        print(f"{PROGRAM} {given.command}: {error}", file=sys.stderr)  # noqa: T201
        return 2


def _crops(given: argparse.Namespace) -> int:
    from worker.training.fitting.inputs import build_caches
    from worker.training.fitting.recipes import Recipe

    build_caches(Recipe.read(given.recipe), given.data, given.caches, processes=given.processes)
    return 0


def _train(given: argparse.Namespace) -> int:
    _trained(given)
    return 0


def _trained(given: argparse.Namespace) -> bool:
    """Train; says whether this process is the first of its run, which alone goes on afterwards."""
    from worker.training.fitting.train import Trainer

    minutes = getattr(given, "minutes", None)
    deadline_s = None if minutes is None else time.monotonic() + 60.0 * minutes
    recipe, caches, painted = _faces(given)
    trainer = Trainer(recipe, caches, given.run, painted=painted)
    trainer.run(deadline_s=deadline_s)
    if trainer.is_first and not trainer.is_finished:
        seen = trainer.progress.step * trainer.images_per_step
        print(f"paused after {seen} of {recipe.images} images; started again, it goes on")  # noqa: T201
    return trainer.is_first


def _profile(given: argparse.Namespace) -> int:
    from worker.training.fitting.profiling import profile

    recipe, caches, painted = _faces(given)
    print(*profile(recipe, caches, painted=painted, steps=given.steps), sep="\n")  # noqa: T201
    return 0


def _faces(given: argparse.Namespace) -> "tuple[Recipe, list[Path], list[Path]]":
    """A recipe, its crops, and what its networks paint."""
    from worker.training.fitting.inputs import build_caches, paint_for
    from worker.training.fitting.recipes import Recipe

    recipe = Recipe.read(given.recipe)
    caches = build_caches(recipe, given.data, given.caches, processes=given.processes)
    return recipe, caches, paint_for(recipe, caches, given.caches)


def _ship(given: argparse.Namespace) -> int:
    from worker.training.fitting.recipes import Recipe
    from worker.training.judging.shipping import ship
    from worker.training.judging.sources import recipe_sources

    recipe = Recipe.read(given.recipe)
    sources = recipe_sources(recipe, given.data, given.caches, processes=given.processes)
    weights = getattr(given, "weights", None)
    manifest = ship(recipe, sources, given.run, given.out, state=given.state, weights=weights)
    print(f"{given.out / manifest.name}: {manifest.calibration}", *sorted(manifest.metrics.items()), sep="\n")  # noqa: T201
    return 0


def _reproduce(given: argparse.Namespace) -> int:
    return _ship(given) if _trained(given) else 0


def _ablate(given: argparse.Namespace) -> int:
    from worker.training.fitting.ablation import comparison, run_ablations
    from worker.training.fitting.inputs import build_caches
    from worker.training.fitting.recipes import Recipe

    caches = build_caches(Recipe.read(given.recipe), given.data, given.caches, processes=given.processes)
    run_ablations(given.recipe, given.changes, given.data, given.caches, given.runs, side_by_side=given.side_by_side)
    table = comparison(given.recipe, given.changes, caches, given.runs)
    if given.table is not None:
        given.table.write_text(table)
    print(table)  # noqa: T201
    return 0


def _cross_validate(given: argparse.Namespace) -> int:
    from worker.training.fitting.recipes import Recipe
    from worker.training.judging.crossvalidation import cross_validate, table

    folds = cross_validate(
        Recipe.read(given.recipe),
        given.data,
        given.caches,
        given.runs,
        path=given.source,
        folds=given.folds,
        images=given.images,
        processes=given.processes,
    )
    written = table(folds)
    if given.table is not None:
        given.table.write_text(written)
    print(written)  # noqa: T201
    return 0


def _sheet(given: argparse.Namespace) -> int:
    from worker.training.judging.sheet import draw_sheet, write_sheet

    recipe, caches, painted = _faces(given)
    write_sheet(draw_sheet(recipe, caches, painted=painted, count=given.count, seed=given.seed), given.out)
    return 0


def _reencode(given: argparse.Namespace) -> int:
    from worker.training.data.reencode import reencode

    made = reencode(given.data, given.out, crf=given.crf, scale=given.scale)
    print(f"{given.out}: {_counted(made.videos, 'video')}")  # noqa: T201
    left_out = [_counted(made.pictures, "picture")] if made.pictures else []
    left_out += [_counted(made.others, "file") + " of another kind"] if made.others else []
    if left_out:
        print(f"left out: {' and '.join(left_out)}; only videos are encoded again")  # noqa: T201
    return 0


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _evaluate(given: argparse.Namespace) -> int:
    from worker.training.fitting.recipes import Recipe
    from worker.training.judging.evaluate import SETS, evaluate
    from worker.training.judging.report import HTML_FILE, summary_lines, write_report
    from worker.training.judging.sources import folder_source, recipe_sources

    checkpoint = _loaded(given.checkpoint, given.device)
    manifest = checkpoint.manifest
    if given.recipe is not None:
        recipe = Recipe.read(given.recipe)
        sources = recipe_sources(recipe, given.data, given.caches, processes=given.processes)
    else:
        source = folder_source(given.data, manifest, given.caches, kind=given.kind, processes=given.processes)
        sources = [source]
    chosen = given.set
    if chosen is None:
        # A recipe's other media are those that were trained on. Celeb-DF has an official list of videos for testing.
        has_test = any(source.split["media"].get("test") for source in sources)
        chosen = "validation" if given.recipe is not None else "test" if has_test else "all"
    evaluation = evaluate(
        checkpoint,
        sources,
        sets=SETS if chosen == "all" else [chosen],
        device=given.device,
        robustness=not given.no_robustness,
        limit=given.limit,
        options={"recipe": given.recipe.name if given.recipe is not None else None, "device": given.device},
    )
    out = given.out or Path("build/evaluation", manifest.name)
    write_report(evaluation, out)
    print(*summary_lines(evaluation.report), f"report: {out / HTML_FILE}", sep="\n")  # noqa: T201
    return 0


def _long_videos(given: argparse.Namespace) -> int:
    from worker.training.fitting.inputs import build_caches
    from worker.training.fitting.recipes import Recipe
    from worker.training.judging.evaluate import SETS
    from worker.training.judging.longvideos import judge_long_videos, table
    from worker.training.measuring.scored import score_caches

    checkpoint = _loaded(given.checkpoint)
    recipe = Recipe.read(given.recipe)
    caches = build_caches(recipe, given.data, given.caches, processes=given.processes)
    by_name = {source.path.name: cache for source, cache in zip(recipe.sources, caches, strict=True)}
    if unknown := {*given.real, given.swapped} - set(by_name):
        raise TrainingError(f"the recipe has no data set {', '.join(sorted(unknown))}; it has {', '.join(by_name)}")
    real = [
        medium
        for medium in score_caches(checkpoint, [by_name[name] for name in given.real], sets=SETS)
        if not medium.is_fake and medium.is_video
    ]
    swapped = [
        medium for medium in score_caches(checkpoint, [by_name[given.swapped]], sets=[given.set]) if medium.is_fake
    ]
    shares = judge_long_videos(real, swapped, checkpoint.manifest, rounds=given.rounds)
    print(f"{len(real)} real clips, {len(swapped)} swapped ones")  # noqa: T201
    print(table(shares), end="")  # noqa: T201
    return 0


def _loaded(folder: Path, device: str = "cpu") -> "Checkpoint":
    from shared.errors import ModelError
    from worker.model.checkpoint import load_checkpoint

    folder = folder.resolve()
    try:
        return load_checkpoint(folder.parent, folder.name, device)
    except ModelError as error:
        raise TrainingError(str(error)) from error


def _judge_made(given: argparse.Namespace) -> int:
    from worker.training.judging.made import judge_made, table

    checkpoints = [_loaded(folder) for folder in given.checkpoints]
    recipe, caches, painted = _faces(given)
    written = table(judge_made(recipe, caches, checkpoints, painted=painted, count=given.count, whole=given.whole))
    if given.table is not None:
        given.table.write_text(written)
    print(written, end="")  # noqa: T201
    return 0


def _probe_outside(given: argparse.Namespace) -> int:
    import json

    from worker.training.data.sources import build_plain_cache
    from worker.training.fitting.inputs import build_caches, paint_for
    from worker.training.fitting.recipes import Recipe
    from worker.training.judging.outside import probe_caches, probe_recipe
    from worker.training.judging.probes import table

    if given.recipe is None:
        is_cache = any(given.data.glob("*.jsonl"))
        folder = (
            given.data
            if is_cache
            else build_plain_cache(given.data, given.caches, kind=given.kind, processes=given.processes)
        )
        found = probe_caches([folder], limit=given.limit)
    else:
        recipe = Recipe.read(given.recipe)
        caches = build_caches(recipe, given.data, given.caches, processes=given.processes)
        painted = paint_for(recipe, caches, given.caches)
        found = probe_recipe(recipe, caches, painted=painted, limit=given.limit, made=given.made)
    if given.out is not None:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps([one.as_json() for one in found], indent=2, allow_nan=False) + "\n")
    print(table(found), end="")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
