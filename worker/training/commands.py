"""The commands of ``python -m worker.training``: what is given to them, and what they print."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import click

from shared.commands import POSITIVE, SETTINGS, CommandError
from worker.training.arguments import (
    PATH,
    Crops,
    RecipeCrops,
    SeveralValues,
    checkpoint_argument,
    crops_options,
    kind_option,
    recipe_arguments,
    run_option,
    runs_option,
    ship_options,
    table_option,
)
from worker.training.errors import TrainingError

if TYPE_CHECKING:
    from worker.model.checkpoint import Checkpoint
    from worker.training.fitting.recipes import Recipe

CHANGES: Final = Path("configs/train/ablations.yaml")


class _Commands(click.Group):
    """Tells what a command cannot go on with in one sentence; lists commands in their order, and wholly."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - as click calls it
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - as above
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.help or "") for name, command in self.commands.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except TrainingError as error:
            raise CommandError(f"{ctx.command_path} {ctx.invoked_subcommand}: {error}") from error


@click.group(cls=_Commands, context_settings=SETTINGS, no_args_is_help=False)
def commands() -> None:
    """
    Crops, training, evaluation and what belongs to them.

    Each command says where it writes, shows how far it is, and goes on where it was when it is started again.
    "COMMAND --help" tells its options and their defaults.
    """


@commands.command()
@recipe_arguments
def crops(given: RecipeCrops) -> None:
    """Cut the faces of a recipe's data sets out, once."""
    _built(given)


@commands.command()
@recipe_arguments
@run_option
@click.option("--minutes", type=POSITIVE, help="Pause when so many have passed; started again, it goes on.")
def train(given: RecipeCrops, run: Path, minutes: float | None) -> None:
    """Train a checkpoint; goes on where it was."""
    _train(given, run, minutes)


@commands.command()
@recipe_arguments
@click.option("--steps", type=int, default=4, help="Steps that are timed.")
def profile(given: RecipeCrops, steps: int) -> None:
    """Measure a few steps, and how fast loaders make couples."""
    from worker.training.fitting.profiling import profile

    recipe, caches, painted = _faces(given)
    _say(*profile(recipe, caches, painted=painted, steps=steps))


@commands.command()
@recipe_arguments
@click.option("--changes", type=PATH, default=CHANGES, help="File that says how variants differ.")
@runs_option
@click.option("--side-by-side", type=int, default=1, help="Runs at a time.")
@table_option
def ablate(given: RecipeCrops, changes: Path, runs: Path, side_by_side: int, table: Path | None) -> None:
    """Train short variants of a recipe that differ in one thing each."""
    from worker.training.fitting.ablation import comparison, run_ablations

    _, caches = _built(given)
    run_ablations(given.recipe, changes, given.data, given.caches, runs, side_by_side=side_by_side)
    _tell(comparison(given.recipe, changes, caches, runs), table)


@commands.command()
@recipe_arguments
@runs_option
@click.option("--source", type=PATH, default=Path("pairs"), help="Data set whose people are divided.")
@click.option("--folds", type=int, default=4, help="Parts that people are divided into.")
@click.option("--images", type=int, default=40_000, help="Images that each run is trained on.")
@table_option
def cross_validate(given: RecipeCrops, runs: Path, source: Path, folds: int, images: int, table: Path | None) -> None:
    """Train a run for each fold of a data set's people, and judge it."""
    from worker.training.fitting.recipes import Recipe
    from worker.training.judging import crossvalidation

    found = crossvalidation.cross_validate(
        Recipe.read(given.recipe),
        given.data,
        given.caches,
        runs,
        path=source,
        folds=folds,
        images=images,
        processes=given.processes,
    )
    _tell(crossvalidation.table(found), table)


@commands.command()
@recipe_arguments
@ship_options
@click.option("--weights", type=PATH, help="Ship this checkpoint's folder, which was trained elsewhere.")
def ship(given: RecipeCrops, run: Path, out: Path, state: Literal["last", "best"], weights: Path | None) -> None:
    """Calibrate, evaluate and describe a trained run: a checkpoint to serve."""
    _ship(given, run, out, state, weights)


