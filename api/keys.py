"""
Creation, listing and revocation of API keys by an operator with access to the database.

The commands are run as ``deepfakestream keys`` or ``python -m api.keys``. They do not need Flask.
"""

import base64
import hashlib
import json
import re
import secrets
import sys
import unicodedata
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from shared.audit import OPERATOR, Actor, record_event
from shared.config import ConfigurationError, SharedSettings, load_settings
from shared.db import SessionFactory, make_engine
from shared.models import APIKey

SCOPES = ("jobs:write", "jobs:read", "admin")
PREFIX = "dfs_"
SHOWN_CHARACTERS = 12
MAX_LABEL = 200
"""The most characters of an owner's and of a key's name."""
_INVISIBLE = re.compile(
    # Default_Ignorable_Code_Point, without characters that are not printable in Python.
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef"
    # Letters and symbols that look blank: Braille without dots, a Khitan filler, a note without head.
    "\u2800\U00016fe4\U0001d159]"
)
"""Invisible characters that ``str.isprintable`` accepts."""


class InvalidKeyError(ValueError):
    """The values for a key are invalid; the message says why."""


@dataclass(frozen=True, slots=True)
class NewKey:
    """A new key. Its secret is known only at this moment."""

    row: APIKey
    secret: str
    """``dfs_…``, which the client sends."""


def digest_key(secret: str) -> bytes:
    """Return the digest that is stored instead of the key."""
    return hashlib.sha256(secret.encode()).digest()


def check_label(what: str, value: str) -> None:
    """
    Refuse an owner or a name with invisible characters, or that is not in Unicode's normal form NFKC.

    Two different accepted labels therefore differ in a visible character. Letters of different scripts that look alike,
    such as the Latin and the Cyrillic a, are different characters and are accepted.

    Args:
        what: ``owner`` or ``name``, for the message.
        value: The label.

    Raises:
        InvalidKeyError: The label is empty, blank or too long, begins or ends with a blank, has invisible characters,
            or is not in form NFKC.
    """
    if not value.strip():
        raise InvalidKeyError(f"the {what} is empty: give it at least one visible character")
    if len(value) > MAX_LABEL:
        raise InvalidKeyError(f"the {what} has {len(value)} characters; the limit is {MAX_LABEL}")
    invisible = next((sign for sign in value if not sign.isprintable() or _INVISIBLE.match(sign)), None)
    if invisible is not None:
        raise InvalidKeyError(f"the {what} has the invisible character U+{ord(invisible):04X}: leave it out")
    if value != value.strip():
        raise InvalidKeyError(f"the {what} begins or ends with a blank: leave it out")
    normal = unicodedata.normalize("NFKC", value)
    if value != normal:
        raise InvalidKeyError(f"the {what} is not in Unicode's normal form NFKC: write it as {normal!r}")


def create_key(session: Session, *, owner: str, name: str, scopes: list[str]) -> NewKey:
    """
    Create a key with 256 random bits and its webhook secret.

    Args:
        owner: The owner whose jobs the key can access; 1 to 200 visible characters in form NFKC, with blanks only
            between them.
        name: The purpose of the key, with the same rules.
        scopes: Some of SCOPES.

    Raises:
        InvalidKeyError: The owner or the name is not a valid label (see check_label), or a scope does not exist.
    """
    check_label("owner", owner)
    check_label("name", name)
    if unknown := sorted(set(scopes) - set(SCOPES)):
        raise InvalidKeyError(f"unknown scope {unknown[0]!r}; known are {', '.join(SCOPES)}")
    secret = PREFIX + secrets.token_urlsafe(32)
    row = APIKey(
        owner=owner,
        name=name,
        prefix=secret[:SHOWN_CHARACTERS],
        secret_sha256=digest_key(secret),
        scopes=scopes,
        webhook_secret="whsec_" + base64.b64encode(secrets.token_bytes(32)).decode(),
    )
    session.add(row)
    session.flush()
    session.refresh(row)
    record_event(
        session, "key.created", owner=owner, actor=Actor(OPERATOR), key_id=str(row.id), name=name, scopes=scopes
    )
    return NewKey(row, secret)


