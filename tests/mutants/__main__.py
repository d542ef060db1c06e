"""
``python -m tests.mutants --count N --seed S``: test the inspection of API and worker with corrupted files.

Prints one JSON line; exits with status 1 if a file crashed or hung a process, or led to neither a result nor an error
code. The same seed makes the same files.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

import click

from shared.commands import SETTINGS
from tests.mutants.corpus import make_originals, mutants
from tests.mutants.running import process_all
from tests.options import seed_option
from worker.cores import available_cores


@click.command(context_settings=SETTINGS, help=__doc__)
@click.option("--count", type=int, default=2000, help="Number of files.")
@seed_option
@click.option(
    "--keep",
    type=click.Path(path_type=Path),
    help="Folder for files that crashed or hung a process, or led to an unexpected error.",
)
def main(count: int, seed: int, keep: Path | None) -> None:
    """Run the command line."""
    os.environ.setdefault("SVT_LOG", "1")  # The AV1 encoder is verbose.
    with tempfile.TemporaryDirectory(prefix="dfs-mutants-") as temporary:
        made = Path(temporary) / "made"
        made.mkdir()
        folder = keep or Path(temporary) / "mutants"
        folder.mkdir(parents=True, exist_ok=True)
        files = mutants(make_originals(made), count, seed)
        outcome = process_all(files, folder, available_cores())
    click.echo(json.dumps({"seed": seed, **vars(outcome)}))
    sys.exit(0 if outcome.answered == outcome.files else 1)


if __name__ == "__main__":
    main()
