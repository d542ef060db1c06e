"""
A cluster of simulated machines that only share Postgres, Redis and an S3 server.

Each process has its own network namespace, working folder and temporary folder, and is configured by environment
variables like a container. The shared servers run on the host and are reached over the network.
"""

import os
import sys
from contextlib import ExitStack
from pathlib import Path

from api.embedded.processes import Service
from api.embedded.stack import CONFIG, EmbeddedStack
from tests.inside import environment_of_service
from tests.nodes.network import Forwarder, Network, Node
from tests.servers import running_s3

API_PORT = 8000
PACKAGES = Path(__file__).resolve().parents[2]


class Cluster(EmbeddedStack):
    """
    A stack whose services run on nodes, while its context lasts.

    Args:
        state: Folder of the shared servers, with a folder for each node.
        apis: Number of API nodes.
        gpu_workers: Number of gpu workers at the start.
        cpu_workers: Number of cpu workers at the start.
    """

    def __init__(self, state: Path, *, apis: int = 2, gpu_workers: int = 2, cpu_workers: int = 1) -> None:
        super().__init__(state)
        self._counts = {"api": apis, "worker-gpu": gpu_workers, "worker-cpu": cpu_workers, "beat": 1}
        self._held = ExitStack()
        self.nodes: dict[str, Node] = {}
        """Name of a service → the machine that it runs on."""
        self.network = Network()
        self._held.callback(self.network.close)
        self.s3: Forwarder | None = None
        self._common: dict[str, str] = {}

    def add(self, kind: str, number: int) -> Service:
        """Start one more node of *kind*."""
        name = f"{kind}-{number}"
        node = self.nodes[name] = self.network.add_node()
        folder = self.state / "nodes" / name
        for part in ("tmp", "metrics", "state"):
            (folder / part).mkdir(parents=True)
        python = sys.executable
        command = {
            "api": [python, "-m", "gunicorn", "-c", "python:api.gunicorn"],
            "worker-gpu": [python, "-m", "worker", "--role", "gpu"],
            "worker-cpu": [python, "-m", "worker", "--role", "cpu"],
            "beat": [python, "-m", "worker", "beat"],
        }[kind]
        own = {
            "TMPDIR": str(folder / "tmp"),
            "HOME": str(folder),
            "DEEPFAKESTREAM_API__HOST": node.address,
            "DEEPFAKESTREAM_API__PORT": str(API_PORT if self.network.has_namespaces else API_PORT + 100 + number),
            "DEEPFAKESTREAM_STORAGE__CACHE_DIR": str(folder / "copies"),
        }
        if kind != "beat":
            own["PROMETHEUS_MULTIPROC_DIR"] = str(folder / "metrics")
        service = Service(
            name,
            [*node.prefix, *command],
            environment=self._common | own,
            folder=folder,
            log=self.state / "logs" / f"{name}.log",
            grace_s=15.0,
        )
        self._services.append(service)
        service.start()
        return service

    def seen_by_nodes(self, url: str) -> str:
        """Return an address at which nodes reach the server at *url* on the host's loopback."""
        host, _, port = url.removeprefix("http://").rstrip("/").partition(":")
        return f"http://{self.network.address}:{self._forward(self.network.address, (host, int(port))).port}/"

    def _start(self) -> None:
        self._prepare_folders()
        self._take_lock()
        self._postgres.start()
        self._redis.wait(self._add("redis", self._redis.command(), {**os.environ}))
        storage = self._held.enter_context(running_s3(self.state / "logs" / "s3.log"))
        here = self.network.address
        s3_port = int((storage.endpoint_url or "").rpartition(":")[2])
        postgres = self._forward(here, self.state / "postgres" / ".s.PGSQL.5432")
        redis = self._forward(here, self._redis.socket)
        s3 = self.s3 = self._forward(here, ("127.0.0.1", s3_port))
        secret = storage.secret_access_key.get_secret_value() if storage.secret_access_key else ""
        settings = {
            "DATABASE__URL": f"postgresql+psycopg://postgres@{here}:{postgres.port}/postgres",
            "BROKER__URL": f"redis://{here}:{redis.port}/0",
            "STORAGE__URL": f"{storage.url}/cluster",
            "STORAGE__ENDPOINT_URL": f"http://{here}:{s3.port}",
            "STORAGE__PUBLIC_ENDPOINT_URL": f"http://{here}:{s3.port}",
            "STORAGE__REGION": "us-east-1",
            "STORAGE__ACCESS_KEY_ID": storage.access_key_id or "",
            "STORAGE__SECRET_ACCESS_KEY": secret,
            "WEBHOOKS__ALLOW_INSECURE": "true",
        }
        given = {f"DEEPFAKESTREAM_{name}": value for name, value in settings.items()}
        # The machine's configuration is not used, apart from what a test sets.
        self._common = {"DEEPFAKESTREAM_CONFIG": str(CONFIG), **os.environ, **given}
        self._common["PYTHONPATH"] = os.pathsep.join([str(PACKAGES), str(PACKAGES / "client")])
        self._run("-m", "migrations", "upgrade", environment=self._common)
        self._make_secrets(self._common)
        for kind, count in self._counts.items():
            for number in range(1, count + 1):
                self.add(kind, number)
        balancer = self._forward("127.0.0.1", *self._apis())
        self.url = f"http://127.0.0.1:{balancer.port}"
        self._wait_until_ready()

    def _stop(self) -> None:
        for node in self.nodes.values():
            node.join()
        super()._stop()
        self._held.close()

    def _apis(self) -> list[tuple[str, int]]:
        return [
            (given["DEEPFAKESTREAM_API__HOST"], int(given["DEEPFAKESTREAM_API__PORT"]))
            for service in self._services
            if service.name.startswith("api-")
            for given in (environment_of_service(service),)
        ]

    def _forward(self, host: str, *targets: Path | tuple[str, int]) -> Forwarder:
        forwarder = Forwarder(host, targets)
        self._held.callback(forwarder.close)
        return forwarder
