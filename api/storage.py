"""
Commands for operators that check storage and set up its bucket.

They are run as ``deepfakestream storage`` or ``python -m api.storage``.
"""

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import click

from api.keys import operator_settings
from shared.config import ConfigurationError, SharedSettings
from shared.errors import StorageError
from shared.storage import open_storage

if TYPE_CHECKING:
    from shared.storage.s3 import S3Storage

SPARE_DAYS = 7


@click.group("storage")
def commands() -> None:
    """Check and set up the configured storage of uploads."""


@commands.command("check")
def check() -> None:
    """Write, read and remove a small object."""
    settings = operator_settings()
    with _sentences():
        open_storage(settings.storage).check()
    click.echo(f"ok: {settings.storage.url}")


@commands.command("prepare")
def prepare() -> None:
    """Create the bucket if it does not exist, and set its lifecycle. Meant for your own S3 server."""
    settings = operator_settings()
    storage = _bucket(settings)
    with _sentences():
        if storage.make_bucket():
            click.echo("created the bucket")
    _set_lifecycle(storage, settings, None)


@commands.command("lifecycle")
@click.option("--days", type=click.IntRange(min=1), help="By default a week more than media can be kept.")
def lifecycle(days: int | None) -> None:
    """
    Set the bucket's rules to expire leftover objects, as a fallback for the service's own clean-up.

    It replaces the bucket's other rules.
    """
    settings = operator_settings()
    _set_lifecycle(_bucket(settings), settings, days)


def _set_lifecycle(storage: "S3Storage", settings: SharedSettings, days: int | None) -> None:
    # A file can be kept for twice the retention: it is replaced when it is older, and retention restarts when its
    # content is sent again.
    longest = 2 * settings.jobs.media_retention_days
    days = days or math.ceil(longest) + SPARE_DAYS
    if days <= longest:
        raise click.ClickException(f"media may be kept for {longest:g} days; --days must be more")
    with _sentences():
        storage.set_lifecycle(days)
        rules = storage.lifecycle()
    for rule in rules:
        click.echo(f"{rule['Filter']['Prefix']}  expires after {rule['Expiration']['Days']} days")


def _bucket(settings: SharedSettings) -> "S3Storage":
    if not settings.storage.is_s3:
        raise click.ClickException("this command needs storage in S3; storage.url names a folder")
    with _sentences():
        return cast("S3Storage", open_storage(settings.storage))


@contextmanager
def _sentences() -> Iterator[None]:
    """Translate errors of storage and its configuration into errors of the command."""
    try:
        yield
    except ConfigurationError as error:
        raise click.ClickException(str(error)) from error
    except StorageError as error:
        raise click.ClickException(f"{error}: {error.__cause__}") from error


if __name__ == "__main__":
    sys.exit(commands())
