"""The one boundary of every step of a job: it is leased, kept, and given back if it fails."""

import threading
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError

from shared.errors import DeepfakeStreamError, JobCancelledError, StorageError
from shared.jobs.leases import Key, Lease, Step, acquire, release, renew
from shared.observability import get_logger
from worker.tasks.context import Context

log = get_logger(__name__)

IsLost = Callable[[], bool]
"""Whether going on with a step is pointless, since its lease was lost or its job has ended."""


class UnexpectedError(DeepfakeStreamError):
    """A defect of ours met during a step. The log has the details; the client is told no more than this."""

    retryable = True


def run_step(context: Context, step: Step, key: Key, work: Callable[[Lease, IsLost], None]) -> None:
    """
    Lease *step* of the row *key* and do its *work*; nothing if it is done, not due, or somebody is at it.

    The lease is renewed while the work lasts. Errors end here: the step is scheduled again or has failed for good, and
    what follows from that hangs on the transaction that says so.
    """
    with context.sessions.transaction() as session:
        lease = acquire(session, step, key, context.settings.jobs.lease_s, max_attempts=context.policy.max_attempts)
    if lease is None:
        log.info("nothing to do", step=step.value)
        return
    renewer = _LeaseRenewer(context, lease)
    renewer.start()
    try:
        work(lease, renewer.is_lost)
    except JobCancelledError as error:
        log.info("step dropped", reason=str(error))
    except DeepfakeStreamError as error:
        _release_after_error(context, lease, error)
    except OSError as error:
        # A full or unreachable disk, wherever it was met.
        log.exception("step failed")
        reason = StorageError("this service's storage failed")
        reason.__cause__ = error
        _release_after_error(context, lease, reason)
    except Exception:
        # Where the database is away, nothing can be given back either: then the lease runs out.
        log.exception("step failed unexpectedly")
        _release_after_error(context, lease, UnexpectedError("an internal error, which has been logged"))
    finally:
        renewer.stop()


def _release_after_error(context: Context, lease: Lease, error: DeepfakeStreamError) -> None:
    try:
        with context.sessions.transaction() as session:
            release(session, lease, error, context.policy)
    except JobCancelledError as reason:
        # Of a job that was erased meanwhile the file is gone, too: no wonder that the step failed.
        log.info("step dropped", reason=str(reason), code=error.code)
    except SQLAlchemyError:
        log.exception("step not given back; its lease will run out", code=error.code)
    else:
        log.warning("step failed", code=error.code, detail=str(error), attempt=lease.attempt)


class _LeaseRenewer(threading.Thread):
    """
    Renews a lease in the background while its step runs.

    A process that is killed stops renewing, and the sweep hands the step to another.
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
        """Renew no more."""
        self._done.set()
        self.join()

    def run(self) -> None:
        """Renew three times within each lease, so that one failed attempt does not lose it."""
        lease_s = self._context.settings.jobs.lease_s
        while not self._done.wait(lease_s / 3):
            try:
                with self._context.sessions.transaction() as session:
                    if not renew(session, self._lease, lease_s):
                        self._lost.set()
                        return
            except SQLAlchemyError:
                # The database may come back before the lease runs out; the record is fenced either way.
                log.warning("lease not renewed", exc_info=True)
