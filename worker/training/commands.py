"""The commands of ``python -m worker.training``: their arguments, and what they print."""

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


class _Command(click.Command):
    """A command that computes with no more threads than its process has cores."""

    def invoke(self, ctx: click.Context) -> Any:
        # Imported here, since torch takes seconds to import and --help does not need it.
        from worker.threads import bound_threads

        bound_threads()
        return super().invoke(ctx)


class _Commands(click.Group):
    """A group that reports training errors in one sentence, and lists commands in order with their full help."""

    command_class = _Command

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
    Cut crops, train, evaluate and ship checkpoints.

    Each command says where it writes, shows its progress, and resumes when it is started again.
    "COMMAND --help" lists its options and their defaults.
    """


@commands.command()
@recipe_arguments
def crops(arguments: RecipeCrops) -> None:
    """Cut the faces of a recipe's data sets into crop caches."""
    _read_and_build(arguments)


@commands.command()
@recipe_arguments
@run_option
@click.option("--minutes", type=POSITIVE, help="Pause after this many minutes; start again to resume.")
def train(arguments: RecipeCrops, run: Path, minutes: float | None) -> None:
    """Train a checkpoint, or resume training it."""
    _train(arguments, run, minutes)


@commands.command()
@recipe_arguments
@click.option("--steps", type=int, default=4, help="Number of steps to time.")
def profile(arguments: RecipeCrops, steps: int) -> None:
    """Time a few steps, and how fast loaders make real/fake pairs."""
    from worker.training.fitting.profiling import profile

    recipe, caches, painted = _prepare_faces(arguments)
    _print_lines(*profile(recipe, caches, painted=painted, steps=steps))


@commands.command()
@recipe_arguments
@click.option("--changes", type=PATH, default=CHANGES, help="File with the changes that make each variant.")
@runs_option
@click.option("--side-by-side", type=int, default=1, help="Number of runs at a time.")
@table_option
def ablate(arguments: RecipeCrops, changes: Path, runs: Path, side_by_side: int, table: Path | None) -> None:
    """Train short variants of a recipe that differ in one setting each."""
    from worker.training.fitting.ablation import compare_variants, run_ablations

    _, caches = _read_and_build(arguments)
    run_ablations(arguments.recipe, changes, arguments.data, arguments.caches, runs, side_by_side=side_by_side)
    _print_table(compare_variants(arguments.recipe, changes, caches, runs), table)


@commands.command()
@recipe_arguments
@runs_option
@click.option("--source", type=PATH, default=Path("pairs"), help="Data set whose people are divided into folds.")
@click.option("--folds", type=int, default=4, help="Number of folds.")
@click.option("--images", type=int, default=40_000, help="Number of images that each run is trained on.")
@table_option
def cross_validate(
    arguments: RecipeCrops, runs: Path, source: Path, folds: int, images: int, table: Path | None
) -> None:
    """Train a run for each fold of a data set's people, and evaluate it on that fold."""
    from worker.training.evaluation import cross_validation
    from worker.training.fitting.recipes import Recipe

    found = cross_validation.cross_validate(
        Recipe.read(arguments.recipe),
        arguments.data,
        arguments.caches,
        runs,
        path=source,
        folds=folds,
        images=images,
        processes=arguments.processes,
    )
    _print_table(cross_validation.format_table(found), table)


@commands.command()
@recipe_arguments
@ship_options
@click.option(
    "--weights", type=PATH, help="Folder of a checkpoint that was trained elsewhere, to ship instead of the run's."
)
def ship(arguments: RecipeCrops, run: Path, out: Path, state: Literal["last", "best"], weights: Path | None) -> None:
    """Calibrate, evaluate and describe a trained run as a checkpoint for serving."""
    _ship(arguments, run, out, state, weights)


@commands.command()
@recipe_arguments
@ship_options
def reproduce(arguments: RecipeCrops, run: Path, out: Path, state: Literal["last", "best"]) -> None:
    """Run crops, train and ship, one after the other."""
    if _train(arguments, run, None):
        _ship(arguments, run, out, state, None)


