"""The whole service on one machine: Postgres, Redis, api, workers, beat and Flower, with their state in one folder."""

import contextlib
import errno
import fcntl
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import httpx
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_fixed

from deepfakestream.connection import API_KEY_FILE, CONNECTION_FILE, LOCK_FILE, OPERATOR_VARIABLES
from deepfakestream.stack.processes import Service
from deepfakestream.stack.servers import Postgres, Redis, StackError

READY_TIMEOUT_S = 180.0
POLL_S = 0.2
WORKER_NICENESS = 10
"""Scoring gives way to answering: whoever polls does not wait for whoever scores."""
API_PORT = 8000
FLOWER_PORT = 5555
"""From where on free ports are looked for."""
LOCK_ATTEMPTS = 10
LOCK_PAUSE_S = 0.02
CONFIG = Path(__file__).with_name("embedded.yaml")

Say = Callable[[str], None]


class EmbeddedStack:
    """
    Runs the service while its context lasts.

    Args:
        state: Folder of everything that survives a restart.
        port: Of the api; the first free one from 8000 on if not given.
        flower_port: Of Flower; the first free one from 5555 on if not given.
        say: Called with a line about each step.
    """

    def __init__(
        self,
        state: Path,
        *,
        port: int | None = None,
        flower_port: int | None = None,
        say: Say = lambda _: None,
    ) -> None:
        self.state = state.absolute()
        self._say = say
        self._wanted_port, self._wanted_flower_port = port, flower_port
        self._postgres = Postgres(self.state / "postgres")
        self._redis = Redis(self.state / "redis")
        self._services: list[Service] = []
        self._lock: IO[str] | None = None
        self.url = ""
        self.flower_url = ""
        self.metrics_urls: list[str] = []

    @property
    def api_key_file(self) -> Path:
        """Where the API key is; readable by its owner alone."""
        return self.state / API_KEY_FILE

    @property
    def webhook_secret_file(self) -> Path:
        """Where the secret that signs webhooks is."""
        return self.state / "secrets" / "webhook-secret"

    @property
    def flower_password_file(self) -> Path:
        """Where Flower's password is; its user is ``operator``."""
        return self.state / "secrets" / "flower-password"

    def __enter__(self) -> Self:
        try:
            self._start()
        except OSError as error:
            self._stop()
            raise StackError(f"the service could not be started with its state in {self.state}: {error}") from error
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def watch(self) -> None:
        """Restart what dies, for ever. Raises StackError when something dies again and again."""
        while True:
            self.restart_dead()
            time.sleep(POLL_S)

    def restart_dead(self) -> None:
        """Restart what has died. Raises StackError when something dies again and again."""
        for service in self._services:
            if not service.has_died():
                continue
            if not service.may_restart():
                raise StackError(f"{service.name} dies again and again:\n{service.last_lines()}")
            self._say(f"{service.name} died and is started again; see {service.log}")
            service.start()

    def _start(self) -> None:
        self._prepare_folders()
        self._take_lock()
        # Before anything runs, since a person may have to choose others.
        port, flower_port = choose_ports(self._wanted_port, self._wanted_flower_port)
        self.url, self.flower_url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{flower_port}"
        self._say("starting Postgres")
        database_url = self._postgres.start()
        self._say("starting Redis")
        environment = self._environment(database_url, port, flower_port)
        redis = self._add("redis", self._redis.command(), environment)
        self._redis.wait(redis)
        self._say("migrating the database")
        self._run("-m", "migrations", "upgrade", environment=environment)
        self._make_secrets(environment)
        self._say("starting api, workers, beat and Flower")
        python = sys.executable
        api_metrics = self._metrics_folder("api")
        self._add("api", [python, "-m", "gunicorn", "-c", "python:api.gunicorn"], environment | api_metrics)
        for role in ("cpu", "gpu"):
            port = free_port()
            own = self._metrics_folder(f"worker-{role}") | {"DEEPFAKESTREAM_WORKER__METRICS_PORT": str(port)}
            self.metrics_urls.append(f"http://127.0.0.1:{port}/metrics")
            command = [python, "-m", "worker", "--role", role]
            self._add(f"worker-{role}", command, environment | own, grace_s=15.0, niceness=WORKER_NICENESS)
        self._add("beat", [python, "-m", "worker", "beat"], environment)
        password = self.flower_password_file.read_text().strip()
        self._add(
            "flower",
            [python, "-m", "worker", "flower"],
            environment | {"DEEPFAKESTREAM_WORKER__FLOWER__PASSWORD": password},
        )
        self._wait_until_ready()
        connection = {
            "url": self.url,
            # For operators' commands; these are Unix sockets, and hold no secret.
            "environment": {name: environment[name] for name in OPERATOR_VARIABLES},
        }
        (self.state / CONNECTION_FILE).write_text(json.dumps(connection))

    def _stop(self) -> None:
        if self._lock is None:
            # Another stack has the folder: nothing in it, and nothing running, is ours.
            return
        (self.state / CONNECTION_FILE).unlink(missing_ok=True)
        # Requests first, the database last. Asking all at once lets them stop side by side.
        servers = [service for service in self._services if service.name == "redis"]
        others = [service for service in self._services if service.name != "redis"]
        for service in others:
            service.ask_to_stop()
        for service in [*others, *servers]:
            service.stop()
        self._services.clear()
        self._postgres.stop()
        self._lock.close()
        self._lock = None

    def _prepare_folders(self) -> None:
        prepare_folder(self.state)
        for name, mode in (("logs", 0o755), ("secrets", 0o700), ("storage", 0o700), ("metrics", 0o755)):
            prepare_folder(self.state / name, mode=mode)

    def _take_lock(self) -> None:
        try:
            lock = (self.state / LOCK_FILE).open("w")
        except OSError as error:
            raise _unusable(self.state / LOCK_FILE, error) from error
        # Commands that look whether a stack runs hold it for a moment.
        attempts = Retrying(
            retry=retry_if_exception_type(BlockingIOError),
            stop=stop_after_attempt(LOCK_ATTEMPTS),
            wait=wait_fixed(LOCK_PAUSE_S),
            reraise=True,
        )
        try:
            attempts(fcntl.flock, lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.close()
            raise StackError(f"a stack is running already with its state in {self.state}") from error
        self._lock = lock

    def _environment(self, database_url: str, port: int, flower_port: int) -> dict[str, str]:
        given = {
            "DEEPFAKESTREAM_CONFIG": str(CONFIG),
            "DEEPFAKESTREAM_DATABASE__URL": database_url,
            "DEEPFAKESTREAM_BROKER__URL": self._redis.url,
            "DEEPFAKESTREAM_STORAGE__URL": f"file://{self.state / 'storage'}",
            "DEEPFAKESTREAM_API__HOST": "127.0.0.1",
            "DEEPFAKESTREAM_API__PORT": str(port),
            "DEEPFAKESTREAM_WORKER__FLOWER__PORT": str(flower_port),
        }
        # The installed packages may be a checkout that is on the path by way of the current folder alone.
        path = os.pathsep.join(entry for entry in (os.getcwd(), os.environ.get("PYTHONPATH", "")) if entry)  # noqa: PTH109
        return {**os.environ, **given, "PYTHONPATH": path}

    def _metrics_folder(self, name: str) -> dict[str, str]:
        folder = self.state / "metrics" / name
        # What another run counted would be added to this one's.
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return {"PROMETHEUS_MULTIPROC_DIR": str(folder)}

    def _add(
        self,
        name: str,
        command: list[str],
        environment: dict[str, str],
        *,
        grace_s: float = 10.0,
        niceness: int = 0,
    ) -> "subprocess.Popen[bytes]":
        service = Service(
            name,
            command,
            environment=environment,
            folder=self.state,
            log=self.state / "logs" / f"{name}.log",
            grace_s=grace_s,
            niceness=niceness,
        )
        self._services.append(service)
        return service.start()

    def _run(self, *arguments: str, environment: dict[str, str]) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            env=environment,
            cwd=self.state,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise StackError(f"'python {' '.join(arguments)}' failed:\n{done.stderr.strip()[-2000:]}")
        return done.stdout

    def _make_secrets(self, environment: dict[str, str]) -> None:
        if not self.flower_password_file.exists():
            _write_secret(self.flower_password_file, secrets.token_urlsafe(18))
        if self.api_key_file.exists():
            return
        self._say("making the first API key")
        made: dict[str, Any] = json.loads(
            self._run(
                *("-m", "api.keys", "create", "--owner", "local", "--name", "embedded", "--json"),
                environment=environment,
            )
        )
        _write_secret(self.webhook_secret_file, made["webhook_secret"])
        _write_secret(self.api_key_file, made["key"])

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        waiting = [f"{self.url}/readyz", *self.metrics_urls]
        while waiting:
            waiting = [url for url in waiting if not _answers(url)]
            for service in self._services:
                if service.has_died():
                    raise StackError(f"{service.name} did not start:\n{service.last_lines()}")
            if time.monotonic() > deadline:
                raise StackError(f"not ready after {READY_TIMEOUT_S:g} s: {', '.join(waiting)}")
            time.sleep(POLL_S)


def prepare_folder(path: Path, *, mode: int = 0o777) -> Path:
    """
    Make the folder at *path*, with those above it, unless it is there.

    Raises:
        StackError: It cannot be a folder, or nothing can be written into it.
    """
    try:
        path.mkdir(parents=True, exist_ok=True, mode=mode)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise _unusable(path, error) from error
    return path


def _unusable(path: Path, error: OSError) -> StackError:
    why = (
        "it is no folder" if isinstance(error, (FileExistsError, NotADirectoryError)) else error.strerror or str(error)
    )
    return StackError(f"{path} cannot be used for the state of the service ({why}): choose another folder with --state")


def choose_ports(port: int | None, flower_port: int | None) -> tuple[int, int]:
    """
    The loopback ports of the api and of Flower: those given, or the first free ones from 8000 and 5555 on.

    Raises:
        StackError: One that was given is taken, or they are the same.
    """
    if port is not None and port == flower_port:
        raise StackError(f"port {port} is given to both the api and Flower: choose another one with --flower-port")
    for name, option, given in (("the api", "--port", port), ("Flower", "--flower-port", flower_port)):
        if given is not None and (why := _obstacle(given)) is not None:
            raise StackError(
                f"port {given}, for {name}, {why}: choose another one with {option},"
                f" or leave {option} out to get the first free one"
            )
    port = port or free_port(start=API_PORT, besides=flower_port)
    return port, flower_port or free_port(start=FLOWER_PORT, besides=port)


def free_port(*, start: int = 0, besides: int | None = None) -> int:
    """A loopback port: the first free one from *start* on that is not *besides*, or any if *start* is 0."""
    for port in range(start, start + 100) if start else ():
        if port != besides and _obstacle(port) is None:
            return port
    with contextlib.closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _obstacle(port: int) -> str | None:
    """Why no server can listen on *port* of loopback; None if one can."""
    with contextlib.closing(socket.socket()) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError as error:
            return "is taken" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
    return None


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5.0, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def _write_secret(path: Path, value: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(value + "\n")
