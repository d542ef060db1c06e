"""
``python -m worker.training``: crops, train, evaluate and what belongs to them.

Each command says where it writes, shows how far it is, and goes on where it was when it is started again.
"""

import argparse
import sys
from pathlib import Path

from worker.training.errors import TrainingError


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m worker.training", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    crops = commands.add_parser("crops", help="cut the faces of a recipe's data sets out, once")
    _add_recipe(crops)

    train = commands.add_parser("train", help="train a checkpoint; goes on where it was")
    _add_recipe(train)
    train.add_argument("--run", type=Path, required=True, help="folder of the run")

    ablate = commands.add_parser("ablate", help="train short variants of a recipe that differ in one thing each")
    _add_recipe(ablate)
    ablate.add_argument("--changes", type=Path, default=Path("configs/train/ablations.yaml"))
    ablate.add_argument("--runs", type=Path, required=True, help="folder of the runs")
    ablate.add_argument("--side-by-side", type=int, default=1, help="runs at a time")

    given = parser.parse_args(arguments)
    try:
        return int(globals()[f"_{given.command}"](given))
    except TrainingError as error:
        print(f"{parser.prog} {given.command}: {error}", file=sys.stderr)  # noqa: T201
        return 2


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", type=Path, help="a file of configs/train/")
    parser.add_argument("data", type=Path, help="folder that the recipe's paths are below")
    parser.add_argument("--caches", type=Path, default=Path("build/crops"), help="where crops are kept")
    parser.add_argument("--processes", type=int, default=2, help="that cut crops side by side")


def _crops(given: argparse.Namespace) -> int:
    from worker.training.recipes import Recipe
    from worker.training.sources import build_caches

    build_caches(Recipe.read(given.recipe), given.data, given.caches, processes=given.processes)
    return 0


def _train(given: argparse.Namespace) -> int:
    from worker.training.recipes import Recipe
    from worker.training.sources import build_caches
    from worker.training.train import Trainer

    recipe = Recipe.read(given.recipe)
    caches = build_caches(recipe, given.data, given.caches, processes=given.processes)
    Trainer(recipe, caches, given.run).run()
    return 0


def _ablate(given: argparse.Namespace) -> int:
    from worker.training.ablation import run_ablations
    from worker.training.recipes import Recipe
    from worker.training.sources import build_caches

    build_caches(Recipe.read(given.recipe), given.data, given.caches, processes=given.processes)
    run_ablations(
        given.recipe, given.changes, given.data, given.caches, given.runs, side_by_side=given.side_by_side
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
