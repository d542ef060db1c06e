"""The boundary of every step of a job: it leases the step, renews the lease, and releases it after an error."""

import threading
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError

from shared.errors import DeepfakeStreamError, JobCancelledError, StorageError
from shared.jobs.leases import Key, Lease, Step, acquire, release, renew
from shared.observability import get_logger
from worker.tasks.context import Context

log = get_logger(__name__)

IsLost = Callable[[], bool]
"""Returns whether a step should stop because its lease was lost or its job has ended."""


class UnexpectedError(DeepfakeStreamError):
    """A bug in the service occurred during a step. The log has the details, which clients do not see."""

    retryable = True


def run_step(context: Context, step: Step, key: Key, work: Callable[[Lease, IsLost], None]) -> None:
    """
    Lease *step* of the row *key* and run *work*; do nothing if it is done, not due, or leased by another worker.

    The lease is renewed while *work* runs. Errors are handled here: the step is scheduled again or fails for good, and
    everything that follows from it is part of the same transaction.
    """
    with context.sessions.transaction() as session:
        lease = acquire(session, step, key, context.settings.jobs.lease_s, max_attempts=context.policy.max_attempts)
    if lease is None:
        log.info("lease not acquired", step=step.value)
        return
    renewer = _LeaseRenewer(context, lease)
    renewer.start()
    try:
        work(lease, renewer.is_lost)
    except JobCancelledError as error:
        log.info("step abandoned", reason=str(error))
    except DeepfakeStreamError as error:
        _release_after_error(context, lease, error)
    except OSError as error:
        # A full or unreachable disk, in any part of the step.
        log.exception("step failed")
        reason = StorageError("this service's storage failed")
        reason.__cause__ = error
        _release_after_error(context, lease, reason)
    except Exception:
        # If the database is unavailable, the lease cannot be released; it expires instead.
        log.exception("step failed unexpectedly")
        _release_after_error(context, lease, UnexpectedError("an internal error, which has been logged"))
    finally:
        renewer.stop()


def _release_after_error(context: Context, lease: Lease, error: DeepfakeStreamError) -> None:
    try:
        with context.sessions.transaction() as session:
            release(session, lease, error, context.policy)
    except JobCancelledError as reason:
        # The job was erased meanwhile, and its file with it, which explains the error.
        log.info("step abandoned", reason=str(reason), code=error.code)
    except SQLAlchemyError:
        log.exception("lease not released; it will expire", code=error.code)
    else:
        log.warning("step failed", code=error.code, detail=str(error), attempt=lease.attempt)


class _LeaseRenewer(threading.Thread):
    """
    A thread that renews a lease while its step runs.

    A killed process stops renewing, and the sweep sends the step to another worker.
    """

    def __init__(self, context: Context, lease: Lease) -> None:
        super().__init__(name="lease-renewer", daemon=True)
        self._context = context
        self._lease = lease
        self._done = threading.Event()
        self._lost = threading.Event()

    def is_lost(self) -> bool:
        return self._lost.is_set()

    def stop(self) -> None:
        """Stop renewing and wait for the thread."""
        self._done.set()
        self.join()

    def run(self) -> None:
        """Renew three times within the duration of a lease, so that one failure does not lose it."""
        lease_s = self._context.settings.jobs.lease_s
        while not self._done.wait(lease_s / 3):
            try:
                with self._context.sessions.transaction() as session:
                    if not renew(session, self._lease, lease_s):
                        self._lost.set()
                        return
            except SQLAlchemyError:
                # The database may recover before the lease expires. If not, the lease's token fences the result.
                log.warning("lease not renewed", exc_info=True)
