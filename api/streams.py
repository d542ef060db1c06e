"""Endpoints of live streams: begin, get, list, stop and erase one."""

import hashlib
import json
import uuid
from functools import partial
from typing import Any

from flask import Response
from flask_openapi3 import APIBlueprint, Tag
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from api.acceptance import check_options
from api.admission import CAPACITY_RETRY_AFTER_S, check_capacity, hold_place
from api.audit import current_actor
from api.auth import caller, requires
from api.documentation import SECURITY, authenticated_problems
from api.errors import APIError
from api.ownership import find_own_job, lock_own_job
from api.paging import newest_first, page_limit
from api.responses import accepted_response, document_response
from api.schemas import IdempotencyHeaders, StreamPath, StreamQuery, StreamRequest, StreamsQuery
from api.services import Services, current_services
from shared.audit import record_event
from shared.cursors import write_cursor
from shared.db import after_commit
from shared.documents.streams import StreamDocument, StreamList, StreamSummary
from shared.errors import Code
from shared.jobs.creation import NewJob
from shared.jobs.ending import delete_job
from shared.manifests import Manifest, find_manifest
from shared.models import Job, Stream
from shared.observability import JOBS_ACCEPTED
from shared.outbound import check_source_url
from shared.streams.cleanup import find_stream
from shared.streams.creation import NewStream, count_open_streams, create_stream
from shared.streams.ending import request_stop
from shared.streams.events import read_events
from shared.streams.keys import PUSH_APPLICATION, new_push_key
from shared.streams.pushing import replace_key

blueprint = APIBlueprint("streams", __name__, url_prefix="/v1", abp_tags=[Tag(name="streams")], abp_security=SECURITY)


@blueprint.post(
    "/streams", operation_id="beginStream", responses={202: StreamDocument, **authenticated_problems(409, 422)}
)
@requires("jobs:write")
def begin(header: IdempotencyHeaders, body: StreamRequest) -> Response:
    """
    Begin to watch a live stream.

    The answer comes before the source is connected: follow the stream by its events or its webhooks. The credentials in
    `secret` are never returned. With `push`, the answer has the address and the key for the publisher; the key is shown
    only here. A repetition with the same `Idempotency-Key` answers with a new key in its place, as long as nobody has
    published.
    """
    services = current_services()
    settings = services.settings
    options = body.model_dump(exclude_none=True, exclude={"secret"})
    if body.url is not None:
        check_source_url(body.url, allow_insecure=settings.webhooks.allow_insecure)
    check_options(services, options)
    if body.duration_limit_s > settings.streams.max_duration_s:
        raise APIError(
            Code.INVALID_REQUEST,
            f"duration_limit_s must be at most {settings.streams.max_duration_s:g} (streams.max_duration_s)",
        )
    manifest = find_manifest(settings.models.dir, body.model or settings.models.default)
    with services.sessions.transaction() as session:
        check_capacity(session, settings.api, caller().owner, header.idempotency_key, stores_file=False)
    document, is_new = _create(services, body, options, manifest, header.idempotency_key)
    response = accepted_response(document, f"/v1/streams/{document.id}", is_new=is_new)
    response.headers["Cache-Control"] = "private, no-store"
    return response


@blueprint.get(
    "/streams/<string:stream_id>",
    operation_id="getStream",
    responses={200: StreamDocument, **authenticated_problems(404, 422)},
)
@requires("jobs:read")
def get(path: StreamPath, query: StreamQuery) -> Response:
    """
    Get a stream: its state, the people of the last half minute, and its events after `after`.

    With `wait_s`, the answer waits until there is such an event. An ended stream is answered at once.
    """
    services = current_services()
    if query.after is not None and query.wait_s:
        wait_for_event(services, path.stream_id, query.after, min(query.wait_s, services.settings.api.max_wait_s))
    with services.sessions.transaction() as session:
        job, stream = find_own_stream(session, path.stream_id)
        events = [] if query.after is None else read_events(session, job.id, after=query.after)
        document = StreamDocument.from_rows(job, stream, list(events))
    response = document_response(document)
    response.headers["Cache-Control"] = "private, no-store"
    return response


@blueprint.get("/streams", operation_id="listStreams", responses={200: StreamList, **authenticated_problems(422)})
@requires("jobs:read")
def list_streams(query: StreamsQuery) -> Response:
    """List your streams, newest first, without their people and events."""
    services = current_services()
    limit = page_limit(services, query)
    wanted = select(Job, Stream).join(Stream, Stream.job_id == Job.id)
    wanted = wanted.where(Job.owner == caller().owner, Job.deleted_at.is_(None))
    if query.status is not None:
        wanted = wanted.where(Job.status == query.status)
    wanted = newest_first(wanted, Job, query, limit)
    with services.sessions.transaction() as session:
        rows = session.execute(wanted).all()
        items = [StreamSummary.from_stream(job, stream) for job, stream in rows[:limit]]
    more = len(rows) > limit
    return document_response(StreamList(items=items, next_cursor=write_cursor(items[-1].id) if more else None))


@blueprint.post(
    "/streams/<string:stream_id>/stop",
    operation_id="stopStream",
    responses={200: StreamDocument, **authenticated_problems(404, 422)},
)
@requires("jobs:write")
def stop(path: StreamPath) -> Response:
    """
    Stop reading a stream, and have what was read judged.

    Its end follows within seconds, as the event `ended` and the webhook `stream.ended`. Stopping it again changes
    nothing.
    """
    with current_services().sessions.transaction() as session:
        job, stream = lock_own_stream(session, path.stream_id)
        if not job.is_final:
            if stream.stop_requested_at is None:
                record_event(session, "stream.stopped", owner=job.owner, actor=current_actor(), job_id=job.id)
            # Also if it was requested before: the reader that was to do it may have died since.
            request_stop(session, job, stream)
            session.flush()
            session.refresh(job)
            session.refresh(stream)
        document = StreamDocument.from_rows(job, stream, [])
    return document_response(document)


