"""Options that both command lines of the benchmark have."""

from pathlib import Path
from typing import Final

import click

scenes_option: Final = click.option(
    "--scenes", type=click.Path(path_type=Path), default=Path("build/scenes"), help="Where made clips are kept."
)
