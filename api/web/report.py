"""The report of a job: what its page says, and the page as one file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from flask import Response, render_template
from sqlalchemy.orm import Session

from api.auth import requires
from api.documentation import authenticated_problems
from api.jobs import blueprint
from api.ownership import find_own_job
from api.schemas import JobPath
from api.services import Services, current_services
from api.slots import take_slot
from api.web.contents import describe_report, read_styles
from api.web.explained import choose_faces, inline_explained
from api.web.pdf import render_pdf
from shared.documents.jobs import JobDocument
from shared.jobs.explanations import find_explanation
from shared.jobs.segments import read_segment_page, read_segments
from shared.models import Job
from shared.streams.cleanup import find_stream

PAGE_SEGMENTS: Final = 1000
BUSY_RETRY_S: Final = 2


@blueprint.get(
    "/jobs/<string:job_id>/report.html",
    operation_id="getReport",
    responses={
        "200": {"description": "One file.", "content": {"text/html": {"schema": {"type": "string"}}}},
        **authenticated_problems(404, 422),
    },
)
@requires("jobs:read")
def get_report(path: JobPath) -> Response:
    """
    Get the report of a job as one HTML file that needs nothing else, to be kept or handed on.

    It holds all numbers and words, and not the media. Where the faces of the job are explained, it holds their images.
    """
    services = current_services()
    with services.sessions.transaction() as session:
        job = find_own_job(session, path.job_id)
        values = collect_report(session, job, Path(services.settings.models.dir))
        explanation = find_explanation(session, job.id)
    values["explained"] = inline_explained(services, explanation)
    page = render_template("report.html", **values, token=None, styles=read_styles())
    response = Response(page, mimetype="text/html")
    response.headers["Content-Disposition"] = f'attachment; filename="report-{path.job_id}.html"'
    response.headers["Content-Security-Policy"] = (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox"
    )
    response.headers["Cache-Control"] = "private, no-store"
    return response


@blueprint.get(
    "/jobs/<string:job_id>/report.pdf",
    operation_id="getReportAsPdf",
    responses={
        "200": {
            "description": "A PDF.",
            "content": {"application/pdf": {"schema": {"type": "string", "format": "binary"}}},
        },
        **authenticated_problems(404, 422),
    },
)
@requires("jobs:read")
def get_report_as_pdf(path: JobPath) -> Response:
    """
    Get the report of a job as a PDF of a few pages, to be printed, kept or handed on.

    It holds the numbers and words, and not the media. Where the faces of the job are explained, it shows a few of them.
    """
    return send_pdf(current_services(), lambda session: find_own_job(session, path.job_id))


def send_pdf(services: Services, find_job: Callable[[Session], Job]) -> Response:
    """
    Set the report of a job and return it as a download.

    Args:
        find_job: Returns the job, or raises APIError if whoever asks may not see it.

    Raises:
        APIError: ``overloaded``: the process makes as many as it may already.
    """
    # Before anything is read: a long job has many segments.
    slot = take_slot(services.setting_pdf, refusal="too many PDF reports are being sent", retry_after_s=BUSY_RETRY_S)
    try:
        with services.sessions.transaction() as session:
            job = find_job(session)
            values = collect_report(session, job, Path(services.settings.models.dir))
            explanation = find_explanation(session, job.id)
        pdf = render_pdf(values, choose_faces(services, explanation))
    finally:
        slot.release()
    response = Response(pdf, mimetype="application/pdf")
    response.headers["Content-Disposition"] = f'attachment; filename="report-{values["job"].id}.pdf"'
    response.headers["Cache-Control"] = "private, no-store"
    return response


def collect_report(session: Session, job: Job, models_dir: Path) -> dict[str, Any]:
    """Return the values of the template ``report.html`` for *job*, but for the token of a link."""
    found = read_segments(session, job)
    document = JobDocument.from_job(job, found)
    segments, after = [*found.first.rows], found.first.last_index
    while after is not None:
        page = read_segment_page(session, job.id, after=after, limit=PAGE_SEGMENTS)
        segments += page.rows
        after = page.last_index
    return {**describe_report(document, segments, models_dir), "is_stream": find_stream(session, job.id) is not None}
