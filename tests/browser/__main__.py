"""
``python -m tests.browser``: make all pictures of the README and the tutorial anew.

Takes the steps of docs/tutorial.md with a service of its own, in terminals and in a real browser, and writes what is
seen. Needs an installed Chromium, and the ports 9000 and 9001.
"""

import sys
from pathlib import Path

import click

from shared.commands import SETTINGS
from tests.browser.chromium import find_chromium, running_chromium
from tests.browser.tutorial import make_pictures


@click.command(context_settings=SETTINGS, help=__doc__)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("docs"),
    help="Folder to write into; the pictures of the tutorial are in the folder 'tutorial' of it.",
)
def main(out: Path) -> None:
    """Make all pictures."""
    path = find_chromium()
    if path is None:
        sys.exit("no Chromium is installed")
    with running_chromium(path) as browser:
        made = make_pictures(browser, out)
    for picture in made:
        click.echo(f"{picture}: {picture.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
