"""Faults that are injected into a running service, and the supervisor that restarts services that ended."""

import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from api.embedded.processes import Service
from api.embedded.stack import EmbeddedStack
from tests.inside import (
    environment_of_service,
    postgres_of,
    postgres_server_of,
    redis_of,
    service_of,
    services_of,
    set_environment,
)
from tests.nodes.cluster import Cluster

AWAY_S = 20.0
STORAGE_BYTES = 96 * 1024 * 1024
STORAGE_FAULT_S = 8.0
SLOW_MS = "150"
CLOCK_STEP_S = 240.0
"""Largest clock step; less than the tolerance of webhook signatures, beyond which receivers rightly refuse them."""
TAKEOVER_S = 10.0
"""In which streams have another reader after theirs was killed."""
EXPLAINING_S = 10.0
"""Longest wait for a worker that explains a job."""
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
"""Library that changes a process's clock (Debian's package ``faketime``); without it no clock is stepped."""


class Supervisor(threading.Thread):
    """A thread that restarts services that have ended, as a cluster does, except those in ``held``."""

    def __init__(self, stack: EmbeddedStack) -> None:
        super().__init__(name="supervisor", daemon=True)
        self.held: set[str] = set()
        self._services = services_of(stack)
        self._over = threading.Event()

    def run(self) -> None:
        """Check five times a second."""
        while not self._over.wait(0.2):
            for service in self._services:
                if service.has_died() and service.name not in self.held:
                    # The rest of its process group is killed, too, like the processes of a container.
                    end_group(service)
                    service.start()

    def stop(self) -> None:
        """Stop restarting services."""
        self._over.set()
        self.join()


def end_group(service: Service) -> None:
    """Kill the service and every process that it started."""
    if service.process is not None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(service.process.pid, signal.SIGKILL)


def children_of_group(service: Service) -> list[str]:
    """Return the ids of the processes that any thread of the service has started."""
    if service.process is None:
        return []
    found: list[str] = []
    for path in Path(f"/proc/{service.process.pid}/task").glob("*/children"):
        with suppress(OSError):
            found += path.read_text().split()
    return found