@commands.command()
@checkpoint_argument
@recipe_arguments
def reference(arguments: RecipeCrops, checkpoint: Path) -> None:
    """Describe the validation set of a shipped checkpoint, with which a service compares what it is given."""
    from worker.training.evaluation.reference import SET, make_reference, write_reference
    from worker.training.evaluation.sources import recipe_sources
    from worker.training.fitting.recipes import Recipe
    from worker.training.scoring.scored_media import score_caches

    loaded = _load(checkpoint)
    recipe = Recipe.read(arguments.recipe)
    if recipe.name != loaded.manifest.name:
        raise TrainingError(f"the checkpoint {loaded.manifest.name} was not shipped by the recipe {recipe.name}")
    if recipe.origin is not None:
        # As in ``ship``: weights that were trained elsewhere are not judged by what they saw there.
        recipe = recipe.model_copy(update={"sources": [source for source in recipe.sources if not source.seen]})
    sources = recipe_sources(recipe, arguments.data, arguments.caches, processes=arguments.processes)
    caches = [source.cache for source in sources]
    found = make_reference(loaded.manifest, caches, score_caches(loaded, caches, sets={SET}))
    write_reference(checkpoint, found)
    _print_lines(
        *(f"{kind}: {part.media} media, {part.faces} faces" for kind, part in found.kinds.items()),
        *(f"{label}: {part.scores_in_band} of {part.media} in band" for label, part in found.judged.items()),
    )


@commands.command()
@recipe_arguments
@click.option("--out", type=PATH, required=True, help="Image file to write, such as build/sheet.png.")
@click.option("--count", type=int, default=3, help="Number of pairs of each kind.")
@click.option("--seed", type=int, default=0, help="Seed that selects the pairs.")
def sheet(arguments: RecipeCrops, out: Path, count: int, seed: int) -> None:
    """Draw real/fake pairs of every kind, as training sees them, as one image."""
    from worker.training.evaluation.contact_sheet import draw_sheet, write_sheet

    recipe, caches, painted = _prepare_faces(arguments)
    write_sheet(draw_sheet(recipe, caches, painted=painted, count=count, seed=seed), out)


@commands.command()
@checkpoint_argument
@click.argument("data", type=PATH, help="Data set, or with --recipe the folder that contains its data sets.")
@click.option("--recipe", type=PATH, help="Recipe whose data sets, sets and crops are used.")
@kind_option
@crops_options
@click.option(
    "--set",
    "chosen",
    type=click.Choice(["train", "validation", "test", "all"]),
    help="Set to evaluate; by default validation with --recipe, else test if there is one, else all.",
)
@click.option("--out", type=PATH, help="Folder of the report; build/evaluation/NAME if not given.")
@click.option("--device", default="cpu", help="cpu, cuda, cuda:1, …")
@click.option("--no-robustness", is_flag=True, help="Skip the robustness curves.")
@click.option("--limit", type=int, default=60, help="Media of each data set and label for the robustness curves.")
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
    """Evaluate a checkpoint on a data set, or on the data sets of a recipe."""
    from worker.training.evaluation.evaluate import SETS, evaluate
    from worker.training.evaluation.report import HTML_FILE, summary_lines, write_report
    from worker.training.evaluation.sources import folder_source, recipe_sources
    from worker.training.fitting.recipes import Recipe

    loaded = _load(checkpoint, device)
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
    _print_lines(*summary_lines(evaluation.report), f"report: {folder / HTML_FILE}")


