"""``python -m migrations upgrade``: bring the configured database to the newest schema."""

import argparse
import sys

from sqlalchemy.exc import OperationalError

from migrations.schema import migrate
from shared.config import ConfigurationError, SharedSettings, load_settings
from shared.db import make_engine


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m migrations", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("upgrade", help="to the newest schema")
    commands.add_parser("downgrade", help="to the empty schema: every row is lost").add_argument(
        "--yes", action="store_true", required=True, help="really"
    )
    arguments = parser.parse_args()
    try:
        settings = load_settings(SharedSettings)
    except ConfigurationError as error:
        parser.exit(2, f"{error}\n")
    try:
        migrate(make_engine(settings.database), "head" if arguments.command == "upgrade" else "base")
    except OperationalError as error:
        parser.exit(1, f"Postgres: {str(error.orig).strip()}\n")
    except TimeoutError as error:
        parser.exit(1, f"{error}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
