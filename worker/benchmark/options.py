"""What both command lines of the benchmark have in common."""

from pathlib import Path
from typing import Final

import click

EXTRAS: Final = "worker,train,demo"
"""The extras of the distribution that hold what is measured, what it is measured beside, and what draws it."""

scenes_option: Final = click.option(
    "--scenes", type=click.Path(path_type=Path), default=Path("build/scenes"), help="Where made clips are kept."
)
