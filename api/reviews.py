"""
Reviews: what a person found, recorded beside the outcome of a job; and their export for evaluation.

Found by the command line as ``deepfakestream reviews``; also ``python -m api.reviews``.
"""

import csv
import json
import sys
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import click
from flask import Response
from sqlalchemy import func, select
from sqlalchemy.orm import Session, selectinload

from api.audit import current_actor
from api.auth import caller, requires
from api.documentation import authenticated_problems
from api.errors import APIError
from api.jobs import blueprint
from api.keys import in_transaction
from api.metadata import measure_json
from api.ownership import lock_own_job
from api.responses import document_response
from api.schemas import JobPath, ReviewRequest
from api.services import current_services
from shared.audit import record_event
from shared.documents.reviews import ReviewDocument
from shared.errors import Code
from shared.models import Job


@blueprint.put(
    "/jobs/<string:job_id>/review",
    operation_id="reviewJob",
    responses={200: ReviewDocument, **authenticated_problems(404, 409, 422)},
)
@requires("jobs:write")
def review(path: JobPath, body: ReviewRequest) -> Response:
    """
    Record what a person found, in place of an earlier finding.

    The verdict stays as it is. The audit log keeps every finding, without its note.
    """
    measure_json("note", body.note)
    with current_services().sessions.transaction() as session:
        job = lock_own_job(session, path.job_id)
        if not job.is_final:
            raise APIError(Code.JOB_NOT_FINAL, f"job {job.id} has not ended; review it when it has")
        document = ReviewDocument(
            finding=body.finding, note=body.note, reviewed_at=_now(session), reviewer=caller().name
        )
        job.review = document.to_json()
        record_event(
            session, "job.reviewed", owner=job.owner, actor=current_actor(), job_id=job.id, finding=body.finding.value
        )
    return document_response(document)


@blueprint.delete(
    "/jobs/<string:job_id>/review",
    operation_id="withdrawReview",
    responses={"204": {"description": "Withdrawn."}, **authenticated_problems(404, 422)},
)
@requires("jobs:write")
def withdraw(path: JobPath) -> Response:
    """Withdraw the finding; a job without one stays as it is."""
    with current_services().sessions.transaction() as session:
        job = lock_own_job(session, path.job_id)
        if job.review is not None:
            job.review = None
            record_event(session, "job.reviewed", owner=job.owner, actor=current_actor(), job_id=job.id, finding=None)
    return Response(status=204)


def _now(session: Session) -> datetime:
    """Return the database's time, which is that of all rows."""
    return session.execute(select(func.now())).scalar_one()


@click.group("reviews")
def commands() -> None:
    """Findings of people, on the database that the configuration names."""


@commands.command("export")
@click.option("--owner", help="Only this owner's.")
@click.option("--csv", "as_csv", is_flag=True, help="Print a table with a heading instead of one JSON object a line.")
def export(owner: str | None, as_csv: bool) -> None:
    """
    Print the reviewed media with finding and verdict, oldest first, for evaluation.

    Media is named by its SHA-256 alone. Notes are left out: they may name people.
    """

    def work(session: Session) -> None:
        writer = csv.DictWriter(sys.stdout, fieldnames=LABEL_FIELDS, lineterminator="\n")
        if as_csv:
            writer.writeheader()
        for label in labels(session, owner):
            if as_csv:
                writer.writerow(label)
            else:
                click.echo(json.dumps(label))

    in_transaction(work)


LABEL_FIELDS = ("sha256", "finding", "verdict", "fake_score", "model", "weights_sha256", "job_id", "reviewed_at")


def labels(session: Session, owner: str | None = None) -> Iterator[dict[str, Any]]:
    """Yield the values of ``LABEL_FIELDS`` of each reviewed job whose media is known, oldest first."""
    query = select(Job).options(selectinload(Job.media)).where(Job.review.is_not(None), Job.deleted_at.is_(None))
    if owner is not None:
        query = query.where(Job.owner == owner)
    for job in session.scalars(query.order_by(Job.id).execution_options(yield_per=500)):
        if job.media is None or job.review is None:
            continue
        yield {
            "sha256": job.media.sha256,
            "finding": job.review["finding"],
            "verdict": job.verdict,
            "fake_score": job.fake_score,
            "model": job.model,
            "weights_sha256": (job.model_description or {}).get("weights_sha256"),
            "job_id": str(job.id),
            "reviewed_at": job.review["reviewed_at"],
        }


if __name__ == "__main__":
    sys.exit(commands())
