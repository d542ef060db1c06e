"""The audit of the service's state after the faults."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
import pytest

from api.embedded.stack import EmbeddedStack
from shared.config import load_settings
from shared.queues import Sender, make_celery
from shared.storage import EXPLANATION_PREFIX, LIVE_PREFIX
from tests.faults.receiver import Memory
from tests.faults.steady import OPTIONS, Accepted
from tests.inside import environment_of, postgres_of
from worker.config import WorkerSettings
from worker.tasks import upkeep
from worker.tasks.context import Context

FINAL = ("succeeded", "failed", "cancelled")
POLL_S = 0.5


@dataclass(slots=True)
class Findings:
    """Numbers of errors; all of them should be 0."""

    lost: int = 0
    """Accepted jobs that the service does not know."""
    stuck: int = 0
    """Jobs that have not ended."""
    wrong: int = 0
    """Jobs whose result differs from that of an undisturbed run."""
    duplicated: int = 0
    """Events with more than one webhook id, and idempotency keys with two jobs."""
    unexpected: int = 0
    """Jobs that no client has submitted."""
    unexplained: int = 0
    """Jobs that succeeded and whose requested explanation is not done or lacks an image."""
    webhooks_missing: int = 0
    unsigned: int = 0
    leases: int = 0
    """Rows that are still leased although nothing runs."""
    orphans: int = 0
    """Stored files without a row, after ``tidy``."""
    streams: int = 0
    """What is wrong with the live streams; see ``live.LiveStreams.audit``."""
    late_takeovers: int = 0
    """Killed readers whose streams had another reader only after more than ten seconds."""
    missing_files: int = 0
    """Files that rows refer to but storage does not have."""

    @property
    def is_clean(self) -> bool:
        """Whether there are no errors."""
        return not any(getattr(self, name) for name in self.__slots__)


def result(document: dict[str, Any]) -> Any:
    """Return the part of a job's document that must not depend on faults."""
    segments = [(part["start_s"], part["end_s"], part["status"], part["fake_score"]) for part in document["segments"]]
    error = (document["error"] or {}).get("code")
    return document["status"], document["verdict"], document["fake_score"], document["peak_score"], error, segments


def wait_for_quiet(stack: EmbeddedStack, timeout_s: float) -> None:
    """Wait until no job or explanation is open and no delivery is due, or *timeout_s* is over."""
    deadline = time.monotonic() + timeout_s
    query = (
        "select (select count(*) from jobs where status in ('queued', 'running') and deleted_at is null)"
        " + (select count(*) from deliveries where status in ('pending', 'sending'))"
        " + (select count(*) from explanations e join jobs j on j.id = e.job_id"
        "    where e.status in ('pending', 'running') and j.status = 'succeeded')"
    )
    with postgres_of(stack) as connection:
        while time.monotonic() < deadline:
            row = connection.execute(query).fetchone()
            if row == (0,):
                return
            time.sleep(POLL_S)


def audit(
    stack: EmbeddedStack,
    http: httpx.Client,
    accepted: Sequence[Accepted],
    expected: dict[str, Any],
    memory: Memory,
    stream_ids: Iterable[str] = (),
) -> Findings:
    """Check every accepted job, every row, and storage; *stream_ids* are jobs that are checked elsewhere."""
    found = Findings(unsigned=memory.unsigned)
    for job in accepted:
        answer = http.get(f"/v1/jobs/{job.job_id}")
        if job.fate == "delete":
            found.wrong += answer.status_code != 404
            continue
        if answer.status_code != 200:
            found.lost += 1
            continue
        document = answer.json()
        if document["status"] not in FINAL:
            found.stuck += 1
            continue
        if not (job.fate == "cancel" and document["status"] == "cancelled"):
            found.wrong += result(document) != expected[job.kind]
        if document["status"] == "succeeded" and "explain" in OPTIONS[job.kind]:
            found.unexplained += not _is_explained(http, job)
        found.webhooks_missing += job.job_id not in memory.delivered
    found.duplicated += sum(len(ids) > 1 for ids in memory.ids.values())
    _look_at_rows(stack, {job.job_id for job in accepted} | set(stream_ids), found)
    _look_at_storage(stack, found)
    return found


def _is_explained(http: httpx.Client, job: Accepted) -> bool:
    """Return whether the job's explanation is done, shows a face where one was scored, and serves all its images."""
    url = f"/v1/jobs/{job.job_id}/explanations"
    document = http.get(url).json()
    if document.get("status") != "succeeded" or bool(document["images"]) == (job.kind == "no face"):
        return False
    return all(http.get(f"{url}/{image['name']}").status_code == 200 for image in document["images"])


def _look_at_rows(stack: EmbeddedStack, known: set[str], found: Findings) -> None:
    leased = (
        "select (select count(*) from jobs where lease_token is not null)"
        " + (select count(*) from segments where lease_token is not null)"
        " + (select count(*) from deliveries where lease_token is not null)"
        " + (select count(*) from explanations where lease_token is not null)"
    )
    with postgres_of(stack) as connection:
        row = connection.execute(leased).fetchone()
        found.leases = row[0] if row else 0
        # Jobs of the undisturbed run have no webhook.
        ids = connection.execute("select id from jobs where deleted_at is null and webhook_url is not null").fetchall()
    found.unexpected = sum(str(job_id) not in known for (job_id,) in ids)


def _look_at_storage(stack: EmbeddedStack, found: Findings) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment_of(stack).items():
            if name.startswith("DEEPFAKESTREAM_"):
                patch.setenv(name, value)
        # Nothing is uploaded any more, so files of any age without a row are orphans.
        patch.setattr(upkeep, "ORPHAN_AGE", timedelta(0))
        settings = load_settings(WorkerSettings)
        context = Context.connect(settings, Sender(make_celery(settings.broker, settings.jobs)))
        upkeep.tidy(context)
    stored = {key for prefix in ("media", EXPLANATION_PREFIX, LIVE_PREFIX) for key, _ in context.storage.list(prefix)}
    context.sessions.engine.dispose()
    with postgres_of(stack) as connection:
        rows = connection.execute(
            "select storage_key from media where storage_key is not null"
            " union all select storage_key from explanations where storage_key is not null"
            " union all select storage_key from segments where storage_key is not null"
        ).fetchall()
    named = {key for (key,) in rows}
    found.orphans, found.missing_files = len(stored - named), len(named - stored)
