"""The context of tasks: settings and connections, made once in each worker process, after the fork."""

from dataclasses import dataclass
from pathlib import Path

from shared.db import SessionFactory, make_engine
from shared.effects import make_session_factory
from shared.jobs.leases import RetryPolicy
from shared.manifests import Manifest, read_manifest
from shared.models import Job
from shared.queues import Sender
from shared.storage import Storage, open_storage
from worker.config import WorkerSettings


@dataclass(frozen=True, slots=True)
class Context:
    """Settings and connections of a worker process."""

    settings: WorkerSettings
    sessions: SessionFactory
    storage: Storage
    sender: Sender
    policy: RetryPolicy
    """How often a failed step is tried again."""

    @classmethod
    def connect(cls, settings: WorkerSettings, sender: Sender) -> "Context":
        """Connect to the database and storage of *settings*; call it after the fork."""
        storage = open_storage(settings.storage)
        sessions = make_session_factory(make_engine(settings.database), sender, storage)
        jobs = settings.jobs
        policy = RetryPolicy(jobs.max_attempts, jobs.retry_backoff_s, settings.webhooks.retry_schedule_s)
        return cls(settings, sessions, storage, sender, policy)

    def manifest(self, job: Job) -> Manifest:
        """
        Return the manifest of the checkpoint for *job*: the one that is pinned in its row.

        Raises:
            ModelError: An earlier release made the job without pinning a manifest, and that of the checkpoint's folder
                cannot be read.
        """
        if job.manifest is not None:
            return Manifest.from_pin(job.manifest)
        return read_manifest(Path(self.settings.models.dir) / job.model)
