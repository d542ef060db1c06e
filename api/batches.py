"""Endpoints to submit, list, read, cancel and erase batches of jobs."""

import hashlib
import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from flask import Response
from pydantic import Field, ValidationError
from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from api.acceptance import check_options, start_job
from api.admission import CAPACITY_RETRY_AFTER_S, check_capacity, free_jobs
from api.audit import current_actor
from api.auth import caller, requires
from api.documentation import authenticated_problems
from api.errors import STATUS_OF_CODE, APIError, describe_validation
from api.jobs import blueprint
from api.paging import created_between, newest_first, page_limit, parse_cursor
from api.responses import accepted_response, document_response
from api.schemas import BatchesQuery, BatchPath, BatchRequest, IdempotencyHeaders, Page
from api.services import Services, current_services
from api.sources import Source, check_arrival, claim, new_job, read_source
from api.tables import table_response
from shared.audit import record_event
from shared.cursors import write_cursor
from shared.documents.base import POLL_AFTER_S
from shared.documents.batches import BatchDocument, BatchItemDocument, BatchList
from shared.errors import Code, DeepfakeStreamError
from shared.jobs.batches import (
    NewBatch,
    create_batch,
    describe_batch,
    describe_batches,
    find_batch,
    find_replayed_batch,
    lock_jobs_of,
    read_items,
)
from shared.jobs.creation import NewJob, create_jobs
from shared.jobs.ending import cancel_job, delete_job
from shared.manifests import Manifest, find_manifest
from shared.models import Batch, BatchItem, Media

COLUMNS = ("index", "job_id", "status", "verdict", "fake_score", "reasons", "error_code", "error_detail", "metadata")
"""Columns of the results as CSV."""


class AcceptedBatch(BatchDocument):
    """A batch that was accepted, with all of its items."""

    poll_after_s: float | None = Field(description="Ask for the batch again in so many seconds. Null if it has ended.")


@dataclass(frozen=True, slots=True)
class _Item:
    """What a job is made of."""

    source: Source
    manifest: Manifest
    new: NewJob
    """Made before the owner is locked, for which others wait."""


@blueprint.post(
    "/batches",
    operation_id="submitBatch",
    responses={202: AcceptedBatch, **authenticated_problems(404, 409, 413, 422)},
)
@requires("jobs:write")
def submit_batch(body: BatchRequest, header: IdempotencyHeaders) -> Response:
    """
    Submit up to 100 jobs at once, each of a URL or a direct upload.

    Each item is accepted or refused by itself, and says so in `items`. If all are refused, the answer is the error of
    the first, and there is no batch.
    """
    services, settings = current_services(), current_services().settings
    shared_options = body.model_dump(exclude_none=True, include={"sample_fps", "segment_seconds", "model", "explain"})
    metadata = body.metadata or {}
    own_options: dict[str, Any] = {"webhook_url": body.webhook_url, "metadata": metadata}
    if body.webhook_events is not None:
        # Only then, so that a repetition of a request to the release before is recognised.
        own_options["webhook_events"] = body.webhook_events
    check_options(services, own_options)
    new = NewBatch(
        owner=caller().owner,
        api_key_id=caller().key_id,
        webhook_url=body.webhook_url,
        webhook_events=body.webhook_events,
        metadata=metadata,
        idempotency_key=header.idempotency_key,
        request_sha256=_digest([body.items, shared_options, own_options]),
    )
    with services.sessions.transaction() as session:
        # Before everything that may have changed since: the uploads of a repeated request are taken.
        earlier = find_replayed_batch(session, new)
        if earlier is not None:
            return _accepted(session, earlier, is_new=False)
        check_capacity(session, settings.api, new.owner, None)
    items = [_prepare(services, shared_options, fields) for fields in body.items]
    with services.sessions.transaction() as session:
        # Before the first new row, as everywhere.
        free, full = free_jobs(session, settings.api, new.owner)
        batch, is_new = create_batch(session, new)
        if is_new:
            _create_jobs(session, batch, _admit(session, items, free, full))
        return _accepted(session, batch, is_new=is_new)


@blueprint.get("/batches", operation_id="listBatches", responses={200: BatchList, **authenticated_problems(422)})
@requires("jobs:read")
def list_batches(query: BatchesQuery) -> Response:
    """List your batches, newest first, without their items."""
    limit = page_limit(current_services(), query)
    wanted = select(Batch).where(Batch.owner == caller().owner)
    if query.ended is not None:
        wanted = wanted.where(Batch.ended_at.is_not(None) if query.ended else Batch.ended_at.is_(None))
    wanted = created_between(wanted, Batch, query.created_after, query.created_before)
    wanted = newest_first(wanted, Batch, query, limit)
    with current_services().sessions.transaction() as session:
        batches = session.scalars(wanted).all()
        page, more = batches[:limit], len(batches) > limit
        items = describe_batches(session, page)
    return document_response(BatchList(items=items, next_cursor=write_cursor(page[-1].id) if more else None))


