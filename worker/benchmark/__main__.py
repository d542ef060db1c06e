"""
``python -m worker.benchmark``: compare the cost of a scan with a straightforward pipeline and with the floor.

Seconds depend on the machine; compare the ratios. The floor is decoding and classification alone. Writes a JSON file
and a plot, and prints tables in Markdown.
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
    help="Folder of clips to measure with; synthetic clips by default.",
)
@click.option("--model", default=DEFAULT_CHECKPOINT, help="Checkpoint that all pipelines use.")
@click.option(
    "--models-dir", type=click.Path(path_type=Path), default=PACKAGED_MODELS_DIR, help="Folder of checkpoints."
)
@click.option("--quick", is_flag=True, help="Use fewer clips and rounds; takes at most five minutes.")
@click.option(
    "--rounds", type=click.IntRange(1), help="Rounds, of which the median counts; 5 by default, 3 with --quick."
)
@click.option(
    "--growth/--no-growth",
    default=True,
    help="Also measure made clips of growing lengths, heights and numbers of faces, for the last tables and the plot.",
    show_default=True,
)
@click.option(
    "--threads",
    type=click.IntRange(1),
    help="Threads of PyTorch; by default one for each core that the process may use.",
)
@click.option("--device", default="cpu", help="Device of all pipelines: cpu, cuda or cuda:N.")
@click.option(
    "--price-per-hour",
    type=click.FloatRange(0, min_open=True),
    help="Price of this machine for an hour, for the cost of an hour of video.",
)
@click.option(
    "--yunet",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="File of OpenCV's detector YuNet (face_detection_yunet_*.onnx), to measure it as well.",
)
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/bench.json"), help="Path of the report.")
@scenes_option
def measure(**values: Any) -> None:
    """Run the benchmark with the given options, write its report and chart, and print the report as tables."""
    with needed_packages(PROGRAM, "the benchmark", EXTRAS):
        # Imported here, since torch takes seconds to import and --help does not need it.
        from worker.benchmark.report import draw, table
        from worker.benchmark.running import BenchmarkOptions, run_benchmark
    options = BenchmarkOptions(**values)
    try:
        report = run_benchmark(options)
    except BenchmarkError as error:
        raise CommandError(f"{PROGRAM}: {error}") from error
    plot = options.out.with_suffix(".png")
    if options.growth:
        draw(report, plot)
    else:
        # One of an earlier run would show other figures than the report.
        plot.unlink(missing_ok=True)
    click.echo(table(report))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    return run(measure, arguments, PROGRAM)


if __name__ == "__main__":
    sys.exit(main())
