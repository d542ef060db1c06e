"""
gunicorn's configuration, from the api's own settings: ``gunicorn -c python:api.gunicorn``.

Threads, not processes, wait for slow uploads and for jobs; each process makes its own connections after the fork.
"""

import os
import signal
import threading
from queue import SimpleQueue
from typing import Any

from prometheus_client.multiprocess import mark_process_dead

from api.config import APISettings
from shared.config import load_settings
from shared.observability import MULTIPROCESS_VARIABLE, configure_logging

_settings = load_settings(APISettings)
configure_logging(_settings.logging)

wsgi_app = "api.app:from_environment()"
bind = [f"{_settings.api.host}:{_settings.api.port}"]
workers = _settings.api.processes
worker_class = "gthread"
threads = _settings.api.threads
timeout = _settings.api.request_timeout_s
graceful_timeout = _settings.api.shutdown_grace_s
keepalive = 5
backlog = 512
limit_request_line = 8190
limit_request_fields = 64
# Heartbeat files on a disk can block a process that the disk holds up.
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: PTH112, S108 - gunicorn wants a string
# Nobody here manages it by a socket, which it would make in a home directory.
control_socket_disable = True
# One log, ours: gunicorn's loggers hand their events to the root.
accesslog = None
errorlog = "-"
loglevel = _settings.logging.level.lower()
logger_class = "api.gunicorn.RootLogger"


class RootLogger:
    """Sends gunicorn's events through the root logger, in our form."""

    def __new__(cls, cfg: Any) -> Any:
        """gunicorn's own logger, with its handlers taken off."""
        from gunicorn.glogging import Logger

        logger = Logger(cfg)
        for log in (logger.error_log, logger.access_log):
            log.handlers[:] = []
            log.propagate = True
        return logger


def post_worker_init(worker: Any) -> None:
    """
    Let requests that wait for a job go on when the process is stop_requests to stop.

    They may wait for longer than ``shutdown_grace_s``, and would then be cut off without an answer.
    """
    listener = worker.wsgi.extensions["deepfakestream"].listener
    # A signal interrupts the main thread anywhere, also where it holds locks: of the queues, this one allows for that.
    stop_requests: SimpleQueue[int] = SimpleQueue()
    stop: Any = signal.getsignal(signal.SIGTERM)

    def end_waits() -> None:
        stop_requests.get()
        listener.end_waits()

    def stop_after_ending_waits(number: int, frame: Any) -> None:
        stop_requests.put(number)
        stop(number, frame)

    threading.Thread(target=end_waits, name="end-waits", daemon=True).start()
    signal.signal(signal.SIGTERM, stop_after_ending_waits)
    # As gunicorn has it: a signal must not break off what requests are doing.
    signal.siginterrupt(signal.SIGTERM, False)


def child_exit(server: Any, worker: Any) -> None:
    """Forget the live gauges of a process that has ended."""
    del server
    if os.environ.get(MULTIPROCESS_VARIABLE):
        mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]
