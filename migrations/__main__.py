"""``python -m migrations upgrade``: bring the configured database to the newest schema."""

from typing import Literal

import click
from sqlalchemy.exc import OperationalError

from migrations.schema import migrate
from shared.commands import SETTINGS, CommandError, FailedCommandError
from shared.config import ConfigurationError, SharedSettings, load_settings
from shared.db import make_engine


@click.group(context_settings=SETTINGS, help=__doc__, no_args_is_help=False)
def main() -> None:
    """Run the command line."""


@main.command()
def upgrade() -> None:
    """Upgrade to the newest schema."""
    _migrate("head")


@main.command()
@click.option("--yes", is_flag=True, help="Confirm the loss of all data; required.")
def downgrade(yes: bool) -> None:
    """Downgrade to the empty schema. Every row is lost."""
    if not yes:
        raise click.MissingParameter(param_hint="'--yes'", param_type="option")
    _migrate("base")


def _migrate(revision: Literal["head", "base"]) -> None:
    try:
        settings = load_settings(SharedSettings)
    except ConfigurationError as error:
        raise CommandError(str(error)) from error
    try:
        migrate(make_engine(settings.database), revision)
    except OperationalError as error:
        raise FailedCommandError(f"Postgres: {str(error.orig).strip()}") from error
    except TimeoutError as error:
        raise FailedCommandError(str(error)) from error


if __name__ == "__main__":
    main()