@blueprint.delete(
    "/streams/<string:stream_id>",
    operation_id="deleteStream",
    responses={"204": {"description": "Erased."}, **authenticated_problems(404, 422)},
)
@requires("jobs:write")
def delete(path: StreamPath) -> Response:
    """Erase a stream with its results, events, deliveries and recorded pieces; one that is being read ends at once."""
    with current_services().sessions.transaction() as session:
        job, _ = lock_own_stream(session, path.stream_id)
        delete_job(session, job)
        record_event(session, "stream.erased", owner=job.owner, actor=current_actor(), job_id=job.id)
    return Response(status=204)


def find_own_stream(session: Session, stream_id: uuid.UUID) -> tuple[Job, Stream]:
    """Return the caller's stream with its job. Raises APIError with ``not_found``."""
    return _with_stream(session, find_own_job(session, stream_id))


def lock_own_stream(session: Session, stream_id: uuid.UUID) -> tuple[Job, Stream]:
    """Return the caller's stream with its job, locked until the transaction ends; see ``find_own_stream``."""
    return _with_stream(session, lock_own_job(session, stream_id))


def wait_for_event(services: Services, stream_id: uuid.UUID, after: int, wait_s: float) -> None:
    """Wait until the caller's stream has an event after the number *after*, has ended, or *wait_s* seconds are over."""
    if not services.waiting.acquire(blocking=False):
        # As for jobs: too many requests wait already, and this one is answered at once.
        return
    try:
        services.listener.wait(stream_id, partial(has_event, services, caller().owner, stream_id, after), wait_s)
    except SQLAlchemyError:
        # The answer itself will say so.
        return
    finally:
        services.waiting.release()


def has_event(services: Services, owner: str, stream_id: uuid.UUID, after: int) -> bool:
    """Return whether the stream of *owner* has an event after the number *after*, has ended, or does not exist."""
    wanted = select(Stream.last_seq, Stream.ended_at).join(Job, Job.id == Stream.job_id)
    with services.sessions.transaction() as session:
        row = session.execute(wanted.where(Job.id == stream_id, Job.owner == owner)).one_or_none()
    return row is None or row.last_seq > after or row.ended_at is not None


def _with_stream(session: Session, job: Job) -> tuple[Job, Stream]:
    stream = find_stream(session, job.id)
    if stream is None:
        raise APIError(Code.NOT_FOUND, f"job {job.id} is not a stream")
    return job, stream


def _create(
    services: Services,
    body: StreamRequest,
    options: dict[str, Any],
    manifest: Manifest,
    idempotency_key: str | None,
) -> tuple[StreamDocument, bool]:
    """Commit the stream. Return its document, and whether it is new."""
    secret = body.secret
    push_key = None if body.push is None else new_push_key()
    new = NewStream(
        url=body.url or _push_address(services),
        username=None if secret is None else secret.username,
        password=None if secret is None or secret.password is None else secret.password.get_secret_value(),
        duration_limit_s=body.duration_limit_s,
        alert_threshold=body.alert_threshold,
        record=body.record,
        last_faces=bool(body.last_faces),
        push_key=push_key,
    )
    with services.sessions.transaction() as session:
        hold_place(session, services.settings.api, caller().owner, idempotency_key)
        job, is_new = create_stream(
            session,
            NewJob(
                owner=caller().owner,
                api_key_id=caller().key_id,
                media=None,
                source_url=None,
                source_key=None,
                source_sha256=None,
                manifest=manifest.pin(),
                sample_fps=body.sample_fps or manifest.sampling.sample_fps,
                segment_seconds=body.segment_seconds or manifest.sampling.segment_seconds,
                webhook_url=body.webhook_url,
                webhook_events=body.webhook_events,
                metadata=body.metadata or {},
                idempotency_key=idempotency_key,
                # Without the secret: a digest of a password could be guessed, and outlives the stream.
                request_sha256=hashlib.sha256(json.dumps({"stream": options}, sort_keys=True).encode()).hexdigest(),
            ),
            new,
        )
        job, stream = _with_stream(session, job)
        if is_new:
            _check_open_streams(session, services)
            record_event(session, "stream.begun", owner=job.owner, actor=current_actor(), job_id=job.id)
            after_commit(session).count(JOBS_ACCEPTED.labels(source="stream").inc)
        elif push_key is not None and not replace_key(session, job.id, push_key):
            push_key = None
        return StreamDocument.from_rows(job, stream, [], push_key), is_new


def _push_address(services: Services) -> str:
    """Return the address for publishers. Raises APIError where the service has none."""
    address = services.settings.streams.push_address
    if address is None:
        raise APIError(
            Code.INVALID_REQUEST,
            "streams cannot be published to this service (streams.push_address is not set); give the url of a source",
        )
    return f"{address}/{PUSH_APPLICATION}"


def _check_open_streams(session: Session, services: Services) -> None:
    """Refuse a stream that is one too many, with the transaction that has just made it."""
    limit = services.settings.streams.max_open_per_owner
    if count_open_streams(session, caller().owner) > limit:
        raise APIError(
            Code.TOO_MANY_OPEN_JOBS,
            f"you have {limit} open streams, as many as streams.max_open_per_owner allows; stop one first",
            headers={"Retry-After": str(CAPACITY_RETRY_AFTER_S)},
        )
