"""Upkeep: send lost messages again, erase expired data, and remove orphaned files."""

import re
import uuid
from datetime import UTC, datetime, timedelta
from itertools import islice

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.jobs.batches import drop_erased_batches, settle_batches
from shared.jobs.ending import forget_looks
from shared.jobs.inputs import fold_inputs
from shared.jobs.usage import fold_usage
from shared.media.direct_uploads import incoming_id, incoming_key
from shared.media.removals import pending_deletions, remove_files
from shared.models import DirectUpload, Explanation, Job, Media, Segment
from shared.observability import get_logger
from shared.states import FINAL_JOB_STATUSES
from shared.storage import (
    EXPLANATION_PREFIX,
    INCOMING_PREFIX,
    LIVE_PREFIX,
    MEDIA_PREFIX,
    PROBE_PREFIX,
    UNFINISHED_SUFFIX,
)
from worker.tasks.context import Context
from worker.tasks.expiry import expire
from worker.tasks.sweep import sweep

log = get_logger(__name__)

ORPHAN_AGE = timedelta(days=1)
"""A younger file without a row may be an upload in progress."""
ORPHAN_WINDOW = timedelta(hours=12)
"""In a bucket only files that reached that age within this time are checked; the bucket's lifecycle expires others."""
BATCH = 1000
_NAME = re.compile(rf"[^/]+/(?P<id>[^/.]+)((\.[0-9a-f]{{16}})?{re.escape(UNFINISHED_SUFFIX)})?")
"""Key of an object, or name of an unfinished upload of it; that of the release before has no random part."""


def upkeep(context: Context) -> None:
    """Send the messages of all steps that are pending by their rows, and end batches whose jobs have ended."""
    counts = sweep(context.sessions, context.settings.jobs, context.policy, context.sender.depths())
    with context.sessions.transaction() as session:
        settle_batches(session, BATCH)
    if any(counts.values()):
        log.info("messages sent", **{step.value: count for step, count in counts.items()})


def tidy(context: Context) -> None:
    """Erase expired data, the looks of people in ended jobs, and orphaned files."""
    with context.sessions.transaction() as session:
        forget_looks(session)
        drop_erased_batches(session, BATCH)
        fold_usage(session)
        fold_inputs(session)
    media, jobs = expire(context.sessions, context.settings.jobs)
    removed = _remove_pending(context)
    orphans = remove_files(context.sessions, context.storage, find_orphans(context, datetime.now(UTC) - ORPHAN_AGE))
    if media or jobs or removed or orphans:
        log.info("tidied", media=media, jobs=jobs, removed=removed, orphans=orphans)


def _remove_pending(context: Context) -> int:
    """Remove files whose deletion is pending since a process died or storage was unavailable; return their number."""
    removed = 0
    while True:
        with context.sessions.transaction() as session:
            keys = pending_deletions(session, BATCH)
        count = remove_files(context.sessions, context.storage, keys)
        removed += count
        if count < BATCH:
            return removed


def find_orphans(context: Context, before: datetime) -> list[str]:
    """List old files without a row of media, of an explanation or of a segment, direct uploads that no job needs,
    unfinished uploads, and files left by health checks.
    """
    found = (
        (key, changed)
        for prefix in (MEDIA_PREFIX, EXPLANATION_PREFIX, LIVE_PREFIX, INCOMING_PREFIX, PROBE_PREFIX)
        for key, changed in context.storage.list(prefix, not_before=before - ORPHAN_WINDOW)
    )
    old = (key for key, changed in found if changed < before and _is_upload(key))
    orphans: set[str] = set()
    while names := set(islice(old, BATCH)):
        # Whoever wrote these has died, whether or not a row refers to the object.
        unfinished = {name for name in names if name.endswith(UNFINISHED_SUFFIX)}
        keys = names - unfinished
        with context.sessions.transaction() as session:
            orphans |= unfinished | (keys - _find_referenced_keys(session, keys))
    return sorted(orphans)


def _find_referenced_keys(session: Session, keys: set[str]) -> set[str]:
    """Return those of *keys* that a row refers to."""
    # The address of a direct upload may be valid for longer than ORPHAN_AGE. Uploads are queried first: if one is
    # claimed between the queries, the query for jobs finds it.
    ids = [incoming_id(key) for key in keys if key.startswith(f"{INCOMING_PREFIX}/")]
    is_open = DirectUpload.id.in_(ids) & DirectUpload.claimed_at.is_(None)
    open_ids = session.scalars(select(DirectUpload.id).where(is_open))
    known: set[str | None] = {incoming_key(upload_id) for upload_id in open_ids}
    waiting = Job.source_key.in_(keys) & Job.status.not_in(FINAL_JOB_STATUSES)
    known |= set(session.scalars(select(Job.source_key).where(waiting)))
    known |= set(session.scalars(select(Media.storage_key).where(Media.storage_key.in_(keys))))
    known |= set(session.scalars(select(Explanation.storage_key).where(Explanation.storage_key.in_(keys))))
    known |= set(session.scalars(select(Segment.storage_key).where(Segment.storage_key.in_(keys))))
    return {key for key in known if key is not None}


def _is_upload(key: str) -> bool:
    """Return whether this service named the file: no other file in the folder is ever removed."""
    found = _NAME.fullmatch(key)
    if found is None:
        return False
    try:
        uuid.UUID(found["id"])
    except ValueError:
        return False
    return True
