"""
The actor of audit events in requests, and the command that prints the audit log.

It is run as ``deepfakestream audit`` or ``python -m api.audit`` with access to the database.
"""

import json
import sys
import uuid
from datetime import UTC, datetime

import click
from flask import g, request
from sqlalchemy.orm import Session

from api.auth import caller
from api.keys import in_transaction
from shared.audit import Actor, list_events


def current_actor() -> Actor:
    """Return the actor of the current request."""
    found = caller()
    return Actor(found.name, found.key_id, request.remote_addr, g.get("request_id"))


@click.command("audit")
@click.option("--since", type=click.DateTime(), help="UTC, such as 2026-01-31 or 2026-01-31T12:00:00.")
@click.option("--owner", help="Only events of this owner.")
@click.option("--job", "job_id", type=click.UUID, help="Only events of this job.")
def commands(since: datetime | None, owner: str | None, job_id: uuid.UUID | None) -> None:
    """Print who did what and when, oldest first, as one JSON object a line."""

    def work(session: Session) -> None:
        start = since.replace(tzinfo=UTC) if since is not None else None
        for event in list_events(session, since=start, owner=owner, job_id=job_id):
            values = {
                "at": event.at.isoformat(),
                "action": event.action,
                "owner": event.owner,
                "actor": event.actor,
                "api_key_id": str(event.api_key_id) if event.api_key_id else None,
                "job_id": str(event.job_id) if event.job_id else None,
                "address": event.address,
                "request_id": event.request_id,
                "detail": event.detail,
            }
            click.echo(json.dumps(values))

    in_transaction(work)


if __name__ == "__main__":
    sys.exit(commands())
