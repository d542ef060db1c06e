"""What every task works with, made once in each worker process, after the fork."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError

from shared.db import SessionFactory, make_engine
from shared.errors import DeepfakeStreamError, JobCancelledError, StorageError
from shared.jobs.leases import Lease, Retry, release_lease, renew_lease
from shared.observability import FAILURES, JOBS_ENDED, get_logger
from shared.queues import Sender
from shared.storage import Storage, open_storage
from worker.config import WorkerSettings

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Context:
    """Settings and collaborators of a worker process."""

    settings: WorkerSettings
    sessions: SessionFactory
    storage: Storage
    sender: Sender

    @classmethod
    def connect(cls, settings: WorkerSettings, sender: Sender) -> "Context":
        """Make the collaborators that *settings* name; call it after the fork."""
        return cls(
            settings,
            SessionFactory(make_engine(settings.database)),
            open_storage(settings.storage),
            sender,
        )

    @property
    def retry(self) -> Retry:
        """How often a failed step is tried again."""
        return Retry(self.settings.jobs.max_attempts, self.settings.jobs.retry_backoff_s)


class UnexpectedError(DeepfakeStreamError):
    """A defect of ours met during a step. The log has the details; the client is told no more than this."""

    retryable = True


class LeaseKeeper(threading.Thread):
    """
    Renews a lease in the background while its step runs.

    A process that is killed stops renewing, and the sweep hands the step to another. A step whose job was
    cancelled sees ``is_lost`` and can stop early.
    """

    def __init__(self, context: Context, lease: Lease) -> None:
        super().__init__(name="lease-keeper", daemon=True)
        self._context = context
        self._lease = lease
        self._done = threading.Event()
        self._lost = threading.Event()

    def is_lost(self) -> bool:
        """Whether going on with the step is pointless."""
        return self._lost.is_set()

    def stop(self) -> None:
        """Renew no more."""
        self._done.set()
        self.join()

    def run(self) -> None:
        """Renew three times within each lease, so that one failed attempt does not lose it."""
        lease_s = self._context.settings.jobs.lease_s
        while not self._done.wait(lease_s / 3):
            try:
                with self._context.sessions.transaction() as session:
                    if not renew_lease(session, self._lease, lease_s):
                        self._lost.set()
                        return
            except SQLAlchemyError:
                # The database may come back before the lease runs out; the record is fenced either way.
                log.warning("lease not renewed", exc_info=True)


@contextmanager
def leased_step(context: Context, lease: Lease, task: str) -> Iterator[LeaseKeeper]:
    """
    Keep *lease* while the block runs, and give it back if the block fails.

    The block's errors end here: the step is scheduled again or failed for good, and whatever that leads to is
    sent.
    """
    keeper = LeaseKeeper(context, lease)
    keeper.start()
    try:
        yield keeper
    except JobCancelledError as error:
        log.info("step dropped", reason=str(error))
    except DeepfakeStreamError as error:
        _give_back(context, lease, error, task)
    except OSError as error:
        # A full or unreachable disk, wherever it was met.
        log.exception("step failed")
        reason = StorageError("this service's storage failed")
        reason.__cause__ = error
        _give_back(context, lease, reason, task)
    except SQLAlchemyError:
        # Nothing can be recorded without the database; the lease runs out and the sweep tries again.
        log.exception("the database failed a step")
    except Exception:
        log.exception("step failed unexpectedly")
        _give_back(context, lease, UnexpectedError("an internal error, which has been logged"), task)
    finally:
        keeper.stop()


def _give_back(context: Context, lease: Lease, error: DeepfakeStreamError, task: str) -> None:
    try:
        with context.sessions.transaction() as session:
            released = release_lease(session, lease, error, context.retry)
    except JobCancelledError as reason:
        # Of a job that was erased meanwhile the file is gone, too: no wonder that the step failed.
        log.info("step dropped", reason=str(reason), code=error.code)
        return
    except SQLAlchemyError:
        log.exception("the database failed a step", code=error.code)
        return
    FAILURES.labels(task=task, code=error.code).inc()
    log.warning("step failed", code=error.code, detail=str(error), attempt=lease.attempt)
    if released.has_failed:
        JOBS_ENDED.labels(status="failed").inc()
    if released.can_finish:
        context.sender.finish(lease.job_id)
    if released.delivery_id is not None:
        context.sender.deliver_webhook(released.delivery_id)
