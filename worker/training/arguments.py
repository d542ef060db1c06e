"""The arguments of ``python -m worker.training``."""

import argparse
from pathlib import Path
from typing import Any, Final

PROGRAM: Final = "python -m worker.training"
ABOUT: Final = """
Crops, training, evaluation and what belongs to them. Each command says where it writes, shows how far it is, and goes
on where it was when it is started again. "COMMAND --help" tells its options and their defaults.
"""


class _Help(argparse.HelpFormatter):
    """Shows the default of every option that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text = action.help or ""
        if action.default is None or action.default is False or action.default is argparse.SUPPRESS:
            return text
        return f"{text} (default: %(default)s)"


class _Command(argparse.ArgumentParser):
    """A command's own parser."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=_Help, **options)


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands; what it returns names the chosen one in ``command``."""
    parser = argparse.ArgumentParser(prog=PROGRAM, description=ABOUT)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Command)

    crops = commands.add_parser("crops", help="cut the faces of a recipe's data sets out, once")
    _add_recipe(crops)

    train = commands.add_parser("train", help="train a checkpoint; goes on where it was")
    _add_recipe(train)
    _add_run(train)
    train.add_argument("--minutes", type=float, help="pause when so many have passed; started again, it goes on")

    profile = commands.add_parser("profile", help="measure a few steps, and how fast loaders make couples")
    _add_recipe(profile)
    profile.add_argument("--steps", type=int, default=4, help="steps that are timed")

    ablate = commands.add_parser("ablate", help="train short variants of a recipe that differ in one thing each")
    _add_recipe(ablate)
    changes = Path("configs/train/ablations.yaml")
    ablate.add_argument("--changes", type=Path, default=changes, help="file that says how variants differ")
    ablate.add_argument("--runs", type=Path, required=True, help="folder of the runs")
    ablate.add_argument("--side-by-side", type=int, default=1, help="runs at a time")
    ablate.add_argument("--table", type=Path, help="write the comparison, in Markdown, to this file")

    cross = commands.add_parser("cross-validate", help="train a run for each fold of a data set's people, and judge it")
    _add_recipe(cross)
    cross.add_argument("--runs", type=Path, required=True, help="folder of the runs")
    cross.add_argument("--source", type=Path, default=Path("pairs"), help="data set whose people are divided")
    cross.add_argument("--folds", type=int, default=4, help="parts that people are divided into")
    cross.add_argument("--images", type=int, default=40_000, help="images that each run is trained on")
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

    _add_evaluate(commands.add_parser("evaluate", help="measure a checkpoint on a data set, or on a recipe's"))

    reencode = commands.add_parser(
        "reencode", help="encode a data set's videos again, as a platform would hand them on"
    )
    reencode.add_argument("data", type=Path, help="data set, or a folder of several")
    reencode.add_argument("--out", type=Path, required=True, help="folder for the copy, in the same layout")
    crf = "constant rate factor of x264, from 0, without loss, to 51; such as 28 or 35"
    reencode.add_argument("--crf", type=int, required=True, help=crf)
    reencode.add_argument("--scale", type=float, default=1.0, help="of each side: above 0 and at most 1, such as 0.5")

    _add_long(
        commands.add_parser("long-videos", help="false alarms on long real videos, and short swaps found in them")
    )
    _add_judge(
        commands.add_parser("judge-made", help="how well checkpoints tell each kind of fakes that a recipe makes")
    )
    _add_probe(commands.add_parser("probe-outside", help="whether anything outside faces tells fakes from real media"))
    return parser


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", type=Path, help="a file of configs/train/")
    parser.add_argument("data", type=Path, help="folder that the recipe's paths are below")
    _add_crops(parser)


def _add_crops(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--caches", type=Path, default=Path("build/crops"), help="where crops are kept")
    parser.add_argument("--processes", type=int, default=2, help="processes that cut crops side by side")


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", type=Path, required=True, help="folder of the run")


def _add_ship(parser: argparse.ArgumentParser) -> None:
    _add_run(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoints to write to")
    parser.add_argument("--state", choices=["last", "best"], default="best", help="which state of the run to take")


def _add_data(parser: argparse.ArgumentParser) -> None:
    """A data set of any layout, or a recipe's."""
    from worker.training.data.datasets import READERS

    parser.add_argument("--kind", choices=sorted(READERS), help="layout of the data set; guessed if not given")
    _add_crops(parser)


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=Path, help="folder with manifest.json")
    parser.add_argument("data", type=Path, help="data set, or with --recipe the folder that its paths are below")
    parser.add_argument("--recipe", type=Path, help="take data sets, sets and crops from this file")
    _add_data(parser)
    parser.add_argument(
        "--set",
        choices=["train", "validation", "test", "all"],
        help="validation with --recipe; else test, if there is one, or all",
    )
    parser.add_argument("--out", type=Path, help="folder of the report; build/evaluation/NAME if not given")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, …")
    parser.add_argument("--no-robustness", action="store_true", help="leave out disturbed faces")
    parser.add_argument("--limit", type=int, default=60, help="disturb faces of so many media of a data set and label")


def _add_long(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=Path, help="folder with manifest.json")
    _add_recipe(parser)
    parser.add_argument("--real", nargs="+", default=["videos", "clips"], help="data sets whose real videos are used")
    parser.add_argument("--swapped", default="pairs", help="data set whose fakes are inserted")
    sets = ["train", "validation", "test"]
    parser.add_argument("--set", choices=sets, default="validation", help="of the fakes; of real videos all are used")
    parser.add_argument("--rounds", type=int, default=400, help="videos of each kind; a tenth of them of 10 minutes")


def _add_probe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", type=Path, help="data set, crop cache, or with --recipe the folder of its data sets")
    parser.add_argument("--recipe", type=Path, help="probe this file's data sets, and the fakes that it makes")
    _add_data(parser)
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