@commands.command()
@recipe_arguments
@ship_options
def reproduce(given: RecipeCrops, run: Path, out: Path, state: Literal["last", "best"]) -> None:
    """All of it: crops, train, ship."""
    if _train(given, run, None):
        _ship(given, run, out, state, None)


@commands.command()
@recipe_arguments
@click.option("--out", type=PATH, required=True, help="Picture to write, such as build/sheet.png.")
@click.option("--count", type=int, default=3, help="Couples of each kind.")
@click.option("--seed", type=int, default=0, help="Another one draws other couples.")
def sheet(given: RecipeCrops, out: Path, count: int, seed: int) -> None:
    """Draw couples of every kind, as training sees them, on one picture."""
    from worker.training.judging.sheet import draw_sheet, write_sheet

    recipe, caches, painted = _faces(given)
    write_sheet(draw_sheet(recipe, caches, painted=painted, count=count, seed=seed), out)


@commands.command()
@checkpoint_argument
@click.argument("data", type=PATH, help="Data set, or with --recipe the folder that its paths are below.")
@click.option("--recipe", type=PATH, help="Take data sets, sets and crops from this file.")
@kind_option
@crops_options
@click.option(
    "--set",
    "chosen",
    type=click.Choice(["train", "validation", "test", "all"]),
    help="Validation with --recipe; else test, if there is one, or all.",
)
@click.option("--out", type=PATH, help="Folder of the report; build/evaluation/NAME if not given.")
@click.option("--device", default="cpu", help="cpu, cuda, cuda:1, …")
@click.option("--no-robustness", is_flag=True, help="Leave out disturbed faces.")
@click.option("--limit", type=int, default=60, help="Disturb faces of so many media of a data set and label.")
def evaluate(
    crops: Crops,
    checkpoint: Path,
    data: Path,
    recipe: Path | None,
    kind: str | None,
    chosen: str | None,
    out: Path | None,
    device: str,
    no_robustness: bool,
    limit: int,
) -> None:
    """Measure a checkpoint on a data set, or on a recipe's."""
    from worker.training.fitting.recipes import Recipe
    from worker.training.judging.evaluate import SETS, evaluate
    from worker.training.judging.report import HTML_FILE, summary_lines, write_report
    from worker.training.judging.sources import folder_source, recipe_sources

    loaded = _loaded(checkpoint, device)
    manifest = loaded.manifest
    if recipe is not None:
        sources = recipe_sources(Recipe.read(recipe), data, crops.caches, processes=crops.processes)
    else:
        sources = [folder_source(data, manifest, crops.caches, kind=kind, processes=crops.processes)]
    if chosen is None:
        # A recipe's other media are those that were trained on. Celeb-DF has an official list of videos for testing.
        has_test = any(source.split["media"].get("test") for source in sources)
        chosen = "validation" if recipe is not None else "test" if has_test else "all"
    evaluation = evaluate(
        loaded,
        sources,
        sets=SETS if chosen == "all" else [chosen],
        device=device,
        robustness=not no_robustness,
        limit=limit,
        options={"recipe": recipe.name if recipe is not None else None, "device": device},
    )
    folder = out or Path("build/evaluation", manifest.name)
    write_report(evaluation, folder)
    _say(*summary_lines(evaluation.report), f"report: {folder / HTML_FILE}")


@commands.command()
@click.argument("data", type=PATH, help="Data set, or a folder of several.")
@click.option("--out", type=PATH, required=True, help="Folder for the copy, in the same layout.")
@click.option(
    "--crf",
    type=int,
    required=True,
    help="Constant rate factor of x264, from 0, without loss, to 51; such as 28 or 35.",
)
@click.option("--scale", type=float, default=1.0, help="Of each side: above 0 and at most 1, such as 0.5.")
def reencode(data: Path, out: Path, crf: int, scale: float) -> None:
    """Encode a data set's videos again, as a platform would hand them on."""
    from worker.training.data.reencode import reencode

    made = reencode(data, out, crf=crf, scale=scale)
    _say(f"{out}: {_counted(made.videos, 'video')}")
    left_out = [_counted(made.pictures, "picture")] if made.pictures else []
    left_out += [_counted(made.others, "file") + " of another kind"] if made.others else []
    if left_out:
        _say(f"left out: {' and '.join(left_out)}; only videos are encoded again")


