"""Arguments and options that several commands of ``python -m worker.training`` have."""

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
    Where crops are kept and how they are cut.

    Attributes:
        caches: The folder.
        processes: How many cut side by side.
    """

    caches: Path
    processes: int


@dataclass(frozen=True, slots=True)
class RecipeCrops(Crops):
    """
    A recipe and the crops of its data sets.

    Attributes:
        recipe: The recipe's file.
        data: The folder that the recipe's paths are below.
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


def joined(*decorators: Decorator) -> Decorator:
    """One decorator that adds what *decorators* add, in their order."""

    def decorate(command: Decorated) -> Decorated:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


_crops: Final = joined(
    click.option("--caches", type=PATH, default=Path("build/crops"), help="Where crops are kept."),
    click.option("--processes", type=int, default=2, help="Processes that cut crops side by side."),
)
checkpoint_argument: Final = click.argument("checkpoint", type=PATH, help="Folder with manifest.json.")
kind_option: Final = click.option(
    "--kind", type=click.Choice(sorted(READERS)), help="Layout of the data set; guessed if not given."
)
run_option: Final = click.option("--run", type=PATH, required=True, help="Folder of the run.")
runs_option: Final = click.option("--runs", type=PATH, required=True, help="Folder of the runs.")
table_option: Final = click.option("--table", type=PATH, help="Write the result, in Markdown, to this file.")
ship_options: Final = joined(
    run_option,
    click.option("--out", type=PATH, required=True, help="Folder of checkpoints to write to."),
    click.option(
        "--state", type=click.Choice(["last", "best"]), default="best", help="Which state of the run to take."
    ),
)


def crops_options(command: Decorated) -> Decorated:
    """Add ``--caches`` and ``--processes``, which reach *command* as its first argument, a ``Crops``."""

    @functools.wraps(command)
    def called(*, caches: Path, processes: int, **rest: Any) -> Any:
        return command(Crops(caches, processes), **rest)

    return _crops(called)


def recipe_arguments(command: Decorated) -> Decorated:
    """Add a recipe and its data, with the options of its crops; *command* gets a ``RecipeCrops`` first."""

    @functools.wraps(command)
    def called(*, recipe: Path, data: Path, caches: Path, processes: int, **rest: Any) -> Any:
        return command(RecipeCrops(caches, processes, recipe, data), **rest)

    return joined(
        click.argument("recipe", type=PATH, help="A file of configs/train/."),
        click.argument("data", type=PATH, help="Folder that the recipe's paths are below."),
        _crops,
    )(called)
