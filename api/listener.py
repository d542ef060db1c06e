"""
Notifications of the end of jobs, with one connection and one thread of a process for all requests that wait.

A trigger of the database sends a notification when the end or erasure of a job is committed. A notification only makes
a request look at the row again, so that spurious ones are harmless. Without notifications, requests poll.
"""

import os
import socket
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import psycopg
from sqlalchemy import Engine, func, make_url, select
from sqlalchemy.exc import SQLAlchemyError

from shared.observability import get_logger

log = get_logger(__name__)

CHANNEL: Final = "deepfakestream_job_ended"
"""The channel of the trigger in migration 0010; the payload is the job's id."""
FALLBACK_POLL_S: Final = 10.0
"""Polling interval while notifications arrive, in case one is lost."""
DISCONNECTED_POLL_S: Final = 1.0
"""Least polling interval while the connection is lost, usually for the seconds of a restart of Postgres."""
MIN_RECONNECT_S: Final = 0.1
MAX_RECONNECT_S: Final = 15.0
NO_NOTIFICATIONS_RETRY_S: Final = 300.0
"""Wait before another attempt if notifications do not arrive, since that is a matter of configuration."""
SELF_TEST_TIMEOUT_S: Final = 2.0
"""The longest that a test notification from another connection may take."""
TCP_KEEPALIVE: Final = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
"""TCP keepalive in seconds. Without it, the loss of a silent server would be noticed only after hours."""


class _NoNotificationsError(Exception):
    """The connection listens, but notifications do not arrive."""


