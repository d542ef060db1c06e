"""The whole service on one machine: Postgres, Redis, api, workers, beat and Flower, with their state in one folder."""

import fcntl
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import httpx
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_fixed

from deepfakestream.connection import API_KEY_FILE, CONNECTION_FILE, LOCK_FILE, OPERATOR_VARIABLES
from deepfakestream.stack.ports import PortTakenError, choose_ports, free_port, says_in_use, taken_while_starting
from deepfakestream.stack.processes import Service
from deepfakestream.stack.servers import Postgres, Redis, StackError

READY_TIMEOUT_S = 180.0
POLL_S = 0.2
WORKER_NICENESS = 10
"""Scoring gives way to answering: whoever polls does not wait for whoever scores."""
PORT_ATTEMPTS = 5
"""How often ports are chosen anew when another program takes one before the service listens on it."""
LOCK_ATTEMPTS = 10
LOCK_PAUSE_S = 0.02
LISTENERS = {"api": ("the api", "--port"), "flower": ("Flower", "--flower-port")}
"""What a person calls services whose ports an option chooses."""
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
    def evidence_key_file(self) -> Path:
        """Where the private key that signs evidence bundles is; readable by its owner alone."""
        return self.state / "secrets" / "evidence-key.pem"

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
                raise _port_taken(service) or StackError(
                    f"{service.name} dies again and again:\n{service.last_lines()}"
                )
            self._say(f"{service.name} died and is started again; see {service.log}")
            service.start()

    def _start(self) -> None:
        self._prepare_folders()
        self._take_lock()
        # Before anything runs, since a person may have to choose others.
        choose_ports(self._wanted_port, self._wanted_flower_port)
        self._say("starting Postgres")
        database_url = self._postgres.start()
        self._say("starting Redis")
        environment = self._environment(database_url)
        redis = self._add("redis", self._redis.command(), environment)
        self._redis.wait(redis)
        self._say("migrating the database")
        self._run("-m", "migrations", "upgrade", environment=environment)
        self._make_secrets(environment)
        self._listen(environment)
        connection = {
            "url": self.url,
            # For operators' commands; these are Unix sockets, and hold no secret.
            "environment": {name: environment[name] for name in OPERATOR_VARIABLES},
        }
        (self.state / CONNECTION_FILE).write_text(json.dumps(connection))

    def _listen(self, environment: dict[str, str]) -> None:
        """Start what listens on ports; on others where another program takes one meanwhile."""
        attempts = Retrying(
            retry=retry_if_exception_type(PortTakenError),
            stop=stop_after_attempt(PORT_ATTEMPTS),
            before_sleep=self._choose_anew,
            reraise=True,
        )
        attempts(self._start_listening, environment)

    def _start_listening(self, environment: dict[str, str]) -> None:
        """
        Start what listens on ports, which are chosen only now, since what came before takes half a minute at times.

        Raises:
            PortTakenError: Another program was quicker.
            StackError: A port that was given is taken, or a service did not start.
        """
        port, flower_port = choose_ports(self._wanted_port, self._wanted_flower_port)
        self.url, self.flower_url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{flower_port}"
        self.metrics_urls.clear()
        self._say("starting api, workers, beat and Flower")
        self._add_services(environment, port, flower_port)
        self._wait_until_ready()

    def _add_services(self, environment: dict[str, str], port: int, flower_port: int) -> None:
        python = sys.executable
        self._add(
            "api",
            [python, "-m", "gunicorn", "-c", "python:api.gunicorn"],
            environment | self._metrics_folder("api") | {"DEEPFAKESTREAM_API__PORT": str(port)},
            port=port,
        )
        for role in ("cpu", "gpu"):
            name, metrics_port = f"worker-{role}", free_port()
            own = self._metrics_folder(name) | {"DEEPFAKESTREAM_WORKER__METRICS_PORT": str(metrics_port)}
            self.metrics_urls.append(f"http://127.0.0.1:{metrics_port}/metrics")
            command = [python, "-m", "worker", "--role", role]
            self._add(name, command, environment | own, grace_s=15.0, niceness=WORKER_NICENESS, port=metrics_port)
        self._add("beat", [python, "-m", "worker", "beat"], environment)
        own = {
            "DEEPFAKESTREAM_WORKER__FLOWER__PORT": str(flower_port),
            "DEEPFAKESTREAM_WORKER__FLOWER__PASSWORD": self.flower_password_file.read_text().strip(),
        }
        self._add("flower", [python, "-m", "worker", "flower"], environment | own, port=flower_port)

    def _choose_anew(self, state: RetryCallState) -> None:
        """Stop what was started on the ports of an attempt that failed."""
        error = state.outcome.exception() if state.outcome is not None else None
        self._say(f"{str(error).partition(':')[0]}; looking for another one")
        others = [service for service in self._services if service.name != "redis"]
        for service in others:
            service.ask_to_stop()
        for service in others:
            service.stop()
            self._services.remove(service)

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

    def _environment(self, database_url: str) -> dict[str, str]:
        given = {
            "DEEPFAKESTREAM_CONFIG": str(CONFIG),
            "DEEPFAKESTREAM_DATABASE__URL": database_url,
            "DEEPFAKESTREAM_BROKER__URL": self._redis.url,
            "DEEPFAKESTREAM_STORAGE__URL": f"file://{self.state / 'storage'}",
            "DEEPFAKESTREAM_API__HOST": "127.0.0.1",
            "DEEPFAKESTREAM_EVIDENCE__KEY_FILE": str(self.evidence_key_file),
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
        port: int | None = None,
    ) -> "subprocess.Popen[bytes]":
        service = Service(
            name,
            command,
            environment=environment,
            folder=self.state,
            log=self.state / "logs" / f"{name}.log",
            grace_s=grace_s,
            niceness=niceness,
            port=port,
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
        if not self.evidence_key_file.exists():
            self._run("-m", "api.signing", "create", str(self.evidence_key_file), environment=environment)
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
        if any(service.name == "flower" for service in self._services):
            waiting.append(f"{self.flower_url}/healthcheck")
        while waiting:
            waiting = [url for url in waiting if not _answers(url)]
            # After the answers, which may be those of the program that took the port.
            for service in self._services:
                if (taken := _port_taken(service)) is not None:
                    raise taken
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


def _port_taken(service: Service) -> PortTakenError | None:
    """The error of a service that says, alive or not, that another program has its port."""
    if service.port is None or not says_in_use(service.last_lines()):
        return None
    name, option = LISTENERS.get(service.name, (service.name, None))
    return taken_while_starting(service.port, name, option)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5.0, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def _write_secret(path: Path, value: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(value + "\n")