@blueprint.get(
    "/batches/<string:batch_id>",
    operation_id="getBatch",
    responses={200: BatchDocument, **authenticated_problems(404, 422)},
)
@requires("jobs:read")
def get_batch(path: BatchPath, query: Page) -> Response:
    """Get a batch: how many of its jobs are in which state, and its items in the order of the request."""
    services = current_services()
    limit = page_limit(services, query)
    after = -1 if query.cursor is None else parse_cursor(query.cursor, int)
    with services.sessions.transaction() as session:
        document = _document(session, _find(session, path), after=after, limit=limit)
    return document_response(document)


@blueprint.get(
    "/batches/<string:batch_id>/results.csv",
    operation_id="getBatchResults",
    responses={
        "200": {"description": "One line for each item.", "content": {"text/csv": {"schema": {"type": "string"}}}},
        **authenticated_problems(404, 422),
    },
)
@requires("jobs:read")
def get_results(path: BatchPath) -> Response:
    """
    Get the results so far as CSV, a line for each item, in the order of the request.

    Text that a spreadsheet would take for a formula begins with an apostrophe.
    """
    with current_services().sessions.transaction() as session:
        batch = _find(session, path)
        items = [BatchItemDocument.from_row(item) for item in read_items(session, batch.id, after=-1, limit=None)]
    return table_response(COLUMNS, map(_row, items), f"batch-{path.batch_id}.csv")


@blueprint.post(
    "/batches/<string:batch_id>/cancel",
    operation_id="cancelBatch",
    responses={200: BatchDocument, **authenticated_problems(404, 422)},
)
@requires("jobs:write")
def cancel_batch(path: BatchPath) -> Response:
    """Cancel the jobs of a batch that have not ended. Cancelling it again changes nothing."""
    services = current_services()
    with services.sessions.transaction() as session:
        batch = _find(session, path)
        open_jobs = [job for job in lock_jobs_of(session, batch.id) if not job.is_final]
        for job in open_jobs:
            cancel_job(session, job)
            record_event(session, "job.cancelled", owner=job.owner, actor=current_actor(), job_id=job.id)
        if open_jobs:
            record_event(session, "batch.cancelled", owner=batch.owner, actor=current_actor(), batch_id=str(batch.id))
        _lock(session, path)
        document = _document(session, batch, after=-1, limit=services.settings.api.page_size)
    return document_response(document)


@blueprint.delete(
    "/batches/<string:batch_id>",
    operation_id="deleteBatch",
    responses={"204": {"description": "Erased."}, **authenticated_problems(404, 422)},
)
@requires("jobs:write")
def delete_batch(path: BatchPath) -> Response:
    """Erase a batch with all of its jobs, their results and files. No webhook of the batch is sent any more."""
    with current_services().sessions.transaction() as session:
        batch = _find(session, path)
        jobs = lock_jobs_of(session, batch.id)
        # All files at once and in order: other requests lock a job before its file, and may share files.
        media_ids = [job.media_id for job in jobs if job.media_id is not None]
        session.scalars(select(Media).where(Media.id.in_(media_ids)).order_by(Media.id).with_for_update()).all()
        batch = _lock(session, path)
        batch.webhook_url, batch.ended_at = None, func.coalesce(Batch.ended_at, func.now())
        session.flush()
        for job in jobs:
            delete_job(session, job)
            record_event(session, "job.erased", owner=job.owner, actor=current_actor(), job_id=job.id)
        session.execute(delete(Batch).where(Batch.id == path.batch_id))
        record_event(session, "batch.erased", owner=caller().owner, actor=current_actor(), batch_id=str(path.batch_id))
    return Response(status=HTTPStatus.NO_CONTENT)


def _prepare(services: Services, shared_options: dict[str, Any], fields: Any) -> _Item | APIError:
    """Check one item of a request. Errors of the service are raised, those of the item returned."""
    try:
        if not isinstance(fields, dict):
            return APIError(Code.INVALID_REQUEST, 'an item is no JSON object; send {"url": "…"} or {"upload_id": "…"}')
        given, source = read_source(fields)
        options = shared_options | given
        models = services.settings.models
        manifest = find_manifest(models.dir, options.get("model", models.default))
        check_options(services, options, source.url)
        if source.upload_id is not None:
            check_arrival(services, source.upload_id)
    except ValidationError as error:
        return describe_validation(error)
    except DeepfakeStreamError as error:
        if STATUS_OF_CODE.get(error.code, HTTPStatus.INTERNAL_SERVER_ERROR) >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise
        return APIError(error.code, str(error))
    return _Item(source, manifest, new_job(source, options, manifest))