@commands.command(cls=SeveralValues)
@checkpoint_argument
@recipe_arguments
@click.option(
    "--real", multiple=True, default=["videos", "clips"], help="Data sets whose real videos are used; one or more."
)
@click.option("--swapped", default="pairs", help="Data set whose fakes are inserted.")
@click.option(
    "--set",
    "chosen",
    type=click.Choice(["train", "validation", "test"]),
    default="validation",
    help="Of the fakes; of real videos all are used.",
)
@click.option("--rounds", type=int, default=400, help="Videos of each kind; a tenth of them of 10 minutes.")
def long_videos(
    given: RecipeCrops, checkpoint: Path, real: tuple[str, ...], swapped: str, chosen: str, rounds: int
) -> None:
    """False alarms on long real videos, and short swaps found in them."""
    from worker.training.judging.evaluate import SETS
    from worker.training.judging.longvideos import judge_long_videos, table
    from worker.training.measuring.scored import score_caches

    loaded = _loaded(checkpoint)
    recipe, caches = _built(given)
    by_name = {source.path.name: cache for source, cache in zip(recipe.sources, caches, strict=True)}
    if unknown := {*real, swapped} - set(by_name):
        raise TrainingError(f"the recipe has no data set {', '.join(sorted(unknown))}; it has {', '.join(by_name)}")
    clips = [
        medium
        for medium in score_caches(loaded, [by_name[name] for name in real], sets=SETS)
        if not medium.is_fake and medium.is_video
    ]
    fakes = [medium for medium in score_caches(loaded, [by_name[swapped]], sets=[chosen]) if medium.is_fake]
    shares = judge_long_videos(clips, fakes, loaded.manifest, rounds=rounds)
    _say(f"{len(clips)} real clips, {len(fakes)} swapped ones")
    _tell(table(shares), None)


@commands.command()
@recipe_arguments
@click.argument("checkpoints", type=PATH, nargs=-1, required=True, help="Folders with manifest.json.")
@click.option("--count", type=int, default=300, help="Couples of each kind.")
@click.option("--whole", type=float, default=0.5, help="Share of decoded and restored faces pasted as whole squares.")
@table_option
def judge_made(given: RecipeCrops, checkpoints: tuple[Path, ...], count: int, whole: float, table: Path | None) -> None:
    """How well checkpoints tell each kind of fakes that a recipe makes."""
    from worker.training.judging import made

    loaded = [_loaded(folder) for folder in checkpoints]
    recipe, caches, painted = _faces(given)
    _tell(made.table(made.judge_made(recipe, caches, loaded, painted=painted, count=count, whole=whole)), table)


@commands.command()
@click.argument("data", type=PATH, help="Data set, crop cache, or with --recipe the folder of its data sets.")
@click.option("--recipe", type=PATH, help="Probe this file's data sets, and the fakes that it makes.")
@kind_option
@crops_options
@click.option("--limit", type=int, default=1500, help="Couples of a data set, or media of each class.")
@click.option("--made", type=int, default=400, help="Couples of each kind of made fakes; 0 for none.")
@click.option("--out", type=PATH, help="Write the figures, as JSON, to this file.")
def probe_outside(
    crops: Crops, data: Path, recipe: Path | None, kind: str | None, limit: int, made: int, out: Path | None
) -> None:
    """Whether anything outside faces tells fakes from real media."""
    from worker.training.data.sources import build_plain_cache
    from worker.training.judging.outside import probe_caches, probe_recipe
    from worker.training.judging.probes import table

    if recipe is None:
        is_cache = any(data.glob("*.jsonl"))
        folder = data if is_cache else build_plain_cache(data, crops.caches, kind=kind, processes=crops.processes)
        found = probe_caches([folder], limit=limit)
    else:
        read, caches, painted = _faces(RecipeCrops(crops.caches, crops.processes, recipe, data))
        found = probe_recipe(read, caches, painted=painted, limit=limit, made=made)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps([one.as_json() for one in found], indent=2, allow_nan=False) + "\n")
    _tell(table(found), None)


