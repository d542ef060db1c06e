"""Arguments and options that several commands of ``python -m worker.training`` share."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from worker.training.data.datasets import READERS

PATH: Final = click.Path(path_type=Path)
Decorated = Callable[..., Any]
Decorator = Callable[[Decorated], Decorated]


@dataclass(frozen=True, slots=True)
class Crops:
    """
    The crop caches of a command.

    Attributes:
        caches: Folder of the crop caches.
        processes: Number of processes that cut crops in parallel.
    """

    caches: Path
    processes: int


@dataclass(frozen=True, slots=True)
class RecipeCrops(Crops):
    """
    A recipe and the crops of its data sets.

    Attributes:
        recipe: File of the recipe.
        data: Folder that the recipe's paths are relative to.
    """

    recipe: Path
    data: Path


class SeveralValues(click.Command):
    """A command whose options that can be repeated also take several values at once: ``--real videos clips``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat the option before each of its values."""
        repeatable = {
            name
            for parameter in self.params
            if isinstance(parameter, click.Option) and parameter.multiple
            for name in parameter.opts
        }
        written: list[str] = []
        option: str | None = None
        for arg in args:
            if option is not None and not arg.startswith("-") and written[-1] != option:
                written.append(option)
            elif arg.startswith("-"):
                option = arg if arg in repeatable else None
            written.append(arg)
        return super().parse_args(ctx, written)


def combine(*decorators: Decorator) -> Decorator:
    """Combine *decorators* into one that applies them in order."""

    def decorate(command: Decorated) -> Decorated:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


_crops: Final = combine(
    click.option("--caches", type=PATH, default=Path("build/crops"), help="Folder of the crop caches."),
    click.option("--processes", type=int, default=2, help="Processes that cut crops in parallel."),
)
checkpoint_argument: Final = click.argument(
    "checkpoint", type=PATH, help="Folder of the checkpoint, with manifest.json."
)
kind_option: Final = click.option(
    "--kind", type=click.Choice(sorted(READERS)), help="Layout of the data set; detected by default."
)
run_option: Final = click.option("--run", type=PATH, required=True, help="Folder of the run.")
runs_option: Final = click.option("--runs", type=PATH, required=True, help="Folder of the runs.")
table_option: Final = click.option("--table", type=PATH, help="Also write the table to this file, in Markdown.")
ship_options: Final = combine(
    run_option,
    click.option("--out", type=PATH, required=True, help="Folder of checkpoints, which receives this one."),
    click.option("--state", type=click.Choice(["last", "best"]), default="best", help="State of the run to ship."),
)


def crops_options(command: Decorated) -> Decorated:
    """Add ``--caches`` and ``--processes``, and pass them to *command* as its first argument, a ``Crops``."""

    @functools.wraps(command)
    def with_arguments(*, caches: Path, processes: int, **rest: Any) -> Any:
        return command(Crops(caches, processes), **rest)

    return _crops(with_arguments)


def recipe_arguments(command: Decorated) -> Decorated:
    """Add the arguments for a recipe, its data and its crops; pass them to *command* first, as ``RecipeCrops``."""

    @functools.wraps(command)
    def with_arguments(*, recipe: Path, data: Path, caches: Path, processes: int, **rest: Any) -> Any:
        return command(RecipeCrops(caches, processes, recipe, data), **rest)

    return combine(
        click.argument("recipe", type=PATH, help="Recipe, such as a file of configs/train/."),
        click.argument("data", type=PATH, help="Folder that the recipe's paths are relative to."),
        _crops,
    )(with_arguments)