@commands.command()
@click.argument("data", type=PATH, help="Data set, or a folder of several.")
@click.option("--out", type=PATH, required=True, help="Folder for the copy, in the same layout.")
@click.option(
    "--crf",
    type=int,
    required=True,
    help="Constant rate factor of x264, from 0, without loss, to 51; such as 28 or 35.",
)
@click.option("--scale", type=float, default=1.0, help="Factor of each side, above 0 and at most 1, such as 0.5.")
def reencode(data: Path, out: Path, crf: int, scale: float) -> None:
    """Encode a data set's videos again, as a platform would publish them."""
    from worker.training.data.reencoding import reencode

    made = reencode(data, out, crf=crf, scale=scale)
    _print_lines(f"{out}: {_format_count(made.videos, 'video')}")
    left_out = [_format_count(made.pictures, "picture")] if made.pictures else []
    left_out += [_format_count(made.others, "file") + " of another kind"] if made.others else []
    if left_out:
        _print_lines(f"left out: {' and '.join(left_out)}; only videos are encoded again")


@commands.command(cls=SeveralValues)
@checkpoint_argument
@recipe_arguments
@click.option(
    "--real", multiple=True, default=["videos", "clips"], help="Data sets whose real videos are used, one or more."
)
@click.option("--swapped", default="pairs", help="Data set whose fakes are inserted.")
@click.option(
    "--set",
    "chosen",
    type=click.Choice(["train", "validation", "test"]),
    default="validation",
    help="Set of the fakes; real videos of all sets are used.",
)
@click.option("--rounds", type=int, default=400, help="Videos of each kind; a tenth as many of 10 minutes.")
def long_videos(
    arguments: RecipeCrops, checkpoint: Path, real: tuple[str, ...], swapped: str, chosen: str, rounds: int
) -> None:
    """Measure false alarms on long real videos, and how often short swaps are found in them."""
    from worker.training.evaluation.evaluate import SETS
    from worker.training.evaluation.long_videos import format_table, judge_long_videos
    from worker.training.scoring.scored_media import score_caches

    loaded = _load(checkpoint)
    recipe, caches = _read_and_build(arguments)
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
    _print_lines(f"{len(clips)} real clips, {len(fakes)} swapped ones")
    _print_table(format_table(shares), None)


@commands.command()
@recipe_arguments
@click.argument(
    "checkpoints", type=PATH, nargs=-1, required=True, help="Folders of checkpoints, each with manifest.json."
)
@click.option("--count", type=int, default=300, help="Number of pairs of each kind.")
@click.option("--whole", type=float, default=0.5, help="Share of decoded and restored faces pasted as whole squares.")
@table_option
def judge_made(
    arguments: RecipeCrops, checkpoints: tuple[Path, ...], count: int, whole: float, table: Path | None
) -> None:
    """Measure how well checkpoints detect each kind of fakes that a recipe makes."""
    from worker.training.evaluation import pseudo_fakes

    loaded = [_load(folder) for folder in checkpoints]
    recipe, caches, painted = _prepare_faces(arguments)
    _print_table(
        pseudo_fakes.format_table(
            pseudo_fakes.evaluate_pseudo_fakes(recipe, caches, loaded, painted=painted, count=count, whole=whole)
        ),
        table,
    )


