"""The life of one stream in a reader: its lease, its source, its rolling verdict and its end."""

import threading
import time
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from shared.errors import DeepfakeStreamError, JobCancelledError
from shared.jobs.leases import renew
from shared.jobs.queries import has_open_segments
from shared.manifests import Manifest
from shared.models import Job, Stream
from shared.observability import bind, get_logger
from shared.states import StreamEnd
from shared.streams.claims import Claim, give_back, keep_claim
from shared.streams.ending import begin_end, close_stream
from shared.streams.pieces import drop_late_segments, drop_open_segments, lock_stream
from shared.streams.pushing import is_abandoned, leave_pushed
from worker.live.judging import judge_segments
from worker.live.reading import PublisherReader, SourceReader
from worker.streams.rtmp.connection import Connection
from worker.tasks.context import Context

log = get_logger(__name__)

TICK_S: Final = 0.25
"""How often the state of a stream is looked at."""
DRAIN_S: Final = 20.0
"""How long the end of a stream waits for segments that are being scored; the rest is dropped."""
SETTLED_RENEWALS: Final = 5
"""After so many renewals of the lease, the stream has not killed its reader."""


class StreamRun(threading.Thread):
    """
    A thread that reads a claimed stream until it ends, is lost to another reader, or the process stops.

    A stream that is published ends here with its publisher, as soon as the last scores are judged: the next connection
    is another claim.

    Args:
        context: Settings and connections.
        claim: The stream.
        connection: That of the publisher, of a stream that is published; None to follow its last scores or to end it.
    """

    def __init__(self, context: Context, claim: Claim, connection: Connection | None = None) -> None:
        super().__init__(name="stream", daemon=True)
        self._context, self._claim = context, claim
        self._settings = context.settings.streams
        self._source: SourceReader | None = None
        if connection is not None:
            self._source = PublisherReader(context, claim, self._lost_set, connection)
        elif not claim.is_pushed:
            self._source = SourceReader(context, claim, self._end, self._lost_set)
        self._has_left = self._source is None
        """Whether the publisher is away, of a stream that is published."""
        self._lost = threading.Event()
        self._stopping = threading.Event()
        self._source_end: StreamEnd | None = None
        """Written by the source's thread alone, as ``_why`` is by this one: neither may undo what the other found."""
        self._why: StreamEnd | None = claim.ending
        self._drains_until: float | None = None
        self._has_missed = True
        self._renewed = time.monotonic()
        self._renewals = 0

    @property
    def is_reading(self) -> bool:
        """Whether it counts towards the streams that the process may read; not while it only waits for scores."""
        return not self._has_left

    def stop(self) -> None:
        """Ask the thread to give the stream back, since the process stops."""
        self._stopping.set()

    def run(self) -> None:
        """Read the stream."""
        with bind(job_id=str(self._claim.lease.job_id)):
            log.info("stream claimed", attempt=self._claim.lease.attempt, ending=self._claim.ending)
            try:
                self._run()
            except Exception:
                # The lease expires, and another attempt is counted.
                log.exception("stream failed unexpectedly")
            finally:
                self._stop_source()

    def _run(self) -> None:
        if self._claim.manifest is None:
            raise RuntimeError("a stream has no manifest")
        manifest = Manifest.from_pin(self._claim.manifest)
        if self._why is None and self._source is not None:
            self._source.start()
        while not self._lost.is_set():
            if self._stopping.is_set():
                self._give_back()
                return
            try:
                if self._tick(manifest):
                    log.info("stream left", why=self._why)
                    return
            except JobCancelledError as reason:
                log.info("stream abandoned", reason=str(reason))
                return
            except (SQLAlchemyError, OSError, DeepfakeStreamError):
                log.warning("stream not followed", exc_info=True)
                if time.monotonic() - self._renewed > self._settings.lease_s:
                    # Another reader may have it by now.
                    return
            self._stopping.wait(TICK_S)

    def _tick(self, manifest: Manifest) -> bool:
        """Do what is due; return whether the stream is over for its reader."""
        self._renew()
        # Before anything is judged: what the publisher sent last is recorded by then.
        self._has_left = self._claim.is_pushed and (self._source is None or not self._source.is_alive())
        if self._has_left and self._lost.is_set():
            # Its thread failed since that was asked last. Whoever takes the stream when the lease expires records it.
            return True
        self._why = self._why or self._source_end
        if self._why is not None and self._drains_until is None:
            # What is missed from here on is no part of the stream, however long the last piece takes to be recorded.
            self._has_missed = self._source is None or not self._source.is_connected
            # The last piece is recorded before the end is.
            self._stop_source()
            self._drains_until = time.monotonic() + DRAIN_S
        with self._context.sessions.transaction() as session:
            job, stream = lock_stream(session, self._claim.lease)
            self._why = self._why or self._find_end(session, job, stream)
            if self._drains_until is not None and self._why is not None:
                begin_end(session, job, stream, self._why, has_missed=self._has_missed)
            drop_late_segments(session, job, stream, self._settings.max_waiting)
            judged = judge_segments(session, job, stream, manifest, self._settings)
            if self._drains_until is None:
                is_done = self._has_left and self._why is None and not judged and not has_open_segments(session, job.id)
                if is_done:
                    self._leave(session, is_done=True)
                return is_done
            is_late = time.monotonic() > self._drains_until
            if has_open_segments(session, job.id):
                if not is_late:
                    return False
                drop_open_segments(session, job, stream)
                judged = 1
            while judged:
                # There may be more to judge.
                judged = judge_segments(session, job, stream, manifest, self._settings)
            close_stream(session, job, stream)
        return True

    def _find_end(self, session: Session, job: Job, stream: Stream) -> StreamEnd | None:
        """Return why the stream has to end now, if it has."""
        if stream.stop_requested_at is not None:
            return StreamEnd.REQUEST
        if self._claim.is_pushed and is_abandoned(session, stream, self._settings):
            return StreamEnd.SOURCE
        elapsed_s = session.scalar(
            select(func.extract("epoch", func.clock_timestamp() - Job.started_at)).where(Job.id == job.id)
        )
        return StreamEnd.DURATION if (elapsed_s or 0.0) >= stream.duration_limit_s else None

    def _renew(self) -> None:
        if time.monotonic() - self._renewed < self._settings.lease_s / 3:
            return
        began = time.monotonic()
        with self._context.sessions.transaction() as session:
            if not renew(session, self._claim.lease, self._settings.lease_s):
                raise JobCancelledError("the lease was lost, or the stream has ended")
            self._renewals += 1
            if self._renewals == SETTLED_RENEWALS:
                keep_claim(session, self._claim.lease)
        self._renewed = began

    def _give_back(self) -> None:
        self._stop_source()
        with self._context.sessions.transaction() as session:
            if self._claim.is_pushed:
                self._leave(session, is_done=False)
            else:
                give_back(session, self._claim.lease)
        log.info("stream given back")

    def _leave(self, session: Session, *, is_done: bool) -> None:
        leave_pushed(session, self._claim.lease, has_read=self._source is not None, is_done=is_done)

    def _stop_source(self) -> None:
        if self._source is not None:
            self._source.stop()
            if self._source.is_alive():
                self._source.join()

    def _end(self, why: StreamEnd) -> None:
        self._source_end = why

    def _lost_set(self) -> None:
        self._lost.set()
