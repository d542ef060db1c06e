"""Upkeep: send again what a crash lost, erase what has expired, remove files that no row knows."""

import uuid
from datetime import UTC, datetime, timedelta
from itertools import islice

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.jobs.ending import forget_looks
from shared.media.direct import incoming_id, incoming_key
from shared.media.removals import owed_removals, remove
from shared.models import DirectUpload, Job, Media
from shared.observability import get_logger
from shared.queues import QUEUES
from shared.states import FINAL_JOB_STATUSES
from shared.storage import INCOMING_PREFIX, MEDIA_PREFIX, PROBE_PREFIX
from worker.tasks.context import Context
from worker.tasks.expiry import expire
from worker.tasks.sweep import sweep

log = get_logger(__name__)

ORPHAN_AGE = timedelta(days=1)
"""A file without a row may be an upload in progress; after this long it is not."""
ORPHAN_WINDOW = timedelta(hours=12)
"""In a bucket only what became that old within this time is looked at; what is missed is the bucket's to expire."""
BATCH = 1000


def upkeep(context: Context) -> None:
    """Send every message that rows say is owed."""
    depths = {queue: context.sender.depth(queue) for queue in QUEUES.values()}
    counts = sweep(context.sessions, context.settings.jobs, context.policy, depths)
    if any(counts.values()):
        log.info("sent again", **{step.value: count for step, count in counts.items()})


def tidy(context: Context) -> None:
    """Erase what is past its retention, what people looked like in ended jobs, and files that no row knows."""
    with context.sessions.transaction() as session:
        forget_looks(session)
    media, jobs = expire(context.sessions, context.settings.jobs)
    removed = _remove_owed(context)
    orphans = remove(context.sessions, context.storage, _orphans(context, datetime.now(UTC) - ORPHAN_AGE))
    if media or jobs or removed or orphans:
        log.info("erased", media=media, jobs=jobs, removed=removed, orphans=orphans)


def _remove_owed(context: Context) -> int:
    """Remove what is still there since a process died or storage was away; how many files."""
    removed = 0
    while True:
        with context.sessions.transaction() as session:
            keys = owed_removals(session, BATCH)
        gone = remove(context.sessions, context.storage, keys)
        removed += gone
        if gone < BATCH:
            return removed


def _orphans(context: Context, before: datetime) -> list[str]:
    """Old stored files that belong to no media row, direct uploads that no job waits for, and what checks left."""
    found = (
        (key.removesuffix(".part"), changed)
        for prefix in (MEDIA_PREFIX, INCOMING_PREFIX, PROBE_PREFIX)
        for key, changed in context.storage.list(prefix, not_before=before - ORPHAN_WINDOW)
    )
    old = (key for key, changed in found if changed < before and _is_upload(key))
    orphans: set[str] = set()
    while keys := set(islice(old, BATCH)):
        with context.sessions.transaction() as session:
            orphans |= keys - _known(session, keys)
    return sorted(orphans)


def _known(session: Session, keys: set[str]) -> set[str]:
    """Those of *keys* that a row needs."""
    # An address may be good for longer than files without a row are kept. Uploads come first: one that is claimed
    # between the queries is a job's by the time that jobs are asked.
    ids = [incoming_id(key) for key in keys if key.startswith(f"{INCOMING_PREFIX}/")]
    is_open = DirectUpload.id.in_(ids) & DirectUpload.claimed_at.is_(None)
    open_ids = session.scalars(select(DirectUpload.id).where(is_open))
    known: set[str | None] = {incoming_key(upload_id) for upload_id in open_ids}
    waiting = Job.source_key.in_(keys) & Job.status.not_in(FINAL_JOB_STATUSES)
    known |= set(session.scalars(select(Job.source_key).where(waiting)))
    known |= set(session.scalars(select(Media.storage_key).where(Media.storage_key.in_(keys))))
    return {key for key in known if key is not None}


def _is_upload(key: str) -> bool:
    """Whether this service made the name: nothing else in the folder is ever touched."""
    try:
        uuid.UUID(key.partition("/")[2])
    except ValueError:
        return False
    return True
