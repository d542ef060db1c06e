"""The code of before the newest migration runs on the schema of after it: what an upgrade without downtime needs."""

import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import httpx
import pytest
from deepfakestream import Client
from deepfakestream.results import Job
from deepfakestream.stack.embedded import EmbeddedStack

from tests.inside import environment_of_service, services_of
from tests.servers import state_folder

ROOT = Path(__file__).resolve().parents[2]
VERSIONS = "migrations/versions"


def skip(why):
    """Skip, or fail where the history has to be there."""
    if os.environ.get("DEEPFAKESTREAM_HISTORY_REQUIRED") == "1":
        pytest.fail(why)
    pytest.skip(why)


def git(*arguments):
    """What git says; skips where it cannot know."""
    program = shutil.which("git")
    if program is None:
        skip("git is not installed")
    done = subprocess.run([program, "-C", ROOT, *arguments], capture_output=True, check=False)
    if done.returncode:
        skip("this is no checkout with its history")
    return done.stdout


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    """A folder with the code as it was before the newest migration."""
    newest = max(path.name for path in (ROOT / VERSIONS).glob("0*.py"))
    # Of a branch that was merged, the merge is what added it here.
    options = ("--first-parent", "-m", "--diff-filter=A", "--format=%H")
    added = next(iter(git("log", *options, "--", f"{VERSIONS}/{newest}").decode().split()), None)
    if added is None:
        skip("the newest migration is not committed yet, or lies before what was fetched of the history")
    folder = tmp_path_factory.mktemp("before")
    with tarfile.open(fileobj=io.BytesIO(git("archive", f"{added}~1"))) as archive:
        archive.extractall(folder, filter="data")
    assert not (folder / VERSIONS / newest).exists()
    return folder


class MixedStack(EmbeddedStack):
    """Services of two releases on the schema of the newer one; files are in S3."""

    def __init__(self, state, older, older_services, storage):
        super().__init__(state)
        self._older, self._older_services, self._storage = older, older_services, storage

    def _environment(self, database_url, *ports):
        # The migration, and what operators do, is the newer release's.
        given = self._storage.model_dump(
            include={"url", "endpoint_url", "public_endpoint_url", "region", "access_key_id"}
        )
        given["secret_access_key"] = self._storage.secret_access_key.get_secret_value()
        return super()._environment(database_url, *ports) | {
            "PYTHONPATH": f"{ROOT}:{ROOT / 'client'}",
            # As operators are told to: a default that both releases have, until the last process is exchanged.
            "DEEPFAKESTREAM_MODELS__DEFAULT": "swap-lite0",
            **{f"DEEPFAKESTREAM_STORAGE__{name.upper()}": value for name, value in given.items()},
        }

    def _add(self, name, command, environment, **options):
        if self._older_services(name):
            environment = environment | {"PYTHONPATH": f"{self._older}:{self._older / 'client'}"}
        return super()._add(name, command, environment, **options)

    def client(self):
        return Client(self.url, self.api_key_file.read_text().strip())


def test_the_release_before_runs_on_the_newer_schema_and_beside_the_newer_one(before, clip, s3_settings, monkeypatch):
    monkeypatch.setenv("DEEPFAKESTREAM_WORKER__PROCESSES_PER_DEVICE", "1")
    with state_folder() as state:
        with MixedStack(state, before, lambda name: name != "redis", s3_settings) as stack, stack.client() as client:
            for service in services_of(stack):
                assert service.name == "redis" or environment_of_service(service)["PYTHONPATH"].startswith(str(before))
            first = client.wait(client.submit(clip).id, timeout_s=120)
            assert first.status == "succeeded"
            client.cancel(client.submit(clip, segment_seconds=1.0).id)
        # Whichever is exchanged first: jobs that one release accepts the workers of the other do.
        for older in (lambda name: name == "api", lambda name: name.startswith("worker")):
            with MixedStack(state, before, older, s3_settings) as stack, stack.client() as client:
                for job in (
                    client.submit(clip, reuse=False),
                    submit_directly(stack.url, stack.api_key_file.read_text().strip(), clip),
                ):
                    done = client.wait(job.id, timeout_s=120)
                    assert (done.status, done.verdict, done.fake_score) == ("succeeded", "real", first.fake_score)
                    # Whichever release recorded them, and whichever reads them.
                    assert summaries(done) == summaries(first)
        # Then all are of the newer release; what the older ones did is as it was.
        with MixedStack(state, before, lambda _: False, s3_settings) as stack, stack.client() as client:
            assert client.get(first.id).fake_score == first.fake_score
            for job in client.list(status="succeeded"):
                assert summaries(client.get(job.id)) == summaries(first)
            again = client.wait(client.submit(clip).id, timeout_s=120)
            assert (again.status, again.verdict) == ("succeeded", first.verdict)


def summaries(job):
    """What is said of a job's segments without their faces, and how many are done."""
    said = [(part.status, part.people_count, part.faces_found, part.faces_scored) for part in job.segments]
    assert (job.segments_done, job.segments_total) == (len(said), len(said))
    return said


def submit_directly(url, key, clip):
    """As a client of either release does: without what only the newer api knows."""

    def call(path, document):
        headers = {"Authorization": f"Bearer {key}"}
        return httpx.post(f"{url}{path}", headers=headers, json=document, timeout=30.0).raise_for_status().json()

    upload = call("/v1/uploads", {"size_bytes": clip.stat().st_size})
    httpx.put(upload["url"], headers=upload["headers"], content=clip.read_bytes()).raise_for_status()
    return Job.from_json(call("/v1/jobs", {"upload_id": upload["id"]}))
