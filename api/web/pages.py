"""
Pages for people: the list of jobs with an upload, and the report of a job.

The list asks the API with a key that the browser holds. The report needs no key but the token of its link, see
``api.shares``; it works without scripts, which add the picture in step with the timeline.
"""

import json
import time
import uuid
from collections.abc import Iterator
from functools import partial
from http import HTTPStatus
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any, BinaryIO, Final

from flask import Blueprint, Response, current_app, render_template, request, stream_with_context, url_for
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from werkzeug.wsgi import FileWrapper

from api.errors import APIError
from api.services import Services, current_services
from api.shares import find_shared
from api.slots import take_slot
from api.web.explained import describe_explained
from api.web.live import describe_live
from api.web.report import collect_report, send_pdf
from shared.errors import Code
from shared.jobs.explanations import find_explanation
from shared.jobs.segments import count_done
from shared.models import Job

blueprint = Blueprint(
    "web", __name__, template_folder="templates", static_folder="static", static_url_path="/web/static"
)

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
NO_REPORT: Final = "this link is wrong, has expired or was revoked"
MAX_STREAM_S: Final = 60
"""Length of one stream of progress; the page connects again."""
PROGRESS_INTERVAL_S: Final = 1.0
RECONNECT_MS: Final = 2000
"""How long browsers wait before they connect again to a stream that has ended."""
MAX_RANGE_BYTES: Final = 2 * 1024 * 1024
"""The most that one answer to a request for a range has. Players request the rest when they need it, so that a video
that is paused does not hold a thread."""
MEDIA_BLOCK_BYTES: Final = 256 * 1024
VIEWING_WAIT_S: Final = 0.5
"""How long a request for media waits for a slot: answers with a range end soon."""
BUSY_RETRY_S: Final = 2
MEDIA_TYPES: Final = {
    "mp4": "video/mp4",
    "mov": "video/mp4",
    "3gp": "video/3gpp",
    "webm": "video/webm",
    "matroska": "video/x-matroska",
    "avi": "video/x-msvideo",
    "mpegts": "video/mp2t",
    "mpegps": "video/mpeg",
    "flv": "video/x-flv",
    "jpeg": "image/jpeg",
    "png": "image/png",
    "gif": "image/gif",
    "webp": "image/webp",
    "bmp": "image/bmp",
    "tiff": "image/tiff",
    "heic": "image/heic",
    "avif": "image/avif",
}
"""Media types of containers. Browsers do not play all of them; the report says so where they do not."""


def jobs() -> Response:
    """Show the list of jobs, with an upload. Everything in it comes from the API, by the key that is typed in."""
    return page_response("jobs.html")


@blueprint.get("/jobs/<uuid:job_id>/report")
def report(job_id: uuid.UUID) -> Response:
    """Show the report of a job to whoever has a link to it."""
    services = current_services()
    try:
        with services.sessions.transaction() as session:
            job = find_linked_job(session, job_id)
            values = collect_report(session, job, Path(services.settings.models.dir))
            values["explained"] = describe_explained(find_explanation(session, job_id), partial(_image_address, job_id))
            values["live"] = describe_live(session, job, services.settings.streams.window_s)
    except _NoReportError:
        if request.accept_mimetypes.quality("text/html") <= request.accept_mimetypes.quality("application/json"):
            raise
        page = page_response("no_report.html", sentence=NO_REPORT)
        page.status_code = HTTPStatus.NOT_FOUND
        return page
    return page_response("report.html", **values, token=request.args["token"])


@blueprint.get("/jobs/<uuid:job_id>/report/pdf")
def report_as_pdf(job_id: uuid.UUID) -> Response:
    """Send the report as a PDF to whoever has a link to it."""
    return send_pdf(current_services(), lambda session: find_linked_job(session, job_id))


@blueprint.get("/jobs/<uuid:job_id>/report/state")
def state(job_id: uuid.UUID) -> Response:
    """Return how far the job is, for pages whose browser cannot listen to ``events``."""
    response = Response(json.dumps(_read_progress(current_services(), job_id)), mimetype="application/json")
    response.headers["Cache-Control"] = "no-store"
    return response


@blueprint.get("/jobs/<uuid:job_id>/report/events")
def events(job_id: uuid.UUID) -> Response:
    """
    Stream the progress of a job as server-sent events, until the job ends or a minute is over.

    Where all slots are taken, the stream ends after the first event, and browsers connect again by themselves. They
    are not refused: a page that somebody left holds its slot until the next event, so that a single person who opens
    one report after another could be refused by pages that are closed already.
    """
    services = current_services()
    first = _read_progress(services, job_id)
    opening = f"retry: {RECONNECT_MS}\ndata: {json.dumps(first)}\n\n"
    slots = take_watching_slots(services)
    if slots is None:
        return event_stream(opening)

    def has_ended() -> bool:
        return bool(_read_progress(services, job_id)["is_final"])

    def stream() -> Iterator[str]:
        last, deadline = first, time.monotonic() + MAX_STREAM_S
        yield opening
        try:
            while not last["is_final"] and time.monotonic() < deadline:
                # It returns early when the job ends, and when this process has been asked to stop.
                services.listener.wait(job_id, has_ended, PROGRESS_INTERVAL_S)
                now = _read_progress(services, job_id)
                # A comment shows in time that the browser has gone.
                yield ": \n\n" if now == last else f"data: {json.dumps(now)}\n\n"
                last = now
                if services.listener.is_ending_waits:
                    return
        except (APIError, SQLAlchemyError):
            # The link was revoked, or the database is unavailable: the page connects again, or learns why it cannot.
            return

    response = event_stream(stream_with_context(stream()))
    # Not in the generator, whose ``finally`` does not run if the browser has gone before it begins.
    for slot in slots:
        response.call_on_close(slot.release)
    return response


