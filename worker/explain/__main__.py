"""
``python -m worker.explain FILE --out FOLDER``: which parts of the faces in a file raise their fake scores.

Scans the image or video FILE in this process, takes the face with the highest score of each person, and writes its
crop, its heat map, both laid over each other, and explanation.json with scores, times and boxes into FOLDER.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from shared.commands import SETTINGS, CommandError, FailedCommandError, needed_packages, run
from shared.errors import DeepfakeStreamError, UnknownModelError
from shared.manifests import DEFAULT_CHECKPOINT

PROGRAM: Final = "python -m worker.explain"


@click.command(context_settings=SETTINGS, help=(__doc__ or "").replace("``", ""))
@click.argument("file", type=click.Path(path_type=Path), help="Image or video to explain.")
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="Folder to write to, a new or an empty one."
)
@click.option("--model", default=DEFAULT_CHECKPOINT, help="Checkpoint whose scores are explained.")
@click.option(
    "--people", type=click.IntRange(1), default=10, help="Largest number of people, the most suspicious ones."
)
@click.option("--device", default="cpu", help="cpu, cuda, cuda:1, …")
def main_command(file: Path, out: Path, model: str, people: int, device: str) -> None:
    """Explain one file."""
    with needed_packages(PROGRAM, "explaining", "worker"):
        # Here, since torch takes seconds to import, which help does not need.
        from worker.explain.files import REPORT, explain_file
    _check_device(device)
    try:
        report = explain_file(file, out, model=model, people=people, device=device)
    except (FileExistsError, UnknownModelError) as error:
        raise CommandError(f"{PROGRAM}: {error}") from error
    except DeepfakeStreamError as error:
        raise FailedCommandError(f"{PROGRAM}: {error} ({error.code})") from error
    except OSError as error:
        # Quoted with escapes, since a name may contain control characters.
        name = str(error.filename or file)
        raise FailedCommandError(f"{PROGRAM}: {name!r}: {error.strerror or error}") from error
    for person in report["people"]:
        click.echo(
            f"person {person['person']}: face score {person['face_score']:.3f} at {person['time_s']:.2f} s,"
            f" {person['score_without_hottest_tenth']:.3f} without the hottest tenth"
        )
    if not report["people"]:
        click.echo(f"no face was scored ({', '.join(report['reasons'])})")
    click.echo(f"report: {out / REPORT}")


def _check_device(device: str) -> None:
    """Refuse a device that torch cannot use here, for which it raises errors of several kinds and lines."""
    import torch

    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise CommandError(
            f"{PROGRAM}: the device {device!r} cannot be used on this machine; --device cpu always can"
        ) from error


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run the command line.

    Returns:
        The exit status: 2 where it cannot begin, 1 where the file cannot be scanned.
    """
    return run(main_command, arguments, PROGRAM)


if __name__ == "__main__":
    sys.exit(main())
