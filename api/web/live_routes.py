"""A live stream while it runs, for those who have a link to its report: server-sent events, or polling."""

import json
import time
import uuid
from collections.abc import Iterator
from typing import Any, Final

from flask import Response, request, stream_with_context
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from api.errors import APIError
from api.last_faces import send_face
from api.services import Services, current_services
from api.web.live import describe_event, describe_present
from api.web.pages import (
    MAX_STREAM_S,
    PROGRESS_INTERVAL_S,
    RECONNECT_MS,
    blueprint,
    event_stream,
    find_linked_job,
    take_watching_slots,
)
from shared.errors import Code
from shared.models import Stream
from shared.streams.cleanup import find_stream
from shared.streams.events import MAX_EVENTS, read_events

HEARTBEAT_S: Final = 5.0
"""A comment is sent after this time without news, which shows in time that the browser has gone."""


@blueprint.get("/jobs/<uuid:job_id>/report/live")
def live(job_id: uuid.UUID) -> Response:
    """
    Stream a live stream as server-sent events, until it ends or a minute is over; browsers connect again.

    The events of the stream come with their numbers as ids, so that they go on after ``Last-Event-ID``. Each message
    without a name is the state at present. Where all slots are taken, the connection ends after the first of them, as
    that of the progress of a job does; see ``pages.events``.
    """
    services = current_services()
    found, after, is_whole = _read(services, job_id, _read_after(request.headers.get("Last-Event-ID")))
    opening = f"retry: {RECONNECT_MS}\n\n{_write(found)}"
    slots = take_watching_slots(services)
    if slots is None:
        return event_stream(opening)
    response = event_stream(stream_with_context(_follow(services, job_id, opening, found["present"], after, is_whole)))
    # Proxies would collect events otherwise.
    response.headers["X-Accel-Buffering"] = "no"
    # Not in the generator, whose ``finally`` does not run if the browser has gone before it begins.
    for slot in slots:
        response.call_on_close(slot.release)
    return response


@blueprint.get("/jobs/<uuid:job_id>/report/live/state")
def live_state(job_id: uuid.UUID) -> Response:
    """Return the events after ``after`` and the state at present, for pages whose browser cannot listen to ``live``."""
    found, _, _ = _read(current_services(), job_id, _read_after(None))
    response = Response(json.dumps(found), mimetype="application/json")
    response.headers["Cache-Control"] = "no-store"
    return response


@blueprint.get("/jobs/<uuid:job_id>/report/live/faces/<int:person>")
def live_face(job_id: uuid.UUID, person: int) -> Response:
    """Send the picture of a person's newest face, if the stream was asked to keep them while it runs."""
    if person >= 2**31:
        raise APIError(Code.NOT_FOUND, "there is no such person")
    with current_services().sessions.transaction() as session:
        return send_face(session, find_linked_job(session, job_id).id, person)


def _follow(
    services: Services, job_id: uuid.UUID, opening: str, present: dict[str, Any], after: int, is_whole: bool
) -> Iterator[str]:
    deadline, spoke = time.monotonic() + MAX_STREAM_S, time.monotonic()

    def is_news() -> bool:
        with services.sessions.transaction() as session:
            row = session.execute(select(Stream.last_seq, Stream.ended_at).where(Stream.job_id == job_id)).one_or_none()
        return row is None or row.last_seq > after or row.ended_at is not None

    yield opening
    try:
        while not present["is_final"] and time.monotonic() < deadline:
            if is_whole:
                services.listener.wait(job_id, is_news, PROGRESS_INTERVAL_S)
            found, after, is_whole = _read(services, job_id, after)
            if found["events"] or found["present"] != present:
                spoke = time.monotonic()
                yield _write(found)
            elif time.monotonic() - spoke > HEARTBEAT_S:
                spoke = time.monotonic()
                yield ": \n\n"
            present = found["present"]
            if services.listener.is_ending_waits:
                return
    except (APIError, SQLAlchemyError):
        # The link was revoked, or the database is unavailable: the page connects again, or learns why it cannot.
        return


def _read(services: Services, job_id: uuid.UUID, after: int) -> tuple[dict[str, Any], int, bool]:
    """Return what is new after an event, the number of the last event, and whether there were no more of them."""
    with services.sessions.transaction() as session:
        job = find_linked_job(session, job_id)
        stream = _find_stream(session, job_id)
        events = read_events(session, job_id, after=after)
        found = {
            "events": [{"kind": event.kind, **describe_event(event)} for event in events],
            "present": describe_present(job, stream, services.settings.streams.window_s),
        }
        return found, events[-1].seq if events else after, len(events) < MAX_EVENTS


def _find_stream(session: Session, job_id: uuid.UUID) -> Stream:
    stream = find_stream(session, job_id)
    if stream is None:
        raise APIError(Code.NOT_FOUND, f"job {job_id} is not a stream")
    return stream


def _read_after(given: str | None) -> int:
    """Return the number of the event to go on after: *given* by the browser, or else in the address; 0 by default."""
    text = given if given is not None else request.args.get("after", "0")
    # Of bounded length, since numbers in the database are.
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise APIError(Code.INVALID_REQUEST, "after and Last-Event-ID must be the number of an event")
    return int(text)


def _write(found: dict[str, Any]) -> str:
    """Return events and state as server-sent events. JSON has no line breaks outside of strings, and escapes those."""
    lines = [f"id: {event['seq']}\nevent: {event['kind']}\ndata: {json.dumps(event)}\n\n" for event in found["events"]]
    return "".join([*lines, f"data: {json.dumps(found['present'])}\n\n"])
