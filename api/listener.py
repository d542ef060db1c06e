"""
Hearing of the end of jobs: one connection that listens to Postgres, and one thread, for all requests that wait.

A trigger of the database notifies of a job's end or erasure when that is committed. What is heard is only a reason to
look at the row again, so that a notification too many does no harm; and while nothing can be heard, requests look again
and again.
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
"""Migration 0010 has a trigger that notifies on it, with the job's id."""
FALLBACK_POLL_S: Final = 10.0
"""While notifications are heard: a net, should one be lost after all."""
DISCONNECTED_POLL_S: Final = 1.0
"""While the connection is lost, which a restart of Postgres ends within seconds."""
MIN_RECONNECT_S: Final = 0.1
MAX_RECONNECT_S: Final = 15.0
NO_NOTIFICATIONS_RETRY_S: Final = 300.0
"""Where what is notified does not arrive: that is how it was set up, and does not pass by itself."""
SELF_TEST_TIMEOUT_S: Final = 2.0
"""In which a notification has to arrive that was sent on another connection."""
TCP_KEEPALIVE: Final = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
"""Seconds: a server that is gone without a word would otherwise be listened to for hours."""


class _NoNotificationsError(Exception):
    """The connection listens, and what is notified does not arrive."""


class JobEndListener:
    """
    Wakes the requests of this process that wait for the end of a job.

    The thread begins with the first of them, so it is always that of the process that answers, whatever forked it. It
    ends with the process, or with ``close``.
    """

    def __init__(self, engine: Engine, listen_url: str | None, *, connect_timeout_s: int, poll_every_s: float) -> None:
        """
        Make it; nothing is connected yet.

        Args:
            engine: On the database, for sending; no more than one of its connections is taken at a time, and briefly.
            listen_url: SQLAlchemy address of the database, for listening: one that leads to the server itself, or to a
                pooler that lends connections by session. None to listen to nothing.
            poll_every_s: How often a request looks at its job where nothing can be heard.
        """
        self._engine, self._url = engine, listen_url
        self._connect_timeout_s = connect_timeout_s
        self._configured_poll_s = self._poll_every_s = poll_every_s
        self._lock = threading.Lock()
        self._waiters: defaultdict[str, set[threading.Event]] = defaultdict(set)
        self._thread: threading.Thread | None = None
        self._connection: psycopg.Connection[Any] | None = None
        self._closing = threading.Event()
        self._is_ending_waits = False
        self.is_listening = False
        """Whether the end of a job is heard at the moment."""

    @property
    def waiters(self) -> int:
        """How many requests wait at the moment."""
        with self._lock:
            return sum(map(len, self._waiters.values()))

    def wait(self, job_id: uuid.UUID, has_ended: Callable[[], bool], wait_s: float) -> bool:
        """
        Return when *has_ended*, when *wait_s* seconds are over, or at once when waits have to end.

        Args:
            has_ended: Looks at the row of the job. What it raises at the first look comes through; later, if it is the
                database's, it is taken for a look that found nothing, so that a restart of Postgres ends no wait.

        Returns:
            False if the wait was cut short by ``end_waits``.
        """
        deadline = time.monotonic() + wait_s
        # In this order: of an end after the look there is a notification, and one before it is seen.
        with self._subscribed(job_id) as woken:
            if has_ended():
                return True
            while (left_s := deadline - time.monotonic()) > 0:
                if self._is_ending_waits:
                    return False
                is_due = woken.wait(min(left_s, self._poll_every_s)) or time.monotonic() < deadline
                woken.clear()
                if is_due and _check_safely(has_ended):
                    return True
        return True

    def end_waits(self) -> None:
        """Let all requests that wait, or begin to, go on at once: the process has been asked to stop."""
        self._is_ending_waits = True
        self._wake_all()

    def close(self) -> None:
        """Listen no more."""
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
                    # Some may have ended unheard until now.
                    self._set_state(is_listening=True, poll_every_s=FALLBACK_POLL_S)
                    for notification in connection.notifies():
                        self._wake(notification.payload)
            except _NoNotificationsError:
                log.warning("notifications do not arrive: see api.listen_url for poolers of connections")
                self._set_state(is_listening=False, poll_every_s=self._configured_poll_s)
                self._closing.wait(NO_NOTIFICATIONS_RETRY_S)
            except Exception as error:
                if not self._closing.is_set():
                    is_expected = isinstance(error, psycopg.Error | SQLAlchemyError | OSError)
                    log.warning(
                        "nothing to listen on",
                        why=type(error).__name__,
                        again_in_s=pause_s,
                        exc_info=None if is_expected else error,
                    )
                self._set_state(is_listening=False, poll_every_s=max(self._configured_poll_s, DISCONNECTED_POLL_S))
                self._closing.wait(pause_s)
                pause_s = min(2 * pause_s, MAX_RECONNECT_S)

    @contextmanager
    def _connected(self) -> Iterator[psycopg.Connection[Any]]:
        """A connection that is proved to hear what is notified on others."""
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
        # On one and the same connection even a pooler passes it on that loses all others.
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
        log.debug("the database failed a look at a job", why=type(error).__name__)
        return False


def _shut_down(connection: psycopg.Connection[Any]) -> None:
    """End a connection that another thread reads from, so that its read ends as well."""
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as end:
        end.shutdown(socket.SHUT_RDWR)
