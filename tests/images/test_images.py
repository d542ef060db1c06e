"""
The images' recipes, without an engine to build them: linted, and their steps performed.

The api's steps run in a fresh virtual environment from a copy of what the build would see, and the service starts from
that. The worker's would download gigabytes; there the steps' inputs are checked.
"""

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from docker.utils import exclude_paths

from tests.servers import free_port

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
FILES = {path.name.split(".")[0]: path for path in DOCKER.glob("*.Dockerfile")}
HEAVY = ("torch", "torchvision", "cv2", "numpy", "openvino", "imageio_ffmpeg", "celery", "worker", "api.embedded")


def instructions(path):
    """(instruction, arguments) of every line of a Dockerfile, continuations joined."""
    text = re.sub(r"\\\n", " ", path.read_text())
    return [
        (line.split(maxsplit=1)[0], line.split(maxsplit=1)[1].strip())
        for line in text.splitlines()
        if line.strip() and not line.lstrip().startswith("#")
    ]


def sent(folder):
    """Names of the files in *folder* that a build gets, as Docker's own library reads .dockerignore."""
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    names = exclude_paths(folder, [rule for rule in rules if rule and not rule.startswith("#")])
    return {name for name in names if (folder / name).is_file()}


def tracked():
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    command = [git, "ls-files", "-co", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in done.stdout.splitlines() if (ROOT / name).exists()]


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    """A folder with the build context."""
    folder = tmp_path_factory.mktemp("context")
    for name in sent(ROOT) & set(tracked()):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)
    return folder


@pytest.mark.parametrize("name", FILES)
def test_hadolint_finds_nothing(name):
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, FILES[name]], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("name", FILES)
def test_an_image_runs_as_an_unprivileged_user_and_has_labels(name):
    found = instructions(FILES[name])
    users = [value for kind, value in found if kind == "USER"]
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", users[-1])
    kinds = [kind for kind, _ in found]
    assert "HEALTHCHECK" in kinds
    assert kinds.count("FROM") == 2
    [label] = [value for kind, value in found if kind == "LABEL"]
    for key in ("title", "description", "licenses", "version", "revision", "created"):
        assert f"org.opencontainers.image.{key}=" in label
    # Both stages from one version, which is exact.
    assert {value.split()[0] for kind, value in found if kind == "FROM"} == {"python:${PYTHON}"}
    assert re.search(r"^ARG PYTHON=3\.\d+\.\d+-", FILES[name].read_text(), re.MULTILINE)


@pytest.mark.parametrize("name", FILES)
def test_every_copied_path_is_in_the_build_context(name, context):
    for kind, value in instructions(FILES[name]):
        if kind == "COPY" and "--from" not in value:
            for source in value.split()[:-1]:
                assert (context / source).exists(), source


def test_every_stripped_package_exists(context):
    stripped = runpy.run_path(str(context / "docker" / "dependencies.py"))["STRIPPED"]
    used = " ".join(value for path in FILES.values() for kind, value in instructions(path) if kind == "RUN")
    for option, names in stripped.items():
        assert option in used
        for name in names:
            assert (context / name / "__init__.py").exists(), name


def test_the_build_context_holds_only_what_images_need(context, tmp_path):
    names = {path.relative_to(context).parts[0] for path in context.rglob("*")}
    assert names == {
        *("api", "worker", "shared", "migrations", "configs", "docker"),
        *("setup.cfg", "pyproject.toml", "README.md", "LICENSE"),
        ".dockerignore",  # Always.
    }
    kept_out = {
        *(".git/config", "docker/secrets/database__url", "build/x", ".venv/bin/python", "tests/conftest.py"),
        "api/__pycache__/app.cpython-312.pyc",
    }
    for name in kept_out | {"api/app.py"}:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert sent(tmp_path) == {"api/app.py"}


def run_lines(name):
    """The shell lines of the build stage."""
    lines = []
    for kind, value in instructions(FILES[name]):
        if kind == "FROM" and lines:
            break
        if kind == "RUN":
            lines.append(value)
    return lines


def default(name, argument):
    """Return the default of the first ARG of that name."""
    values = [value.partition("=") for kind, value in instructions(FILES[name]) if kind == "ARG"]
    return next(value for found, _, value in values if found == argument)