def revoke_key(session: Session, key_id: uuid.UUID) -> bool:
    """Revoke the key. Return False if it does not exist."""
    row = session.get(APIKey, key_id, with_for_update=True)
    if row is None:
        return False
    if row.revoked_at is None:
        row.revoked_at = func.now()
        record_event(session, "key.revoked", owner=row.owner, actor=Actor(OPERATOR), key_id=str(row.id), name=row.name)
    return True


def _document(row: APIKey) -> dict[str, Any]:
    return {
        "id": str(row.id),
        "owner": row.owner,
        "name": row.name,
        "prefix": row.prefix,
        "scopes": row.scopes,
        "created_at": row.created_at.isoformat(),
        "revoked_at": row.revoked_at.isoformat() if row.revoked_at else None,
    }


def _visible(text: str) -> str:
    """Escape *text* for a terminal, since labels of keys from older releases may contain any character."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def operator_settings() -> SharedSettings:
    """Load the settings for a command. Invalid settings end the command."""
    try:
        return load_settings(SharedSettings)
    except ConfigurationError as error:
        raise click.ClickException(str(error)) from error


def in_transaction(work: Callable[[Session], Any]) -> Any:
    """Run *work* in one transaction on the configured database and return its result."""
    engine = make_engine(operator_settings().database)
    try:
        with SessionFactory(engine).transaction() as session:
            return work(session)
    except SQLAlchemyError as error:
        raise click.ClickException("the database is unavailable or has no schema yet") from error
    finally:
        engine.dispose()


@click.group("keys")
def commands() -> None:
    """Manage API keys in the configured database."""


@commands.command("create")
@click.option("--owner", required=True, help="Owner whose jobs the key can access.")
@click.option("--name", required=True, help="Purpose of the key.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice(SCOPES),
    help="Repeatable; by default jobs:write and jobs:read.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def create(owner: str, name: str, scopes: tuple[str, ...], as_json: bool) -> None:
    """Create a key. The key and its webhook secret are shown only once."""
    chosen = list(dict.fromkeys(scopes)) or ["jobs:write", "jobs:read"]

    def work(session: Session) -> dict[str, Any]:
        key = create_key(session, owner=owner, name=name, scopes=chosen)
        return {**_document(key.row), "key": key.secret, "webhook_secret": key.row.webhook_secret}

    try:
        made = in_transaction(work)
    except InvalidKeyError as error:
        raise click.UsageError(str(error)) from error
    if as_json:
        click.echo(json.dumps(made))
        return
    click.echo(f"key             {made['key']}\nwebhook secret  {made['webhook_secret']}\nid              {made['id']}")
    click.echo("Keep both; they are not shown again.", err=True)


@commands.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def list_keys(as_json: bool) -> None:
    """List all keys, newest first, without their secrets."""
    query = select(APIKey).order_by(APIKey.id.desc())
    rows = in_transaction(lambda session: [_document(row) for row in session.scalars(query)])
    for row in rows:
        if as_json:
            click.echo(json.dumps(row))
            continue
        state = "revoked" if row["revoked_at"] else "active"
        owner, name = _visible(row["owner"]), _visible(row["name"])
        click.echo(f"{row['id']}  {row['prefix']}...  {state:8}{owner:16}{name:20}{','.join(row['scopes'])}")


@commands.command("revoke")
@click.argument("key_id", type=click.UUID)
def revoke(key_id: uuid.UUID) -> None:
    """Revoke a key."""
    if not in_transaction(lambda session: revoke_key(session, key_id)):
        raise click.ClickException(f"there is no key {key_id}")
    click.echo(f"revoked {key_id}")


if __name__ == "__main__":
    sys.exit(commands())
