"""
Configuration of gunicorn from the settings of the api: ``gunicorn -c python:api.gunicorn``.

Threads wait for slow uploads and for jobs. Each process opens its own connections after the fork.
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
# Heartbeat files on a slow disk can block a process.
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: PTH112, S108 - gunicorn wants a string
# The control socket, which gunicorn would create in a home directory, is not used.
control_socket_disable = True
# gunicorn's loggers pass their events to the root logger.
accesslog = None
errorlog = "-"
loglevel = _settings.logging.level.lower()
logger_class = "api.gunicorn.RootLogger"


class RootLogger:
    """A logger class that passes gunicorn's events to the root logger."""

    def __new__(cls, cfg: Any) -> Any:
        """Return gunicorn's logger without its handlers."""
        from gunicorn.glogging import Logger

        logger = Logger(cfg)
        for log in (logger.error_log, logger.access_log):
            log.handlers[:] = []
            log.propagate = True
        return logger


def post_worker_init(worker: Any) -> None:
    """
    End the waits of requests for jobs when the process is asked to stop.

    They could last longer than ``shutdown_grace_s`` and would then be aborted without a response.
    """
    listener = worker.wsgi.extensions["deepfakestream"].listener
    # A signal handler may interrupt code that holds locks. SimpleQueue is reentrant, so that it is safe here.
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
    # As in gunicorn: a signal must not interrupt system calls of requests.
    signal.siginterrupt(signal.SIGTERM, False)


def child_exit(server: Any, worker: Any) -> None:
    """Forget the live gauges of a process that has ended."""
    del server
    if os.environ.get(MULTIPROCESS_VARIABLE):
        mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]