@commands.command()
@click.argument(
    "data", type=PATH, help="Data set, crop cache, or with --recipe the folder that contains its data sets."
)
@click.option("--recipe", type=PATH, help="Recipe whose data sets and made fakes are probed.")
@kind_option
@crops_options
@click.option(
    "--limit", type=int, default=1500, help="Largest number of pairs of a data set, or of media of each class."
)
@click.option("--made", type=int, default=400, help="Number of made pairs of each kind; 0 for none.")
@click.option("--out", type=PATH, help="Also write the results to this file, as JSON.")
def probe_outside(
    crops: Crops, data: Path, recipe: Path | None, kind: str | None, limit: int, made: int, out: Path | None
) -> None:
    """Test whether anything outside the faces distinguishes fakes from real media."""
    from worker.training.data.sources import build_plain_cache
    from worker.training.evaluation.leak_probes import probe_caches, probe_recipe
    from worker.training.evaluation.linear_probes import format_table

    if recipe is None:
        is_cache = any(data.glob("*.jsonl"))
        folder = data if is_cache else build_plain_cache(data, crops.caches, kind=kind, processes=crops.processes)
        found = probe_caches([folder], limit=limit)
    else:
        read, caches, painted = _prepare_faces(RecipeCrops(crops.caches, crops.processes, recipe, data))
        found = probe_recipe(read, caches, painted=painted, limit=limit, made=made)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps([one.as_json() for one in found], indent=2, allow_nan=False) + "\n")
    _print_table(format_table(found), None)


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
    """Measure whether heat maps say which parts of a face raise its score."""
    from worker.pipeline.detector import Detector
    from worker.training.evaluation import heat_map_report, heat_maps

    loaded = _load(checkpoint)
    detector = Detector(loaded, "cpu")
    samples = heat_maps.cached_fakes(fakes, loaded.manifest.preprocessing, count=count, seed=seed)
    paired = list(heat_maps.paired_fakes(pairs, detector))
    samples += [paired[number * len(paired) // limit] for number in range(limit)] if len(paired) > limit else paired
    deadline_s = None if minutes is None else time.monotonic() + 60.0 * minutes
    judged = heat_maps.judge_heat_maps(samples, loaded.network, detector.score_crops, seed=seed, deadline_s=deadline_s)
    heat_map_report.write_report(judged, out)
    _print_lines(heat_map_report.format_tables(heat_map_report.summarise(judged)), f"report: {out}")


def _read_and_build(arguments: RecipeCrops) -> "tuple[Recipe, list[Path]]":
    """Read a recipe and build its crop caches."""
    from worker.training.fitting.inputs import build_caches
    from worker.training.fitting.recipes import Recipe

    recipe = Recipe.read(arguments.recipe)
    return recipe, build_caches(recipe, arguments.data, arguments.caches, processes=arguments.processes)


def _prepare_faces(arguments: RecipeCrops) -> "tuple[Recipe, list[Path], list[Path]]":
    """Read a recipe, build its crop caches, and paint the faces that its mixtures need."""
    from worker.training.fitting.inputs import paint_recipe_faces

    recipe, caches = _read_and_build(arguments)
    return recipe, caches, paint_recipe_faces(recipe, caches, arguments.caches)


def _train(arguments: RecipeCrops, run: Path, minutes: float | None) -> bool:
    """Train; return whether this process is the first of its run, the only one that continues afterwards."""
    from worker.training.fitting.trainer import Trainer

    deadline_s = None if minutes is None else time.monotonic() + 60.0 * minutes
    recipe, caches, painted = _prepare_faces(arguments)
    trainer = Trainer(recipe, caches, run, painted=painted)
    trainer.run(deadline_s=deadline_s)
    if trainer.is_first and not trainer.is_finished:
        seen = trainer.progress.step * trainer.images_per_step
        _print_lines(f"paused after {seen} of {recipe.images} images; start again to resume")
    return trainer.is_first


def _ship(arguments: RecipeCrops, run: Path, out: Path, state: Literal["last", "best"], weights: Path | None) -> None:
    from worker.training.evaluation.shipping import ship
    from worker.training.evaluation.sources import recipe_sources
    from worker.training.fitting.recipes import Recipe

    recipe = Recipe.read(arguments.recipe)
    sources = recipe_sources(recipe, arguments.data, arguments.caches, processes=arguments.processes)
    manifest = ship(recipe, sources, run, out, state=state, weights=weights)
    _print_lines(f"{out / manifest.name}: {manifest.calibration}", *sorted(manifest.metrics.items()))


def _load(folder: Path, device: str = "cpu") -> "Checkpoint":
    from shared.errors import ModelError
    from worker.model.checkpoint import load_checkpoint

    folder = folder.resolve()
    try:
        return load_checkpoint(folder.parent, folder.name, device)
    except ModelError as error:
        raise TrainingError(str(error)) from error


def _format_count(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _print_table(table: str, path: Path | None) -> None:
    """Print a table in Markdown; also write it to *path* unless that is None."""
    if path is not None:
        path.write_text(table)
    click.echo(table, nl=not table.endswith("\n"))


def _print_lines(*lines: object) -> None:
    for line in lines:
        click.echo(line)