def take_watching_slots(services: Services) -> tuple[BoundedSemaphore, ...] | None:
    """Take what a page that is watched holds, for its caller to release; None where all are taken."""
    slots = (services.streaming, services.waiting)
    for number, slot in enumerate(slots):
        if not slot.acquire(blocking=False):
            for taken in slots[:number]:
                taken.release()
            return None
    return slots


def event_stream(events: str | Iterator[str]) -> Response:
    """Return *events* as a response of server-sent events."""
    response = Response(events, mimetype="text/event-stream")
    response.headers["Cache-Control"] = "no-store"
    return response


@blueprint.get("/jobs/<uuid:job_id>/report/media")
def media(job_id: uuid.UUID) -> Response:
    """Send the job's media, whole or the range that is requested, for the report to show."""
    services = current_services()
    with services.sessions.transaction() as session:
        job = find_linked_job(session, job_id)
        if job.media is None or job.media.storage_key is None:
            raise APIError(Code.MEDIA_MISSING, "the job's media is not stored any more")
        key, size_bytes = job.media.storage_key, job.media.size_bytes
        container = (job.media.facts or {}).get("container", "")
    _take_viewing_slot(services)
    try:
        file = _MediaFile(services.storage.open(key), services.viewing)
    except BaseException:
        services.viewing.release()
        raise
    try:
        response = Response(
            file, mimetype=MEDIA_TYPES.get(container, "application/octet-stream"), direct_passthrough=True
        )
        response.content_length = size_bytes
        response.headers["Cache-Control"] = "private, no-store"
        # Whatever the file is, it runs nothing.
        response.headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
        response.make_conditional(_shorten_range(size_bytes), accept_ranges=True, complete_length=size_bytes)
    except BaseException:
        file.close()
        raise
    return response


def _take_viewing_slot(services: Services) -> None:
    """Take a slot for media that is being sent."""
    take_slot(
        services.viewing,
        refusal="too many people are looking at media",
        retry_after_s=BUSY_RETRY_S,
        wait_s=VIEWING_WAIT_S,
    )


class _MediaFile(FileWrapper):
    """
    A stored file that is sent in blocks, and gives its slot back when it is closed.

    It is not the wrapper of the WSGI server, which cannot seek: a range would be read from the beginning of the file.
    """

    def __init__(self, file: BinaryIO, slots: BoundedSemaphore) -> None:
        super().__init__(file, MEDIA_BLOCK_BYTES)
        self._slots: BoundedSemaphore | None = slots

    def close(self) -> None:
        slots, self._slots = self._slots, None
        try:
            super().close()
        finally:
            if slots is not None:
                slots.release()


def _shorten_range(size_bytes: int) -> dict[str, Any]:
    """Return the WSGI environment of the request, with at most ``MAX_RANGE_BYTES`` in the range that it asks for."""
    span = None if request.range is None else request.range.range_for_length(size_bytes)
    if span is None:
        return request.environ
    start, stop = span
    return {**request.environ, "HTTP_RANGE": f"bytes={start}-{min(stop, start + MAX_RANGE_BYTES) - 1}"}


def _image_address(job_id: uuid.UUID, name: str) -> str:
    return url_for("web.explanation_image", job_id=job_id, name=name, token=request.args["token"])


def page_response(template: str, **values: Any) -> Response:
    """Return a page for people that loads nothing from elsewhere, and that nobody keeps or lists."""
    response = current_app.make_response(render_template(template, **values))
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["Cache-Control"] = "private, no-store"
    response.headers["X-Robots-Tag"] = "noindex"
    return response


class _NoReportError(APIError):
    """The link that was given shows nothing."""

    def __init__(self) -> None:
        super().__init__(Code.NOT_FOUND, NO_REPORT)


def find_linked_job(session: Session, job_id: uuid.UUID) -> Job:
    """Return the job that the link of the request shows."""
    job = find_shared(session, job_id, request.args.get("token", ""))
    if job is None:
        raise _NoReportError
    return job


def _read_progress(services: Services, job_id: uuid.UUID) -> dict[str, Any]:
    with services.sessions.transaction() as session:
        job = find_linked_job(session, job_id)
        return {
            "status": job.status,
            "is_final": job.is_final,
            "segments_done": count_done(session, [job])[job.id],
            "segments_total": job.segments_total,
        }
