"""
Storage, for an operator: whether it works, and what it does by itself.

Found by the command line as ``deepfakestream storage``; also ``python -m api.storage``.
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
    """Where uploads are kept, as the configuration names it."""


@commands.command("check")
def check() -> None:
    """Write, read and remove a small object."""
    settings = operator_settings()
    with _sentences():
        open_storage(settings.storage).check()
    click.echo(f"ok: {settings.storage.url}")


@commands.command("prepare")
def prepare() -> None:
    """Make the bucket if it is not there, and set its life cycle: for a server of one's own."""
    settings = operator_settings()
    storage = _bucket(settings)
    with _sentences():
        if storage.make_bucket():
            click.echo("made the bucket")
    _set_lifecycle(storage, settings, None)


@commands.command("lifecycle")
@click.option("--days", type=click.IntRange(min=1), help="By default a little more than media can be kept for.")
def lifecycle(days: int | None) -> None:
    """
    Tell the bucket to expire what is left behind, as a second net below the service's own tidying.

    It replaces the bucket's other rules.
    """
    settings = operator_settings()
    _set_lifecycle(_bucket(settings), settings, days)


def _set_lifecycle(storage: "S3Storage", settings: SharedSettings, days: int | None) -> None:
    # A file that is sent again stays for as long as media is kept, and is replaced when it is older than that.
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
        raise click.ClickException("only storage in S3 has a bucket with a life cycle")
    with _sentences():
        return cast("S3Storage", open_storage(settings.storage))


@contextmanager
def _sentences() -> Iterator[None]:
    """End the command with a sentence where storage fails or its configuration is wrong."""
    try:
        yield
    except ConfigurationError as error:
        raise click.ClickException(str(error)) from error
    except StorageError as error:
        raise click.ClickException(f"{error}: {error.__cause__}") from error


if __name__ == "__main__":
    sys.exit(commands())
