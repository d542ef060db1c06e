"""
Every process runs on a read-only file system without capabilities, as in a container or a restricted pod.

Writable are folders for temporary files, metrics, scratch and beat's state, each a file system of its own in memory.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from sqlalchemy import make_url

from tests.nodes.network import Forwarder
from tests.servers import free_port

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 120
SCRIPT = """
set -e
mount --bind / /
for place in "$@"; do
    [ "$place" = -- ] && break
    mount -t tmpfs tmpfs "$place"
done
while [ "$1" != -- ]; do shift; done
shift
mount -o remount,ro,bind /
exec setpriv --bounding-set=-all --inh-caps=-all --no-new-privs "$@"
"""


def can_mount():
    program = shutil.which("unshare")
    if program is None or os.geteuid() != 0 or shutil.which("setpriv") is None:
        return False
    command = [program, "--mount", "--propagation", "private", "mount", "--bind", "/", "/"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture
def places():
    """The folders that are writable in the container."""
    folder = ROOT / "build" / f"read-only-{os.getpid()}"
    found = {name: folder / name for name in ("tmp", "metrics", "scratch", "state")}
    for place in found.values():
        place.mkdir(parents=True)
    yield found
    shutil.rmtree(folder)


@pytest.fixture
def environment(migrated_url, redis_server, s3_settings, places):
    url = make_url(migrated_url)
    # Its socket is in a folder of another user, which a process without capabilities cannot open.
    postgres = Forwarder("127.0.0.1", [Path(str(url.query["host"])) / ".s.PGSQL.5432"])
    given = {
        "DATABASE__URL": f"postgresql+psycopg://{url.username}@127.0.0.1:{postgres.port}/{url.database}",
        "BROKER__URL": redis_server.url,
        "STORAGE__URL": s3_settings.url,
        "STORAGE__ENDPOINT_URL": s3_settings.endpoint_url,
        "STORAGE__REGION": "us-east-1",
        "STORAGE__ACCESS_KEY_ID": s3_settings.access_key_id,
        "STORAGE__SECRET_ACCESS_KEY": s3_settings.secret_access_key.get_secret_value(),
        "STORAGE__CACHE_DIR": str(places["scratch"]),
        "API__PORT": str(free_port()),
        "API__PROCESSES": "1",
        "WORKER__METRICS_PORT": str(free_port()),
        "WORKER__PROCESSES_PER_DEVICE": "1",
        "WORKER__CPU_PROCESSES": "1",
        "WORKER__BEAT_FOLDER": str(places["state"]),
    }
    own = {f"DEEPFAKESTREAM_{name}": value for name, value in given.items()}
    own |= {"PROMETHEUS_MULTIPROC_DIR": str(places["metrics"]), "PYTHONDONTWRITEBYTECODE": "1", "HOME": "/"}
    # This machine's own has the sockets of the servers, which must be seen inside.
    own["TMPDIR"] = str(places["tmp"])
    yield {"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT}:{ROOT / 'client'}", **own}
    postgres.close()


def answers(url):
    try:
        return httpx.get(url, timeout=5).is_success
    except httpx.HTTPError:
        return False


@pytest.mark.skipif(not can_mount(), reason="file systems may not be mounted here")
@pytest.mark.parametrize("process", ["api", "worker-cpu", "worker-gpu", "worker-stream", "beat"])
def test_a_process_writes_only_to_its_own_folders(process, environment, places, tmp_path):
    command, ready = {
        "api": (["-m", "gunicorn", "-c", "python:api.gunicorn"], "API__PORT"),
        "worker-cpu": (["-m", "worker", "--role", "cpu"], "WORKER__METRICS_PORT"),
        "worker-gpu": (["-m", "worker", "--role", "gpu"], "WORKER__METRICS_PORT"),
        "worker-stream": (["-m", "worker", "--role", "stream"], "WORKER__METRICS_PORT"),
        "beat": (["-m", "worker", "beat"], None),
    }[process]
    unshare = ["unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", SCRIPT, "sh"]
    inside = [*map(str, places.values()), "--", sys.executable, *command]
    log = tmp_path / "log"
    with log.open("wb") as out:
        started = subprocess.Popen(
            [*unshare, *inside], env=environment, cwd="/", stdout=out, stderr=out, start_new_session=True
        )
    try:
        path = "/readyz" if process == "api" else "/metrics"
        url = f"http://127.0.0.1:{environment[f'DEEPFAKESTREAM_{ready}']}{path}" if ready else None
        deadline = time.monotonic() + PATIENCE_S
        while not (answers(url) if url else "beat: Starting" in log.read_text()):
            assert started.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.3)
        assert "Read-only file system" not in log.read_text()
        status = Path(f"/proc/{started.pid}/status").read_text()
        assert "CapEff:\t0000000000000000" in status
    finally:
        os.killpg(started.pid, signal.SIGTERM)
        try:
            started.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(started.pid, signal.SIGKILL)
            started.wait()