def _admit(session: Session, items: list[_Item | APIError], free: int, full: Code) -> list[_Item | APIError]:
    """
    Return the items with errors in the place of those for which there is no room, or whose upload is not to be had.

    Args:
        free: How many jobs may be made.
        full: The code of refusals of further ones.

    Raises:
        APIError: There is an error in each place.
    """
    admitted: list[_Item | APIError] = []
    for item in items:
        if not isinstance(item, _Item):
            admitted.append(item)
        elif free > 0:
            admitted.append(_claim(session, item))
            free -= isinstance(admitted[-1], _Item)
        else:
            detail = "the limit of open jobs is reached; submit this item again when jobs have ended"
            admitted.append(APIError(full, detail))
    if not any(isinstance(item, _Item) for item in admitted):
        raise _none_accepted([(index, item) for index, item in enumerate(admitted) if isinstance(item, APIError)])
    return admitted


def _create_jobs(session: Session, batch: Batch, admitted: list[_Item | APIError]) -> None:
    """Add the items of a new batch, with a job for each that is admitted."""
    wanted = [item for item in admitted if isinstance(item, _Item)]
    jobs = create_jobs(session, [item.new for item in wanted])
    for item, job in zip(wanted, jobs, strict=True):
        record_event(session, "job.submitted", owner=job.owner, actor=current_actor(), job_id=job.id, sha256=None)
        start_job(session, job, item.manifest, source=item.source.kind, may_reuse=False)
    left = iter(jobs)
    for index, each in enumerate(admitted):
        row = BatchItem(batch_id=batch.id, index=index)
        if isinstance(each, APIError):
            row.error_code, row.error_detail = str(each.code), str(each)
        else:
            row.job_id = next(left).id
        session.add(row)
    record_event(
        session, "batch.submitted", owner=batch.owner, actor=current_actor(), batch_id=str(batch.id), jobs=len(jobs)
    )
    session.flush()


def _claim(session: Session, item: _Item) -> _Item | APIError:
    """Take the direct upload of an item, if it has one; return the error if another job has it."""
    try:
        if item.source.upload_id is not None:
            claim(session, item.source.upload_id)
    except APIError as error:
        return error
    return item


def _none_accepted(refused: list[tuple[int, APIError]]) -> APIError:
    first = refused[0][1]
    waits = STATUS_OF_CODE[first.code] in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
    return APIError(
        first.code,
        f"no item was accepted; the error of the first is: {first}",
        headers={"Retry-After": str(CAPACITY_RETRY_AFTER_S)} if waits else None,
        errors=[{"name": f"items.{index}", "detail": str(error)} for index, error in refused],
    )


def _accepted(session: Session, batch: Batch, *, is_new: bool) -> Response:
    document = _document(session, batch, after=-1, limit=None)
    poll_after_s = POLL_AFTER_S if batch.ended_at is None else None
    answer = AcceptedBatch.model_construct(**dict(document), poll_after_s=poll_after_s)
    return accepted_response(answer, f"/v1/batches/{batch.id}", is_new=is_new)


def _document(session: Session, batch: Batch, *, after: int, limit: int | None) -> BatchDocument:
    rows = read_items(session, batch.id, after=after, limit=None if limit is None else limit + 1)
    page, more = rows[:limit], limit is not None and len(rows) > limit
    return BatchDocument.model_construct(
        **dict(describe_batch(session, batch)),
        items=[BatchItemDocument.from_row(item) for item in page],
        next_cursor=write_cursor(page[-1].index) if more else None,
    )


def _find(session: Session, path: BatchPath) -> Batch:
    batch = find_batch(session, path.batch_id, owner=caller().owner)
    if batch is None:
        raise APIError(Code.NOT_FOUND, f"there is no batch {path.batch_id}")
    return batch


def _lock(session: Session, path: BatchPath) -> Batch:
    """Lock a batch of the caller, whose jobs are locked. Raises 404 if another request has erased it meanwhile."""
    wanted = select(Batch).where(Batch.id == path.batch_id, Batch.owner == caller().owner).with_for_update()
    batch = session.scalars(wanted.execution_options(populate_existing=True)).one_or_none()
    if batch is None:
        raise APIError(Code.NOT_FOUND, f"there is no batch {path.batch_id}")
    return batch


def _row(item: BatchItemDocument) -> list[Any]:
    error = item.error
    return [
        item.index,
        item.job_id,
        item.status,
        item.verdict,
        item.fake_score,
        " ".join(map(str, item.reasons)),
        None if error is None else error.code,
        None if error is None else error.detail,
        json.dumps(item.metadata, ensure_ascii=False) if item.metadata else None,
    ]


def _digest(content: Any) -> str:
    """Return a digest that is equal for repetitions of a request, to check idempotency keys."""
    try:
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    except RecursionError as error:
        raise APIError(Code.BAD_REQUEST, "the body is nested too deeply") from error
