"""The step ingest: fetch a job's source, probe it, and plan its segments."""

import hashlib
import uuid
from collections.abc import Callable
from functools import partial

from shared.containers import check_size
from shared.errors import ChecksumMismatchError, JobCancelledError, ObjectMissingError
from shared.jobs.leases import Lease, Step, lock_rows
from shared.jobs.queries import get_job
from shared.jobs.results import record_plan, record_source
from shared.media.files import StoredFile, media_transaction, new_storage_key
from shared.media.removals import unclaimed_file
from shared.observability import STAGE_SECONDS, get_logger
from worker.media.probe import probe
from worker.media.provenance import read_provenance
from worker.media.segments import plan_segments
from worker.media.sources import fetch
from worker.tasks.context import Context
from worker.tasks.steps import IsLost, run_step

log = get_logger(__name__)


def ingest(context: Context, job_id: uuid.UUID) -> None:
    """Run the step ingest of a job, unless it is done or another worker runs it."""
    run_step(context, Step.INGEST, (job_id,), partial(_ingest, context))


def _ingest(context: Context, lease: Lease, _is_lost: IsLost) -> None:
    """Probe the job's media and store its segments."""
    with context.sessions.transaction() as session:
        job = get_job(session, lease.job_id)
        if job is None:
            raise JobCancelledError("the job was deleted")
        owner, segment_seconds = job.owner, job.segment_seconds
        source_url, source_key, promised_sha256 = job.source_url, job.source_key, job.source_sha256
        storage_key = None if job.media is None else job.media.storage_key
        is_stored = job.media is not None
        manifest = context.manifest(job)
    if not is_stored and source_url is not None:
        storage_key = _store_source(context, lease, owner, partial(_fetch, context, source_url))
    elif not is_stored and source_key is not None:
        storage_key = _store_source(context, lease, owner, partial(_copy, context, source_key, promised_sha256))
    if storage_key is None:
        raise ObjectMissingError("the job's media was erased")
    with context.storage.local_path(storage_key) as path, STAGE_SECONDS.labels(stage="probe").time():
        facts = probe(path, context.settings.limits.for_media(), timeout_s=context.settings.worker.probe_timeout_s)
        wanted = context.settings.provenance
        found = read_provenance(
            path, facts.container, trust_anchors_file=wanted.trust_anchors_file, timeout_s=wanted.timeout_s
        )
    segments = plan_segments(facts.duration_s, segment_seconds, first_s=facts.first_s, pictures=facts.frame_count)
    with context.sessions.transaction() as session:
        record_plan(
            session,
            lease,
            facts.to_json(),
            [(segment.index, segment.start_s, segment.end_s) for segment in segments],
            manifest=manifest.pin(),
            video_bytes=facts.video_bytes,
            presentation=facts.presentation(),
            provenance=found.to_json(),
        )
    log.info("planned", kind=facts.kind, codec=facts.codec, segments=len(segments), provenance=found.state)


def _store_source(context: Context, lease: Lease, owner: str, store: Callable[[str], StoredFile]) -> str | None:
    """
    Store the job's source and make it the job's media.

    Args:
        store: Stores the source under the given key.

    Returns:
        Storage key of the media: an earlier one if its owner has sent the same content before.
    """
    key, days = new_storage_key(), context.settings.jobs.media_retention_days
    with unclaimed_file(context.storage, key):
        file = store(key)
        with media_transaction(
            context.sessions,
            context.storage,
            file,
            owner=owner,
            retention_days=days,
            lock_job=partial(lock_rows, lease=lease),
        ) as (session, media):
            record_source(session, lease, media)
            return media.storage_key


def _fetch(context: Context, url: str, key: str) -> StoredFile:
    """Download the file at *url* to storage, under *key*."""
    settings = context.settings
    upload = context.storage.create(key)
    try:
        fetch(
            url,
            upload,
            max_bytes=settings.limits.max_upload_bytes,
            timeout_s=settings.worker.fetch_timeout_s,
            allow_insecure=settings.webhooks.allow_insecure,
        )
        return StoredFile(key, upload.commit(), upload.size_bytes)
    finally:
        upload.abort()


def _copy(context: Context, source_key: str, promised_sha256: str | None, key: str) -> StoredFile:
    """
    Copy a direct upload to *key*, so that its sender can no longer replace it.

    Raises:
        ChecksumMismatchError: The file does not have the announced SHA-256.
    """
    context.storage.copy(source_key, key)
    # The size is checked again, since the sender could replace the file until it was copied.
    check_size(context.storage.size(key), context.settings.limits.for_media())
    with context.storage.local_path(key) as path, path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        size_bytes = file.tell()
    if promised_sha256 is not None and sha256 != promised_sha256:
        raise ChecksumMismatchError(f"the file's SHA-256 is {sha256}, but {promised_sha256} was announced")
    # The source is removed after the commit, so that an interrupted step can be run again.
    return StoredFile(key, sha256, size_bytes)
