import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from shared.manifests import DEFAULT_CHECKPOINT, PACKAGED_MODELS_DIR
from worker.celery import make_worker
from worker.config import WorkerSettings

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def models(tmp_path, monkeypatch):
    """Make a configured folder of checkpoints in which the requested one has an unknown backbone."""

    def make(name):
        content = json.loads((PACKAGED_MODELS_DIR / DEFAULT_CHECKPOINT / "manifest.json").read_bytes())
        content["architecture"]["backbone"] = "xception"
        folder = tmp_path / "models" / name
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(json.dumps(content))
        return tmp_path / "models"

    for name, value in (
        ("DATABASE__URL", "postgresql+psycopg://nobody@127.0.0.1:1/none"),
        ("BROKER__URL", "redis://127.0.0.1:1/0"),
        ("STORAGE__URL", f"file://{tmp_path}"),
        ("MODELS__DIR", str(tmp_path / "models")),
    ):
        monkeypatch.setenv(f"DEEPFAKESTREAM_{name}", value)
    return make


ORPHAN = """
import ctypes, os, signal, sys, time
from celery.signals import worker_process_init
from worker.celery import make_worker
from worker.config import WorkerSettings

# Orphans of this process's children become its own.
ctypes.CDLL(None).prctl(36, 1)
signal.signal(signal.SIGTERM, lambda *_: print("asked to stop", flush=True))
if (child := os.fork()) == 0:
    make_worker(WorkerSettings(), "gpu")
    parent = os.getpid()
    if os.fork() == 0:
        while os.getppid() == parent:
            time.sleep(0.01)
        worker_process_init.send(sender=None)
    os._exit(0)
os.waitpid(child, 0)
os.wait()
print("ended")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system adopts orphans")
def test_a_process_that_cannot_start_stops_nobody_but_its_worker(tmp_path, monkeypatch):
    """The worker was killed while the process loaded what it needs, which is not there."""
    for name in ("DATABASE__URL", "BROKER__URL"):
        monkeypatch.setenv(f"DEEPFAKESTREAM_{name}", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("DEEPFAKESTREAM_STORAGE__URL", f"file://{tmp_path}")
    monkeypatch.setenv("DEEPFAKESTREAM_MODELS__DIR", str(tmp_path / "none"))
    command = [sys.executable, "-c", ORPHAN]
    ended = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False, timeout=60)
    assert "worker process cannot start" in ended.stdout + ended.stderr
    assert ended.stdout.splitlines()[-1] == "ended"
    assert "asked to stop" not in ended.stdout


@pytest.mark.parametrize("role", ["cpu", "gpu"])
def test_a_worker_refuses_a_default_checkpoint_with_an_unknown_backbone(role, models):
    models(DEFAULT_CHECKPOINT)
    command = [sys.executable, "-m", "worker", "--role", role]
    ended = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"checkpoint '{DEFAULT_CHECKPOINT}' has the unknown backbone 'xception'; known are ")


@pytest.mark.parametrize("role", ["cpu", "gpu"])
def test_a_worker_starts_despite_another_such_checkpoint_and_logs_it(role, models):
    folder = models("future")
    shutil.copytree(PACKAGED_MODELS_DIR / DEFAULT_CHECKPOINT, folder / DEFAULT_CHECKPOINT)
    with capture_logs() as events:
        make_worker(WorkerSettings(), role)
    (event,) = events
    assert (event["log_level"], event["event"]) == ("error", "checkpoint refused")
    assert event["reason"].startswith("checkpoint 'future' has the unknown backbone 'xception'; known are ")
