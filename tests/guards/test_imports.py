"""The packages that each process of the service loads, observed in a fresh process."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {
    "PATH": "",
    "PYTHONPATH": str(ROOT / "client"),
    "DEEPFAKESTREAM_DATABASE__URL": "postgresql+psycopg://x/y",
    "DEEPFAKESTREAM_BROKER__URL": "redis://x",
    "DEEPFAKESTREAM_STORAGE__URL": "file:///x",
}
MAKE_WORKER = """
from shared.config import load_settings
from worker.celery import make_worker
from worker.config import WorkerSettings
app = make_worker(load_settings(WorkerSettings), {role!r})
"""


def loaded(code):
    code += "\nimport sys; print('\\n'.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=ENVIRONMENT,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {name.split(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        pytest.param("import api.app", {"torch", "torchvision", "cv2", "worker", "numpy", "deepfakestream"}, id="api"),
        pytest.param(
            MAKE_WORKER.format(role="cpu"), {"torch", "torchvision", "flask", "api", "deepfakestream"}, id="cpu role"
        ),
        pytest.param(
            MAKE_WORKER.format(role="gpu"),
            {"torch", "torchvision", "flask", "api", "deepfakestream"},
            id="gpu role's parent",
        ),
        pytest.param(
            "import worker.local; from worker.detection.mtcnn import MTCNN; MTCNN()",
            # These take as long to import as PyTorch, sympy by way of PyTorch's compiler.
            {"torchvision", "facenet_pytorch", "sympy", "flask", "api", "deepfakestream"},
            id="a scan in this process",
        ),
        pytest.param(
            "import shared.jobs, worker.tasks.sweep, shared.storage, shared.documents",
            {"torch", "flask", "cv2", "deepfakestream"},
            id="shared",
        ),
        pytest.param("import deepfakestream, deepfakestream.cli", {"torch", "flask", "celery", "shared"}, id="client"),
        pytest.param("import api.keys", {"flask", "torch", "deepfakestream"}, id="keys"),
        pytest.param(
            "import api.embedded.commands",
            {"flask", "torch", "numpy", "celery", "sqlalchemy", "worker", "shared", "migrations"},
            id="supervisor",
        ),
    ],
)
def test_a_process_loads_only_what_its_role_needs(code, absent):
    assert loaded(code) & absent == set()


def test_the_cpu_role_knows_every_task_of_its_queue_and_the_gpu_role_its_own():
    from shared.queues import QUEUE_OF_TASK, QUEUES
    from worker.celery import make_worker
    from worker.config import WorkerSettings

    settings = WorkerSettings(
        database={"url": "postgresql+psycopg://x/y"}, broker={"url": "redis://x"}, storage={"url": "file:///x"}
    )
    for role, queues in QUEUES.items():
        known = {name for name in make_worker(settings, role).tasks if name.startswith("deepfakestream.")}
        assert known == {task for task, of in QUEUE_OF_TASK.items() if of in queues}
