"""The code of before the newest migration runs on the schema of after it: what an upgrade without downtime needs."""

import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from deepfakestream import Client
from deepfakestream.stack.embedded import EmbeddedStack

from tests.servers import state_folder

ROOT = Path(__file__).resolve().parents[2]
VERSIONS = "migrations/versions"


def git(*arguments):
    """What git says; skips where it cannot know."""
    program = shutil.which("git")
    if program is None:
        pytest.skip("git is not installed")
    done = subprocess.run([program, "-C", ROOT, *arguments], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("this is no checkout with its history")
    return done.stdout


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    """A folder with the code as it was before the newest migration."""
    newest = max(path.name for path in (ROOT / VERSIONS).glob("0*.py"))
    [added] = git("log", "--diff-filter=A", "--format=%H", "--", f"{VERSIONS}/{newest}").decode().split() or [None]
    if added is None:
        pytest.skip("the newest migration is not committed yet")
    folder = tmp_path_factory.mktemp("before")
    with tarfile.open(fileobj=io.BytesIO(git("archive", f"{added}~1"))) as archive:
        archive.extractall(folder, filter="data")
    assert not (folder / VERSIONS / newest).exists()
    return folder


class MixedStack(EmbeddedStack):
    """Services of one release on the schema of another."""

    def __init__(self, state, code):
        super().__init__(state)
        self._code = code

    def _run(self, *arguments, environment):
        # The migration, and what operators do, is the newer release's.
        return super()._run(*arguments, environment=environment | {"PYTHONPATH": f"{ROOT}:{ROOT / 'client'}"})

    def _environment(self, database_url):
        path = os.pathsep.join([str(self._code), str(self._code / "client")])
        return super()._environment(database_url) | {"PYTHONPATH": path}


@pytest.mark.slow
def test_the_release_before_runs_on_the_newer_schema(before, clip, monkeypatch):
    monkeypatch.setenv("DEEPFAKESTREAM_WORKER__PROCESSES_PER_DEVICE", "1")
    with state_folder() as state:
        with MixedStack(state, before) as stack:
            for service in stack._services:
                assert service.name == "redis" or service._environment["PYTHONPATH"].startswith(str(before))
            with Client(stack.url, stack.api_key_file.read_text().strip()) as client:
                first = client.wait(client.submit(clip).id, timeout_s=120)
                assert first.status == "succeeded"
                client.cancel(client.submit(clip, segment_seconds=1.0).id)
        # Then the services are exchanged, too; what the older ones did is as it was.
        with EmbeddedStack(state) as stack, Client(stack.url, stack.api_key_file.read_text().strip()) as client:
            assert client.get(first.id).fake_score == first.fake_score
            again = client.wait(client.submit(clip).id, timeout_s=120)
            assert (again.status, again.verdict) == ("succeeded", first.verdict)
