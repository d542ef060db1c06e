"""The report of a job: what its page says, and the page as one file."""

from pathlib import Path
from typing import Any, Final

from flask import Response, render_template
from sqlalchemy.orm import Session

from api.auth import requires
from api.documentation import authenticated_problems
from api.jobs import blueprint
from api.ownership import find_own_job
from api.schemas import JobPath
from api.services import current_services
from api.web.explained import inline_explained
from api.web.provenance_wording import explain_provenance
from api.web.timeline import clock, draw_timeline
from api.web.wording import (
    explain_error_rates,
    explain_finding,
    explain_reason,
    explain_verdict,
    list_cautions,
    make_printable,
)
from shared.documents.jobs import JobDocument
from shared.errors import ModelError, UnknownModelError
from shared.jobs.segments import read_segment_page, read_segments
from shared.manifests import find_manifest
from shared.models import Job
from shared.states import FINAL_JOB_STATUSES

CARD_FILE: Final = "MODEL_CARD.md"
STYLES: Final = Path(__file__).parent / "static" / "pages.css"
PAGE_SEGMENTS: Final = 1000


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
        values["explained"] = inline_explained(services, session, job.id)
    page = render_template("report.html", **values, token=None, styles=STYLES.read_text("utf-8"))
    response = Response(page, mimetype="text/html")
    response.headers["Content-Disposition"] = f'attachment; filename="report-{path.job_id}.html"'
    response.headers["Content-Security-Policy"] = (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox"
    )
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
    card, metrics = _read_checkpoint(models_dir, document.model or {})
    title, meaning = explain_verdict(document.verdict, document.reasons)
    return {
        "job": document,
        "is_final": document.status in FINAL_JOB_STATUSES,
        "title": title,
        "meaning": meaning,
        "reasons": [explain_reason(reason) for reason in document.reasons],
        "cautions": list_cautions(document),
        "finding": explain_finding(document.review["finding"]) if document.review else None,
        "timeline": draw_timeline(segments, document.evidence, document.suspicious or []),
        "is_image": document.media is not None and document.media.kind == "image",
        "is_one_page": document.media is not None and document.media.kind == "image" and len(segments) == 1,
        "is_stored": document.media is not None and document.media.stored,
        "filename": _read_filename(document.metadata),
        "provenance": explain_provenance(document.provenance),
        "model_card": card,
        "error_rates": explain_error_rates(metrics),
        "printable": make_printable,
        "clock": clock,
    }


def _read_filename(metadata: dict[str, Any]) -> str | None:
    """Return the file name in the metadata of a job, where the page with the upload puts it, fit to be shown."""
    name = metadata.get("filename")
    return make_printable(name) if isinstance(name, str) and name else None


def _read_checkpoint(models_dir: Path, model: dict[str, Any]) -> tuple[str | None, dict[str, float]]:
    """Return card and metrics of the checkpoint that judged the job, if that very checkpoint is installed."""
    try:
        manifest = find_manifest(models_dir, str(model.get("name")))
        if manifest.weights.sha256 != model.get("weights_sha256"):
            return None, {}
        return (models_dir / manifest.name / CARD_FILE).read_text("utf-8"), manifest.metrics
    except (OSError, UnknownModelError, ModelError):
        return None, {}