@commands.command()
@checkpoint_argument
@click.option("--fakes", type=PATH, required=True, help="Crop cache whose fakes are drawn.")
@click.option("--pairs", type=PATH, required=True, help="Folder of side-by-side videos, original left, swap right.")
@click.option("--count", type=int, default=150, help="Fakes that are drawn from the crop cache.")
@click.option("--limit", type=int, default=90, help="Crops of pairs, spread evenly over them.")
@click.option("--seed", type=int, default=0, help="Another one draws other fakes and areas.")
@click.option("--minutes", type=POSITIVE, help="Begin no further crop when so many have passed.")
@click.option("--out", type=PATH, default=Path("build/heat-maps"), help="Folder of the report.")
def judge_heat_maps(
    checkpoint: Path,
    fakes: Path,
    pairs: Path,
    count: int,
    limit: int,
    seed: int,
    minutes: float | None,
    out: Path,
) -> None:
    """Whether heat maps say which parts of a face raise its score."""
    from worker.pipeline.detector import Detector
    from worker.training.evaluation import heat_map_report, heat_maps

    loaded = _loaded(checkpoint)
    detector = Detector(loaded, "cpu")
    samples = heat_maps.cached_fakes(fakes, loaded.manifest.preprocessing, count=count, seed=seed)
    paired = list(heat_maps.paired_fakes(pairs, detector))
    samples += [paired[number * len(paired) // limit] for number in range(limit)] if len(paired) > limit else paired
    deadline_s = None if minutes is None else time.monotonic() + 60.0 * minutes
    judged = heat_maps.judge_heat_maps(samples, loaded.network, detector.score_crops, seed=seed, deadline_s=deadline_s)
    heat_map_report.write_report(judged, out)
    _say(heat_map_report.format_tables(heat_map_report.summarise(judged)), f"report: {out}")


def _built(given: RecipeCrops) -> "tuple[Recipe, list[Path]]":
    """A recipe and its crops."""
    from worker.training.fitting.inputs import build_caches
    from worker.training.fitting.recipes import Recipe

    recipe = Recipe.read(given.recipe)
    return recipe, build_caches(recipe, given.data, given.caches, processes=given.processes)


def _faces(given: RecipeCrops) -> "tuple[Recipe, list[Path], list[Path]]":
    """A recipe, its crops, and what its networks paint."""
    from worker.training.fitting.inputs import paint_for

    recipe, caches = _built(given)
    return recipe, caches, paint_for(recipe, caches, given.caches)


def _train(given: RecipeCrops, run: Path, minutes: float | None) -> bool:
    """Train; says whether this process is the first of its run, which alone goes on afterwards."""
    from worker.training.fitting.train import Trainer

    deadline_s = None if minutes is None else time.monotonic() + 60.0 * minutes
    recipe, caches, painted = _faces(given)
    trainer = Trainer(recipe, caches, run, painted=painted)
    trainer.run(deadline_s=deadline_s)
    if trainer.is_first and not trainer.is_finished:
        seen = trainer.progress.step * trainer.images_per_step
        _say(f"paused after {seen} of {recipe.images} images; started again, it goes on")
    return trainer.is_first


def _ship(given: RecipeCrops, run: Path, out: Path, state: Literal["last", "best"], weights: Path | None) -> None:
    from worker.training.fitting.recipes import Recipe
    from worker.training.judging.shipping import ship
    from worker.training.judging.sources import recipe_sources

    recipe = Recipe.read(given.recipe)
    sources = recipe_sources(recipe, given.data, given.caches, processes=given.processes)
    manifest = ship(recipe, sources, run, out, state=state, weights=weights)
    _say(f"{out / manifest.name}: {manifest.calibration}", *sorted(manifest.metrics.items()))


def _loaded(folder: Path, device: str = "cpu") -> "Checkpoint":
    from shared.errors import ModelError
    from worker.model.checkpoint import load_checkpoint

    folder = folder.resolve()
    try:
        return load_checkpoint(folder.parent, folder.name, device)
    except ModelError as error:
        raise TrainingError(str(error)) from error


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _tell(table: str, path: Path | None) -> None:
    """Print a table in Markdown, and write it to *path*, too, if there is one."""
    if path is not None:
        path.write_text(table)
    click.echo(table, nl=not table.endswith("\n"))


def _say(*lines: object) -> None:
    for line in lines:
        click.echo(line)
