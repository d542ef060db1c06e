"""Ingest: fetch, probe and plan a job, then ask for its segments to be scored."""

import hashlib
import uuid

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from shared.containers import check_size
from shared.errors import ChecksumMismatchError, JobCancelledError, ObjectMissingError
from shared.jobs.leases import Lease, lease_ingest
from shared.jobs.queries import get_job
from shared.jobs.results import record_plan, record_source
from shared.media.files import attach_media, lost_file, new_storage_key
from shared.media.removals import remove
from shared.models import Job
from shared.observability import STAGE_SECONDS, get_logger
from worker.media.probe import probe
from worker.media.segments import plan_segments
from worker.media.sources import fetch
from worker.tasks.context import Context, leased_step

log = get_logger(__name__)


def ingest(context: Context, job_id: uuid.UUID) -> None:
    """Do the first step of a job, unless it is done or being done."""
    with context.sessions.transaction() as session:
        lease = lease_ingest(session, job_id, context.settings.jobs.lease_s)
    if lease is None:
        log.info("nothing to ingest")
        return
    planned = 0
    with leased_step(context, lease, "ingest"):
        planned = _plan(context, lease)
    for index in range(planned):
        context.sender.score_segment(job_id, index)


def _plan(context: Context, lease: Lease) -> int:
    """Probe the job's media and store its segments; how many there are."""
    with context.sessions.transaction() as session:
        job = _job(session, lease)
        source_url, source_key = (job.source_url, job.source_key) if job.media is None else (None, None)
        owner, segment_seconds, promised_sha256 = job.owner, job.segment_seconds, job.source_sha256
        storage_key = None if job.media is None else job.media.storage_key
    if source_url is not None:
        storage_key = _fetch(context, lease, source_url, owner)
    elif source_key is not None:
        storage_key = _adopt(context, lease, source_key, owner, promised_sha256)
    if storage_key is None:
        raise ObjectMissingError("the job's media was erased")
    with context.storage.local_path(storage_key) as path, STAGE_SECONDS.labels(stage="probe").time():
        facts = probe(path, context.settings.limits.for_media(), timeout_s=context.settings.worker.probe_timeout_s)
    segments = plan_segments(facts.duration_s, segment_seconds, first_s=facts.first_s, pictures=facts.frame_count)
    with context.sessions.transaction() as session:
        record_plan(
            session,
            lease,
            facts.to_json(),
            [(segment.index, segment.start_s, segment.end_s) for segment in segments],
            video_bytes=facts.video_bytes,
            presentation=facts.presentation(),
        )
    log.info("planned", kind=facts.kind, codec=facts.codec, segments=len(segments))
    return len(segments)


def _fetch(context: Context, lease: Lease, url: str, owner: str) -> str:
    """Bring a URL source into storage and attach it to the job; its storage key."""
    settings = context.settings
    key = new_storage_key()
    upload = context.storage.create(key)
    try:
        fetch(
            url,
            upload,
            max_bytes=settings.limits.max_upload_bytes,
            timeout_s=settings.worker.fetch_timeout_s,
            allow_insecure=settings.webhooks.allow_insecure,
        )
        sha256 = upload.commit()
    finally:
        upload.abort()
    return _attach(context, lease, key, owner=owner, sha256=sha256, size_bytes=upload.size_bytes)


def _adopt(context: Context, lease: Lease, source_key: str, owner: str, promised_sha256: str | None) -> str:
    """Make a direct upload the job's media, as a copy that its sender cannot overwrite; its storage key."""
    key = new_storage_key()
    try:
        context.storage.copy(source_key, key)
        # Looked at again: until this copy was made, its sender could exchange the file.
        check_size(context.storage.size(key), context.settings.limits.for_media())
        with context.storage.local_path(key) as path, path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            size_bytes = file.tell()
        _check_sha256(sha256, promised_sha256)
    except Exception:
        context.storage.delete(key)
        raise
    storage_key = _attach(context, lease, key, owner=owner, sha256=sha256, size_bytes=size_bytes)
    # Not before the row is committed: a step that dies half-way is done again, from the source.
    remove(context.sessions, context.storage, [source_key])
    return storage_key


def _check_sha256(found: str, promised: str | None) -> None:
    if promised not in (None, found):
        raise ChecksumMismatchError(f"the file's SHA-256 is {found}, and {promised} was announced")


def _attach(context: Context, lease: Lease, key: str, *, owner: str, sha256: str, size_bytes: int) -> str:
    """Make the object *key* the job's media; the storage key of that, which is another if the content was known."""
    try:
        lost = lost_file(context.sessions, context.storage, owner=owner, sha256=sha256)
    except Exception:
        context.storage.delete(key)
        raise
    try:
        with context.sessions.transaction() as session:
            media, surplus = attach_media(
                session,
                owner=owner,
                sha256=sha256,
                size_bytes=size_bytes,
                storage_key=key,
                retention_days=context.settings.jobs.media_retention_days,
                lost=lost,
            )
            record_source(session, lease, media)
            storage_key = media.storage_key
    except SQLAlchemyError:
        # Perhaps it was committed, and only the answer was lost. If not, tidying up finds the file.
        raise
    except Exception:
        context.storage.delete(key)
        raise
    if surplus is not None:
        remove(context.sessions, context.storage, [surplus])
    if storage_key is None:
        raise ObjectMissingError("the job's media was erased")
    return storage_key


def _job(session: Session, lease: Lease) -> Job:
    job = get_job(session, lease.job_id)
    if job is None:
        raise JobCancelledError("the job was deleted")
    return job
