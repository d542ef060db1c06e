"""Workers that cannot score do not start, so that they take no jobs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from api.embedded.stack import CONFIG

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "changes",
    [{"WORKER__DEVICE": "cuda:99"}, {"MODELS__DIR": "/nowhere"}],
    ids=["no such device", "no checkpoint"],
)
def test_a_worker_that_cannot_load_its_networks_stops(redis_server, migrated_url, tmp_path, changes):
    values = {
        "CONFIG": str(CONFIG),
        "DATABASE__URL": migrated_url,
        "BROKER__URL": redis_server.url,
        "STORAGE__URL": tmp_path.as_uri(),
        "WORKER__PROCESSES_PER_DEVICE": "1",
        **changes,
    }
    done = subprocess.run(
        [sys.executable, "-m", "worker", "--role", "gpu"],
        cwd=ROOT,
        env={**os.environ, **{f"DEEPFAKESTREAM_{name}": value for name, value in values.items()}},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "worker process cannot start" in done.stdout + done.stderr
