"""
``python -m worker.benchmark``: what a scan costs, beside a straightforward pipeline and beside the floor, in one run.

Seconds belong to the machine; the ratios are what is worth comparing. Writes a JSON file, a plot beside it, and prints
tables in Markdown.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click

from shared.commands import SETTINGS, CommandError, needed_packages, run
from shared.manifests import DEFAULT_CHECKPOINT, PACKAGED_MODELS_DIR
from worker.benchmark.errors import BenchmarkError
from worker.benchmark.options import EXTRAS, scenes_option

PROGRAM: Final = "python -m worker.benchmark"


@click.command(context_settings=SETTINGS, help=__doc__)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Folder of clips to measure on; clips made on the spot if not given.",
)
@click.option("--model", default=DEFAULT_CHECKPOINT, help="The checkpoint that all contenders use.")
@click.option(
    "--models-dir", type=click.Path(path_type=Path), default=PACKAGED_MODELS_DIR, help="Folder of checkpoints."
)
@click.option("--quick", is_flag=True, help="Fewer clips and rounds; ends within five minutes.")
@click.option("--rounds", type=click.IntRange(1), help="Of which medians are taken; 5 if not given, 3 with --quick.")
@click.option("--threads", type=click.IntRange(1), help="Of PyTorch; all if not given.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/bench.json"), help="The report to write.")
@scenes_option
def _measure(**options: Any) -> None:
    with needed_packages(PROGRAM, "the benchmark", EXTRAS):
        # Here, since torch takes seconds to import, which help needs not.
        from worker.benchmark.report import draw, table
        from worker.benchmark.running import Given, measured
    given = Given(**options)
    try:
        report = measured(given)
    except BenchmarkError as error:
        raise CommandError(f"{PROGRAM}: {error}") from error
    draw(report, given.out.with_suffix(".png"))
    click.echo(table(report))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; its exit status."""
    return run(_measure, arguments, PROGRAM)


if __name__ == "__main__":
    sys.exit(main())
