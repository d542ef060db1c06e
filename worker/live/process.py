"""The process of the stream role: it claims streams that nobody reads, and reads each in threads of its own."""

import signal
import threading
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from shared.observability import get_logger
from shared.queues import Sender, make_celery
from shared.streams.claims import claim_streams
from shared.tracing import start_tracing
from worker.config import WorkerSettings
from worker.live.run import StreamRun
from worker.media.sandbox import sandbox
from worker.metrics import serve_metrics
from worker.tasks.context import Context

log = get_logger(__name__)

LOOK_EVERY_S: Final = 1.0
"""How often the process looks for streams that nobody reads."""


class Readers:
    """
    The streams that this process reads.

    Args:
        context: Settings and connections.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._runs: list[StreamRun] = []

    def claim(self) -> None:
        """Claim streams that nobody reads, as many as the process may read."""
        self._runs = [run for run in self._runs if run.is_alive()]
        settings = self._context.settings
        free = settings.worker.streams - len(self._runs)
        if free <= 0:
            return
        with self._context.sessions.transaction() as session:
            claims = claim_streams(
                session, free, lease_s=settings.streams.lease_s, max_attempts=self._context.policy.max_attempts
            )
        for claim in claims:
            run = StreamRun(self._context, claim)
            self._runs.append(run)
            run.start()

    def stop(self) -> None:
        """Give all streams back, and wait until they are."""
        for run in self._runs:
            run.stop()
        for run in self._runs:
            run.join()


def run_readers(settings: WorkerSettings) -> None:
    """Read streams until SIGTERM or SIGINT."""
    start_tracing(settings.tracing, "worker-stream")
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    readers = Readers(Context.connect(settings, Sender(make_celery(settings.broker, settings.jobs))))
    serve_metrics(settings.worker)
    log.info("worker ready", role="stream", streams=settings.worker.streams, decoders=sandbox().describe())
    while not stopping.is_set():
        try:
            readers.claim()
        except SQLAlchemyError:
            log.warning("cannot look for streams", exc_info=True)
        stopping.wait(LOOK_EVERY_S)
    log.info("worker stops", role="stream")
    readers.stop()