class JobEndListener:
    """
    A listener that wakes the requests of this process when their jobs end.

    Its thread starts with the first waiting request, and therefore after the fork. It ends with the process, or with
    ``close``.
    """

    def __init__(self, engine: Engine, listen_url: str | None, *, connect_timeout_s: int, poll_every_s: float) -> None:
        """
        Make a listener without connecting it.

        Args:
            engine: The engine for test notifications; one connection is used briefly.
            listen_url: SQLAlchemy address for listening: that of the server, or of a pooler in session mode. None to
                poll only.
            connect_timeout_s: Timeout of connecting.
            poll_every_s: Polling interval of requests without notifications.
        """
        self._engine, self._url = engine, listen_url
        self._connect_timeout_s = connect_timeout_s
        self._configured_poll_s = self._poll_every_s = poll_every_s
        self._lock = threading.Lock()
        self._waiters: defaultdict[str, set[threading.Event]] = defaultdict(set)
        self._thread: threading.Thread | None = None
        self._connection: psycopg.Connection[Any] | None = None
        self._closing = threading.Event()
        self.is_ending_waits = False
        """Whether this process has been asked to stop, so that requests have to end their waits."""
        self.is_listening = False
        """Whether notifications arrive at the moment."""

    @property
    def waiters(self) -> int:
        """The number of requests that wait at the moment."""
        with self._lock:
            return sum(map(len, self._waiters.values()))

    def wait(self, job_id: uuid.UUID, has_ended: Callable[[], bool], wait_s: float) -> bool:
        """
        Wait until *has_ended* returns true, *wait_s* seconds are over, or ``end_waits`` is called.

        Args:
            has_ended: Checks the row of the job. Errors of the first check are raised. Later errors of the database
                count as false, so that a restart of Postgres does not end the wait.

        Returns:
            False if ``end_waits`` ended the wait.
        """
        deadline = time.monotonic() + wait_s
        # Subscribing before the first check ensures that no end is missed.
        with self._subscribed(job_id) as woken:
            if has_ended():
                return True
            while (left_s := deadline - time.monotonic()) > 0:
                if self.is_ending_waits:
                    return False
                is_due = woken.wait(min(left_s, self._poll_every_s)) or time.monotonic() < deadline
                woken.clear()
                if is_due and _check_safely(has_ended):
                    return True
        return True

    def end_waits(self) -> None:
        """End all waits now and in the future, since the process is stopping."""
        self.is_ending_waits = True
        self._wake_all()

    def close(self) -> None:
        """Stop listening."""
        self._closing.set()
        with self._lock:
            thread = self._thread
            if self._connection is not None:
                _shut_down(self._connection)
        if thread is not None:
            thread.join()

    @contextmanager
    def _subscribed(self, job_id: uuid.UUID) -> Iterator[threading.Event]:
        key, woken = str(job_id), threading.Event()
        with self._lock:
            self._waiters[key].add(woken)
            if self._thread is None and self._url is not None and not self._closing.is_set():
                self._thread = threading.Thread(target=self._listen, name="job-listener", daemon=True)
                self._thread.start()
        try:
            yield woken
        finally:
            with self._lock:
                self._waiters[key].discard(woken)
                if not self._waiters[key]:
                    del self._waiters[key]

    def _listen(self) -> None:
        pause_s = MIN_RECONNECT_S
        while not self._closing.is_set():
            try:
                with self._connected() as connection:
                    pause_s = MIN_RECONNECT_S
                    # Jobs may have ended before the connection listened.
                    self._set_state(is_listening=True, poll_every_s=FALLBACK_POLL_S)
                    for notification in connection.notifies():
                        self._wake(notification.payload)
            except _NoNotificationsError:
                log.warning(
                    "notifications do not arrive; set api.listen_url if database.url is that of a connection pooler"
                )
                self._set_state(is_listening=False, poll_every_s=self._configured_poll_s)
                self._closing.wait(NO_NOTIFICATIONS_RETRY_S)
            except Exception as error:
                if not self._closing.is_set():
                    is_expected = isinstance(error, psycopg.Error | SQLAlchemyError | OSError)
                    log.warning(
                        "cannot listen for notifications",
                        why=type(error).__name__,
                        again_in_s=pause_s,
                        exc_info=None if is_expected else error,
                    )
                self._set_state(is_listening=False, poll_every_s=max(self._configured_poll_s, DISCONNECTED_POLL_S))
                self._closing.wait(pause_s)
                pause_s = min(2 * pause_s, MAX_RECONNECT_S)

    @contextmanager
    def _connected(self) -> Iterator[psycopg.Connection[Any]]:
        """Open a connection that listens, and check that notifications from other connections arrive."""
        _, arguments = self._engine.dialect.create_connect_args(make_url(self._url or ""))
        own: dict[str, Any] = {"connect_timeout": self._connect_timeout_s, "autocommit": True, **TCP_KEEPALIVE}
        with psycopg.connect(**arguments, **own) as connection:
            with self._lock:
                self._connection = connection
                if self._closing.is_set():
                    _shut_down(connection)
            try:
                connection.execute(f"listen {CHANNEL}")
                self._test_notifications(connection)
                yield connection
            finally:
                with self._lock:
                    self._connection = None

    def _test_notifications(self, connection: psycopg.Connection[Any]) -> None:
        # It is sent on another connection, since poolers that lose notifications may still deliver those of the same
        # one.
        token = uuid.uuid4().hex
        with self._engine.begin() as another:
            another.execute(select(func.pg_notify(CHANNEL, token)))
        if all(notification.payload != token for notification in connection.notifies(timeout=SELF_TEST_TIMEOUT_S)):
            raise _NoNotificationsError

    def _set_state(self, *, is_listening: bool, poll_every_s: float) -> None:
        with self._lock:
            self.is_listening, self._poll_every_s = is_listening, poll_every_s
        self._wake_all()

    def _wake_all(self) -> None:
        with self._lock:
            for waiters in self._waiters.values():
                for woken in waiters:
                    woken.set()

    def _wake(self, key: str) -> None:
        with self._lock:
            for woken in self._waiters.get(key, ()):
                woken.set()


def _check_safely(has_ended: Callable[[], bool]) -> bool:
    try:
        return has_ended()
    except SQLAlchemyError as error:
        log.debug("check of a job failed", why=type(error).__name__)
        return False


def _shut_down(connection: psycopg.Connection[Any]) -> None:
    """Shut down the socket of a connection, so that a read in another thread ends."""
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as end:
        end.shutdown(socket.SHUT_RDWR)