@pytest.mark.parametrize("name", FILES)
def test_images_install_existing_extras(name, context):
    done = subprocess.run(
        [sys.executable, "docker/dependencies.py", default(name, "EXTRAS")],
        cwd=context,
        capture_output=True,
        text=True,
        check=True,
    )
    wanted = {re.split(r"[\[=<>~!]", line)[0] for line in done.stdout.split()}
    assert {"sqlalchemy", "celery", "boto3"} <= wanted
    heavy = {"torch", "openvino", "opencv-python-headless", "imageio-ffmpeg"}
    assert heavy <= wanted if name == "worker" else not heavy & wanted
    assert not {"av", "scikit-learn", "matplotlib", "pytest"} & wanted


@contextmanager
def running(command, environment, folder, log):
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=out, stderr=out)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(30)


@pytest.mark.timeout(900)
def test_the_api_starts_from_the_steps_of_its_image(context, tmp_path, migrated_url, redis_server, s3_settings):
    """The build steps of the image, in another folder than /opt."""
    venv, wanted = tmp_path / "venv", tmp_path / "wanted.txt"
    for step in run_lines("api"):
        line = step.replace("/opt/venv", str(venv)).replace("/tmp/wanted.txt", str(wanted))
        line = re.sub(r"^python ", f"{sys.executable} ", line)
        done = subprocess.run(
            ["/bin/sh", "-c", line],
            cwd=context,
            env={**os.environ, "EXTRAS": default("api", "EXTRAS"), "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stderr[-3000:]}"
    python = venv / "bin" / "python"
    present = subprocess.run(
        [python, "-c", f"import importlib.util as u; print([n for n in {HEAVY!r} if u.find_spec(n)])"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert present.stdout.strip() == "['celery']"
    secrets, metrics = tmp_path / "secrets", tmp_path / "metrics"
    secrets.mkdir()
    metrics.mkdir()
    for setting, value in {
        "database__url": migrated_url,
        "broker__url": redis_server.url,
        "storage__access_key_id": s3_settings.access_key_id,
        "storage__secret_access_key": s3_settings.secret_access_key.get_secret_value(),
        "api__metrics_token": "scrape-me",
    }.items():
        (secrets / setting).write_text(f"{value}\n")
    port = free_port()
    environment = {
        "PATH": f"{venv / 'bin'}:{os.environ['PATH']}",
        "DEEPFAKESTREAM_SECRETS": str(secrets),
        "DEEPFAKESTREAM_STORAGE__URL": s3_settings.url,
        "DEEPFAKESTREAM_STORAGE__ENDPOINT_URL": s3_settings.endpoint_url,
        "DEEPFAKESTREAM_STORAGE__REGION": "us-east-1",
        "DEEPFAKESTREAM_API__PORT": str(port),
        "DEEPFAKESTREAM_API__HOST": "127.0.0.1",
        "PROMETHEUS_MULTIPROC_DIR": str(metrics),
        "HOME": str(tmp_path),
    }
    command = json.loads(next(value for kind, value in reversed(instructions(FILES["api"])) if kind == "CMD"))
    command[0] = str(venv / "bin" / command[0])
    log = tmp_path / "log"
    with running(command, environment, tmp_path, log) as process:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 60
        while True:
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            try:
                ready = httpx.get(f"{url}/readyz", timeout=10)
                break
            except httpx.TransportError:
                time.sleep(0.2)
        assert (ready.status_code, ready.json()["checks"]) == (
            200,
            {"database": "ok", "broker": "ok", "storage": "ok"},
        )
        assert httpx.get(f"{url}/metrics", headers={"Authorization": "Bearer scrape-me"}).status_code == 200
    migrate = subprocess.run([python, "-m", "migrations", "upgrade"], cwd=tmp_path, env=environment, check=False)
    assert migrate.returncode == 0


def test_the_cpu_role_runs_without_torch(tmp_path):
    """One image serves both roles; the cpu role must not load torch."""
    script = (
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'torchvision', 'openvino', 'facenet_pytorch'):\n"
        "            raise ModuleNotFoundError(f'{name} is refused')\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "from shared.config import load_settings\n"
        "from worker.celery import make_worker\n"
        "from worker.config import WorkerSettings\n"
        "app = make_worker(load_settings(WorkerSettings), 'cpu')\n"
        "print(sorted(name for name in app.tasks if name.startswith('deepfakestream')))\n"
    )
    environment = {
        **os.environ,
        "DEEPFAKESTREAM_DATABASE__URL": "postgresql+psycopg://x/y",
        "DEEPFAKESTREAM_BROKER__URL": "redis://x",
        "DEEPFAKESTREAM_STORAGE__URL": f"file://{tmp_path}",
    }
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "deepfakestream.ingest" in done.stdout
