"""
``python -m worker.training``: crops, train, evaluate and what belongs to them.

Each command says where it writes, shows how far it is, and goes on where it was when it is started again.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from worker.training.datasets import READERS
from worker.training.errors import TrainingError

if TYPE_CHECKING:
    from worker.model.checkpoint import Checkpoint
    from worker.training.recipes import Recipe


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m worker.training", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    _add_recipe(commands.add_parser("crops", help="cut the faces of a recipe's data sets out, once"))

    _add_train(commands.add_parser("train", help="train a checkpoint; goes on where it was"))

    _add_profile(commands.add_parser("profile", help="measure a few steps, and how fast loaders make couples"))

    ablate = commands.add_parser("ablate", help="train short variants of a recipe that differ in one thing each")
    _add_recipe(ablate)
    ablate.add_argument("--changes", type=Path, default=Path("configs/train/ablations.yaml"))
    ablate.add_argument("--runs", type=Path, required=True, help="folder of the runs")
    ablate.add_argument("--side-by-side", type=int, default=1, help="runs at a time")

    ablate.add_argument("--table", type=Path, help="write the comparison, in Markdown, to this file")

    cross = commands.add_parser("cross-validate", help="train a run for each fold of a data set's people, and judge it")
    _add_recipe(cross)
    cross.add_argument("--runs", type=Path, required=True, help="folder of the runs")
    cross.add_argument("--source", type=Path, default=Path("pairs"), help="data set whose people are divided")
    cross.add_argument("--folds", type=int, default=4)
    cross.add_argument("--images", type=int, default=40_000, help="that each run is trained on")
    cross.add_argument("--table", type=Path, help="write the result, in Markdown, to this file")

    ship = commands.add_parser("ship", help="calibrate, evaluate and describe a trained run: a checkpoint to serve")
    _add_recipe(ship)
    _add_ship(ship)
    ship.add_argument("--weights", type=Path, help="ship this checkpoint's folder, which was trained elsewhere")

    reproduce = commands.add_parser("reproduce", help="all of it: crops, train, ship")
    _add_recipe(reproduce)
    _add_ship(reproduce)

    sheet = commands.add_parser("sheet", help="draw couples of every kind, as training sees them, on one picture")
    _add_recipe(sheet)
    sheet.add_argument("--out", type=Path, required=True, help="picture to write, such as build/sheet.png")
    sheet.add_argument("--count", type=int, default=3, help="couples of each kind")
    sheet.add_argument("--seed", type=int, default=0, help="another one draws other couples")

    evaluate = commands.add_parser("evaluate", help="measure a checkpoint on a data set, or on a recipe's")
    evaluate.add_argument("checkpoint", type=Path, help="folder with manifest.json")
    evaluate.add_argument("data", type=Path, help="data set, or with --recipe the folder that its paths are below")
    evaluate.add_argument("--recipe", type=Path, help="take data sets, sets and crops from this file")
    evaluate.add_argument("--kind", choices=sorted(READERS), help="layout of the data set; guessed if not given")
    evaluate.add_argument(
        "--set",
        choices=["train", "validation", "test", "all"],
        help="validation with --recipe; else test, if there is one, or all",
    )
    evaluate.add_argument("--out", type=Path, help="folder of the report; build/evaluation/NAME if not given")
    evaluate.add_argument("--caches", type=Path, default=Path("build/crops"), help="where crops are kept")
    evaluate.add_argument("--processes", type=int, default=2, help="that cut crops side by side")
    evaluate.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, …")
    evaluate.add_argument("--no-robustness", action="store_true", help="leave out disturbed faces")
    evaluate.add_argument(
        "--limit", type=int, default=60, help="disturb faces of so many media of a data set and label"
    )

    _add_reencode(
        commands.add_parser("reencode", help="encode a data set's videos again, as a platform would hand them on")
    )
    _add_probe(commands.add_parser("probe-outside", help="whether anything outside faces tells fakes from real media"))

    _add_judge(
        commands.add_parser("judge-made", help="how well checkpoints tell each kind of fakes that a recipe makes")
    )

    given = parser.parse_args(arguments)
    try:
        return int(globals()[f"_{given.command.replace('-', '_')}"](given))
    except TrainingError as error:
        print(f"{parser.prog} {given.command}: {error}", file=sys.stderr)  # noqa: T201
        return 2


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", type=Path, help="a file of configs/train/")
    parser.add_argument("data", type=Path, help="folder that the recipe's paths are below")
    parser.add_argument("--caches", type=Path, default=Path("build/crops"), help="where crops are kept")
    parser.add_argument("--processes", type=int, default=2, help="that cut crops side by side")


def _add_train(parser: argparse.ArgumentParser) -> None:
    _add_recipe(parser)
    parser.add_argument("--run", type=Path, required=True, help="folder of the run")
    parser.add_argument("--minutes", type=float, help="pause when so many have passed; started again, it goes on")


def _add_profile(parser: argparse.ArgumentParser) -> None:
    _add_recipe(parser)
    parser.add_argument("--steps", type=int, default=4, help="that are timed")


def _add_ship(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", type=Path, required=True, help="folder of the run")
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoints to write to")
    parser.add_argument("--state", choices=["last", "best"], default="best", help="which state of the run to take")


def _add_reencode(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", type=Path, help="data set, or a folder of several")
    parser.add_argument("--out", type=Path, required=True, help="folder for the copy, in the same layout")
    parser.add_argument("--crf", type=int, required=True, help="constant rate factor of x264, such as 28 or 35")
    parser.add_argument("--scale", type=float, default=1.0, help="of each side, such as 0.5")


def _add_probe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", type=Path, help="data set, crop cache, or with --recipe the folder of its data sets")
    parser.add_argument("--recipe", type=Path, help="probe this file's data sets, and the fakes that it makes")
    parser.add_argument("--kind", choices=sorted(READERS), help="layout of the data set; guessed if not given")
    parser.add_argument("--caches", type=Path, default=Path("build/crops"), help="where crops are kept")
    parser.add_argument("--processes", type=int, default=2, help="that cut crops side by side")
    parser.add_argument("--limit", type=int, default=1500, help="couples of a data set, or media of each class")
    parser.add_argument("--made", type=int, default=400, help="couples of each kind of made fakes; 0 for none")
    parser.add_argument("--out", type=Path, help="write the figures, as JSON, to this file")


def _add_judge(parser: argparse.ArgumentParser) -> None:
    _add_recipe(parser)
    parser.add_argument("checkpoints", type=Path, nargs="+", help="folders with manifest.json")
    parser.add_argument("--count", type=int, default=300, help="couples of each kind")
    parser.add_argument(
        "--whole", type=float, default=0.5, help="share of decoded and restored faces pasted as whole squares"
    )
    parser.add_argument("--table", type=Path, help="write the result, in Markdown, to this file")


def _crops(given: argparse.Namespace) -> int:
    from worker.training.recipes import Recipe
    from worker.training.sources import build_caches

    build_caches(Recipe.read(given.recipe), given.data, given.caches, processes=given.processes)
    return 0


def _train(given: argparse.Namespace) -> int:
    _trained(given)
    return 0


def _trained(given: argparse.Namespace) -> bool:
    """Train; says whether this process is the first of its run, which alone goes on afterwards."""
    from worker.training.train import Trainer

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
    from worker.training.profiling import profile

    recipe, caches, painted = _faces(given)
    print(*profile(recipe, caches, painted=painted, steps=given.steps), sep="\n")  # noqa: T201
    return 0


def _faces(given: argparse.Namespace) -> "tuple[Recipe, list[Path], list[Path]]":
    """A recipe, its crops, and what its networks paint."""
    from worker.training.recipes import Recipe
    from worker.training.sources import build_caches, paint_for

    recipe = Recipe.read(given.recipe)
    caches = build_caches(recipe, given.data, given.caches, processes=given.processes)
    return recipe, caches, paint_for(recipe, caches, given.caches)


def _ship(given: argparse.Namespace) -> int:
    from worker.training.evaluate import recipe_sources
    from worker.training.recipes import Recipe
    from worker.training.shipping import ship

    recipe = Recipe.read(given.recipe)
    sources = recipe_sources(recipe, given.data, given.caches, processes=given.processes)
    weights = getattr(given, "weights", None)
    manifest = ship(recipe, sources, given.run, given.out, state=given.state, weights=weights)
    print(f"{given.out / manifest.name}: {manifest.calibration}", *sorted(manifest.metrics.items()), sep="\n")  # noqa: T201
    return 0


def _reproduce(given: argparse.Namespace) -> int:
    return _ship(given) if _trained(given) else 0


def _ablate(given: argparse.Namespace) -> int:
    from worker.training.ablation import comparison, run_ablations
    from worker.training.recipes import Recipe
    from worker.training.sources import build_caches

    caches = build_caches(Recipe.read(given.recipe), given.data, given.caches, processes=given.processes)
    run_ablations(given.recipe, given.changes, given.data, given.caches, given.runs, side_by_side=given.side_by_side)
    table = comparison(given.recipe, given.changes, caches, given.runs)
    if given.table is not None:
        given.table.write_text(table)
    print(table)  # noqa: T201
    return 0


def _cross_validate(given: argparse.Namespace) -> int:
    from worker.training.crossvalidation import cross_validate, table
    from worker.training.recipes import Recipe

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
    from worker.training.sheet import draw_sheet, write_sheet

    recipe, caches, painted = _faces(given)
    write_sheet(draw_sheet(recipe, caches, painted=painted, count=given.count, seed=given.seed), given.out)
    return 0


def _reencode(given: argparse.Namespace) -> int:
    from worker.training.reencode import reencode

    count = reencode(given.data, given.out, crf=given.crf, scale=given.scale)
    print(f"{given.out}: {count} videos")  # noqa: T201
    return 0


def _evaluate(given: argparse.Namespace) -> int:
    from worker.training.evaluate import SETS, evaluate, folder_source, recipe_sources
    from worker.training.recipes import Recipe
    from worker.training.report import HTML_FILE, summary_lines, write_report

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


def _loaded(folder: Path, device: str = "cpu") -> "Checkpoint":
    from shared.errors import ModelError
    from worker.model.checkpoint import load_checkpoint

    folder = folder.resolve()
    try:
        return load_checkpoint(folder.parent, folder.name, device)
    except ModelError as error:
        raise TrainingError(str(error)) from error


def _judge_made(given: argparse.Namespace) -> int:
    from worker.training.made import judge_made, table

    checkpoints = [_loaded(folder) for folder in given.checkpoints]
    recipe, caches, painted = _faces(given)
    written = table(judge_made(recipe, caches, checkpoints, painted=painted, count=given.count, whole=given.whole))
    if given.table is not None:
        given.table.write_text(written)
    print(written, end="")  # noqa: T201
    return 0


def _probe_outside(given: argparse.Namespace) -> int:
    import json

    from worker.training.outside import probe_caches, probe_recipe, table
    from worker.training.recipes import Recipe
    from worker.training.sources import build_caches, build_plain_cache, paint_for

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
