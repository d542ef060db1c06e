"""Options that both command lines of the benchmark share."""

from pathlib import Path
from typing import Final

import click

EXTRAS: Final = "worker,train,demo"
"""Extras of the distribution that the benchmark needs: the pipeline, the baseline's libraries, and plotting."""

scenes_option: Final = click.option(
    "--scenes", type=click.Path(path_type=Path), default=Path("build/scenes"), help="Folder of synthetic clips."
)
