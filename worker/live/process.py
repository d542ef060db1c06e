"""The process of the stream role: it claims streams that nobody reads, and reads each in threads of its own."""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from queue import Empty, SimpleQueue
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from shared.commands import CommandError
from shared.config import Streams
from shared.observability import get_logger
from shared.queues import Sender, make_celery
from shared.streams.claims import Claim, claim_streams
from shared.streams.pushing import Refusal, claim_pushed, claim_unattended, find_pushed
from shared.tracing import start_tracing
from worker.config import WorkerSettings
from worker.live.run import StreamRun
from worker.media.sandbox import sandbox
from worker.metrics import serve_metrics
from worker.streams.rtmp.connection import Connection, ConnectionLostError
from worker.streams.rtmp.listener import Certificate, PushListener
from worker.streams.values import StreamLimits
from worker.tasks.context import Context

log = get_logger(__name__)

LOOK_EVERY_S: Final = 1.0
"""How often the process looks for streams that nobody reads."""
STOP_POLL_S: Final = 0.05
RESERVE_TIMEOUT_S: Final = 5.0
"""How long a publisher waits for a claim, which asks the database, before it is told to try again."""
NO_ANSWER: Final = "the service cannot look the key up at the moment; try again"
"""Why a publisher is refused whose stream the database does not tell."""
MAX_UNATTENDED: Final = 4
"""The most published streams without a publisher that are taken at a time, to be ended or to follow their scores."""


class Readers:
    """
    The streams that this process reads.

    Args:
        context: Settings and connections.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._runs: list[StreamRun] = []
        self._taking = threading.Lock()
        """Held while places are counted and taken: whoever counts them must not see those that a claim is taking."""
        self._lock = threading.Lock()
        self._reserved = 0
        """Places for publishers whose stream is being claimed."""
        self._is_stopping = False

    def claim(self) -> None:
        """Claim streams that nobody reads, as many as the process may read, and published ones that are to end."""
        settings, max_attempts = self._context.settings, self._context.policy.max_attempts
        with self._taking:
            with self._context.sessions.transaction() as session:
                claims = claim_unattended(session, MAX_UNATTENDED, settings.streams, max_attempts=max_attempts)
                claims += claim_streams(
                    session, self._count_free(), lease_s=settings.streams.lease_s, max_attempts=max_attempts
                )
            for claim in claims:
                self._begin(claim)

    def publish(self, key: str, connection: Connection) -> str | None:
        """
        Read what a publisher sends, in threads of its own.

        Returns:
            None if the connection was taken over; otherwise, why it is refused, for the publisher.
        """
        settings = self._context.settings
        try:
            with self._context.sessions.transaction() as session:
                job_id = find_pushed(session, key)
            if job_id is None:
                return "no open stream has this key"
            if (refusal := self._reserve()) is not None:
                return refusal
            try:
                with self._context.sessions.transaction() as session:
                    claim = claim_pushed(
                        session,
                        job_id,
                        lease_s=settings.streams.lease_s,
                        max_attempts=self._context.policy.max_attempts,
                    )
                if isinstance(claim, Claim):
                    connection.session.accept()
                    with contextlib.suppress(ConnectionLostError):
                        connection.flush()
                    self._begin(claim, connection)
                    return None
            finally:
                with self._lock:
                    self._reserved -= 1
        except SQLAlchemyError:
            log.warning("cannot look up the key of a publisher", exc_info=True)
            return NO_ANSWER
        if claim is Refusal.PUBLISHED:
            return "another publisher sends this stream at the moment"
        return "no open stream has this key"

    def stop(self) -> None:
        """Give all streams back, and wait until they are."""
        with self._lock:
            self._is_stopping = True
        is_last = False
        while not is_last:
            with self._lock:
                # A publisher whose stream is being claimed begins a run before it gives up its place.
                runs, is_last = list(self._runs), self._reserved == 0
            for run in runs:
                run.stop()
            for run in runs:
                run.join()
            if not is_last:
                time.sleep(STOP_POLL_S)

    def _begin(self, claim: Claim, connection: Connection | None = None) -> None:
        run = StreamRun(self._context, claim, connection)
        with self._lock:
            if self._is_stopping:
                run.stop()
            run.start()
            self._runs.append(run)

    def _reserve(self) -> str | None:
        """Keep a place for a publisher; return why there is none, for the publisher."""
        if not self._taking.acquire(timeout=RESERVE_TIMEOUT_S):
            log.warning("the database does not answer a claim, so that a publisher is refused")
            return NO_ANSWER
        try:
            with self._lock:
                is_free = not self._is_stopping and self._count_free_locked() > 0
                self._reserved += is_free
        finally:
            self._taking.release()
        return None if is_free else "this reader has as many streams as it can read; try again"

    def _count_free(self) -> int:
        with self._lock:
            return max(0, self._count_free_locked())

    def _count_free_locked(self) -> int:
        self._runs = [run for run in self._runs if run.is_alive()]
        used = self._reserved + sum(run.is_reading for run in self._runs)
        return self._context.settings.worker.streams - used


def run_readers(settings: WorkerSettings) -> None:
    """Read streams until SIGTERM or SIGINT."""
    start_tracing(settings.tracing, "worker-stream")
    # A signal handler may interrupt code that holds locks, as that of an event does while somebody waits for it.
    # SimpleQueue is reentrant, so that it is safe here.
    stop_requests: SimpleQueue[int] = SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: stop_requests.put(number))
    readers = Readers(Context.connect(settings, Sender(make_celery(settings.broker, settings.jobs))))
    serve_metrics(settings.worker)
    with listening(readers, settings.streams):
        log.info("worker ready", role="stream", streams=settings.worker.streams, decoders=sandbox().describe())
        while stop_requests.empty():
            try:
                readers.claim()
            except SQLAlchemyError:
                log.warning("cannot look for streams", exc_info=True)
            with contextlib.suppress(Empty):
                stop_requests.get(timeout=LOOK_EVERY_S)
                break
    log.info("worker stops", role="stream")
    readers.stop()


@contextlib.contextmanager
def listening(readers: Readers, settings: Streams) -> Iterator[PushListener | None]:
    """
    Accept publishers for *readers*, where the settings say so.

    Raises:
        CommandError: The port cannot be opened, or a file of the certificate cannot be read.
    """
    if settings.push_endpoint is None:
        yield None
        return
    certificate = None
    try:
        if settings.push_certificate_file is not None:
            certificate = Certificate(settings.push_certificate_file, settings.push_certificate_key_file)
    except OSError as error:
        raise CommandError(
            f"streams.push_certificate_file: no certificate with its key can be read ({error})"
        ) from error
    host, port = settings.push_endpoint
    try:
        listener = PushListener(host, port, readers.publish, limits=StreamLimits(), certificate=certificate)
    except OSError as error:
        raise CommandError(f"streams.push_listen: port {port} cannot be opened ({error.strerror})") from error
    with listener:
        log.info("publishers are accepted", port=listener.port, tls=certificate is not None)
        yield listener