def mount_own_storage(folder: Path) -> bool:
    """Mount a small file system at *folder*; return False if this is not permitted."""
    folder.mkdir(parents=True, exist_ok=True)
    program = shutil.which("mount")
    if program is None:
        return False
    command = [program, "-t", "tmpfs", "-o", f"size={STORAGE_BYTES},mode=700", "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _slow_library(folder: Path) -> Path | None:
    """Compile ``slow.c``; return None without a compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    made = folder / "slow.so"
    source = Path(__file__).with_name("slow.c")
    done = subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", made, source, "-ldl"], capture_output=True, check=False
    )
    return made if done.returncode == 0 else None


class Faults:
    """
    The kinds of faults, by name.

    Args:
        own_storage: Whether storage has a separate file system, so that it can be filled and made read-only.
        away_s: Duration of an outage of Redis or Postgres.
    """

    def __init__(
        self, stack: EmbeddedStack, supervisor: Supervisor, *, own_storage: bool, away_s: float = AWAY_S
    ) -> None:
        self._stack, self._supervisor, self._away_s = stack, supervisor, away_s
        self._storage = stack.state / "storage"
        self.takeovers_s: list[float] = []
        """Seconds from each kill of a reader until all of its streams had another one."""
        self.kinds: dict[str, Callable[[random.Random], None]] = {
            "gpu worker killed": lambda rng: end_group(self._any("worker-gpu", rng)),
            "gpu process killed": lambda rng: self._kill_child("worker-gpu", rng),
            "gpu worker killed while it explains": lambda _: self._kill_while_explaining(),
            "cpu worker killed": lambda rng: end_group(self._any("worker-cpu", rng)),
            "cpu process killed": lambda rng: self._kill_child("worker-cpu", rng),
            "beat killed": lambda rng: end_group(self._any("beat", rng)),
            "api killed": lambda rng: end_group(self._any("api", rng)),
            "api process killed": lambda rng: self._kill_child("api", rng),
            "redis flushed": lambda _: redis_of(self._stack).flushall(),
            "redis restarted empty": lambda _: self._restart_redis(0.0),
            "redis away": lambda _: self._restart_redis(self._away_s),
            "postgres restarted": lambda _: self._restart_postgres(0.0),
            "postgres away": lambda _: self._restart_postgres(self._away_s),
        }
        if FAKETIME is not None:
            self.kinds["clock stepped"] = self._step_clock
        if isinstance(stack, Cluster):
            self.kinds["s3 away"] = lambda _: self._lose_s3(stack)
            if stack.network.has_namespaces:
                self.kinds["node cut off"] = lambda rng: self._cut_off(stack, rng)
            return
        self.kinds["stream worker killed"] = lambda _: self._kill_reader()
        self._slow = _slow_library(stack.state)
        if self._slow is not None:
            self.kinds["storage slow"] = lambda _: self._slow_storage()
        if own_storage:
            self.kinds |= {
                "storage full": lambda _: self._fill_storage(),
                "storage read-only": lambda _: self._lock_storage(),
            }

    def _any(self, kind: str, rng: random.Random) -> Service:
        """Choose the service of that name, or one of several numbered ones."""
        return rng.choice(self._named(kind))

    def _named(self, kind: str) -> list[Service]:
        return [item for item in services_of(self._stack) if item.name == kind or item.name.startswith(f"{kind}-")]

    def _kill_child(self, kind: str, rng: random.Random) -> None:
        process = self._any(kind, rng).process
        if process is None:
            return
        with suppress(OSError):
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            if children:
                os.kill(int(rng.choice(children)), signal.SIGKILL)

    def _kill_reader(self) -> None:
        """Kill the reader of most streams, and measure when all streams have one again."""
        children = {service.name: len(children_of_group(service)) for service in self._named("worker-stream")}
        query = "select job_id, lease_token from jobs join streams on job_id = id"
        query += " where ending is null and leased_until > now()"
        with postgres_of(self._stack) as connection:
            known = dict(connection.execute(query).fetchall())
            end_group(service_of(self._stack, max(children, key=lambda name: children[name])))
            began = changed = time.monotonic()
            while time.monotonic() < began + TAKEOVER_S + 2.0:
                found = dict(connection.execute(query).fetchall())
                if any(found.get(job_id) != token for job_id, token in known.items()):
                    changed = time.monotonic()
                known |= found
                time.sleep(0.1)
        self.takeovers_s.append(round(changed - began, 1))

    def _kill_while_explaining(self) -> None:
        """Kill all scoring workers as soon as one explains; do nothing if none does for some seconds."""
        deadline = time.monotonic() + EXPLAINING_S
        with postgres_of(self._stack) as connection:
            while time.monotonic() < deadline:
                query = "select 1 from explanations where lease_token is not null and leased_until > now() limit 1"
                if connection.execute(query).fetchone() is not None:
                    for service in self._named("worker-gpu"):
                        end_group(service)
                    return
                time.sleep(0.02)

    def _restart_redis(self, away_s: float) -> None:
        service = service_of(self._stack, "redis")
        self._supervisor.held.add("redis")
        end_group(service)
        if service.process is not None:
            service.process.wait()
        shutil.rmtree(self._stack.state / "redis" / "appendonlydir", ignore_errors=True)
        time.sleep(away_s)
        self._supervisor.held.discard("redis")

    def _restart_postgres(self, away_s: float) -> None:
        server = postgres_server_of(self._stack)
        process = server.get_postmaster_info().process
        # Postgres's immediate shutdown: like a crash, with recovery at the next start.
        process.send_signal(signal.SIGQUIT)
        process.wait(30)
        time.sleep(away_s)
        server.ensure_postgres_running()

    def _step_clock(self, rng: random.Random) -> None:
        """Restart one service with a wrong clock, and after some seconds with the right one."""
        service = self._any(rng.choice(("worker-gpu", "worker-cpu", "beat", "api")), rng)
        step_s = rng.choice((-1, 1)) * rng.uniform(30.0, CLOCK_STEP_S)
        wrong = {"LD_PRELOAD": str(FAKETIME), "FAKETIME": f"{step_s:+.0f}s", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        self._run_for_a_while([service], wrong)

    def _lose_s3(self, cluster: Cluster) -> None:
        if cluster.s3 is not None:
            cluster.s3.go_away()
            time.sleep(self._away_s)
            cluster.s3.come_back()

    def _cut_off(self, cluster: Cluster, rng: random.Random) -> None:
        """Disconnect one machine from the network for a while."""
        node = cluster.nodes[rng.choice(sorted(cluster.nodes))]
        node.cut_off()
        time.sleep(self._away_s)
        node.join()

    def _slow_storage(self) -> None:
        """Slow down each read, write and flush of API and workers, but not those of ffmpeg."""
        slow = {"LD_PRELOAD": str(self._slow), "SLOW_BELOW": str(self._storage), "SLOW_MS": SLOW_MS}
        self._run_for_a_while([service_of(self._stack, name) for name in ("api", "worker-cpu", "worker-gpu")], slow)

    def _run_for_a_while(self, services: Sequence[Service], added: dict[str, str]) -> None:
        """Restart *services* with *added* in their environment, and after some seconds without it."""
        right = [environment_of_service(service) for service in services]
        for more in (added, {}):
            for service, environment in zip(services, right, strict=True):
                set_environment(service, environment | more)
                end_group(service)
            time.sleep(STORAGE_FAULT_S)

    def _fill_storage(self) -> None:
        filler = self._storage / "filler"
        try:
            with suppress(OSError), filler.open("wb") as file:
                while True:
                    file.write(bytes(1024 * 1024))
            time.sleep(STORAGE_FAULT_S)
        finally:
            filler.unlink(missing_ok=True)

    def _lock_storage(self) -> None:
        # Remounting fails while files are open for writing, so it is retried.
        for _ in range(50):
            if self._remount("ro"):
                time.sleep(STORAGE_FAULT_S)
                self._remount("rw")
                return
            time.sleep(0.1)

    def _remount(self, mode: str) -> bool:
        command = ["mount", "-o", f"remount,{mode}", str(self._storage)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
