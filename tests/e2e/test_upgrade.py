"""The code before the newest migration runs on the schema after it, which an upgrade without downtime needs."""

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

from api.embedded.stack import EmbeddedStack
from tests.inside import environment_of_service, services_of
from tests.servers import state_folder

ROOT = Path(__file__).resolve().parents[2]
VERSIONS = "migrations/versions"


def skip(why):
    """Skip the test, or fail it where the git history is required."""
    if os.environ.get("DEEPFAKESTREAM_HISTORY_REQUIRED") == "1":
        pytest.fail(why)
    pytest.skip(why)


def git(*arguments):
    """Run git; return its output, or skip the test if it fails."""
    program = shutil.which("git")
    if program is None:
        skip("git is not installed")
    done = subprocess.run([program, "-C", ROOT, *arguments], capture_output=True, check=False)
    if done.returncode:
        skip("this is no checkout with its history")
    return done.stdout


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    """Make a folder with the code before the newest migration."""
    newest = max(path.name for path in (ROOT / VERSIONS).glob("0*.py"))
    # If the migration came with a merged branch, the merge commit added it here.
    options = ("--first-parent", "-m", "--diff-filter=A", "--format=%H")
    added = next(iter(git("log", *options, "--", f"{VERSIONS}/{newest}").decode().split()), None)
    if added is None:
        skip("the newest migration is not committed yet, or is older than the fetched history")
    folder = tmp_path_factory.mktemp("before")
    with tarfile.open(fileobj=io.BytesIO(git("archive", f"{added}~1"))) as archive:
        archive.extractall(folder, filter="data")
    assert not (folder / VERSIONS / newest).exists()
    return folder


NEW = ("redis", "worker-stream")
"""Services that are no process of the release before, which has no readers of streams."""


class MixedStack(EmbeddedStack):
    """A stack with services of two releases on the schema of the newer one; files are in S3."""

    def __init__(self, state, older, older_services, storage):
        super().__init__(state)
        self._older, self._older_services, self._storage = older, older_services, storage

    def _environment(self, database_url, *ports):
        # Migrations and operators' commands are those of the newer release.
        given = self._storage.model_dump(
            include={"url", "endpoint_url", "public_endpoint_url", "region", "access_key_id"}
        )
        given["secret_access_key"] = self._storage.secret_access_key.get_secret_value()
        return super()._environment(database_url, *ports) | {
            "PYTHONPATH": f"{ROOT}:{ROOT / 'client'}",
            # As the documentation says: a default checkpoint that both releases have, until all processes are replaced.
            "DEEPFAKESTREAM_MODELS__DEFAULT": "swap-lite0",
            **{f"DEEPFAKESTREAM_STORAGE__{name.upper()}": value for name, value in given.items()},
        }

    def _add(self, name, command, environment, **options):
        if self._older_services(name):
            environment = environment | {"PYTHONPATH": f"{self._older}:{self._older / 'client'}"}
        return super()._add(name, command, environment, **options)

    def client(self):
        return Client(self.url, self.api_key_file.read_text().strip())


def test_the_previous_release_runs_on_the_new_schema_beside_the_new_one(before, clip, s3_settings, monkeypatch):
    monkeypatch.setenv("DEEPFAKESTREAM_WORKER__PROCESSES_PER_DEVICE", "1")
    with state_folder() as state:
        with MixedStack(state, before, lambda name: name not in NEW, s3_settings) as stack, stack.client() as client:
            for service in services_of(stack):
                assert service.name in NEW or environment_of_service(service)["PYTHONPATH"].startswith(str(before))
            first = client.wait(client.submit(clip).id, timeout_s=120)
            assert first.status == "succeeded"
            client.cancel(client.submit(clip, segment_seconds=1.0).id)
        # Services may be replaced in any order: workers of one release run jobs that the other one accepted.
        for older in (("api",), ("worker-cpu", "worker-gpu")):
            with MixedStack(state, before, older.__contains__, s3_settings) as stack, stack.client() as client:
                # Workers that do not know streams leave them alone; its source does not answer.
                stream = None if "api" in older else client.begin_stream("http://127.0.0.1:1/live.m3u8").id
                for job in (
                    client.submit(clip, reuse=False),
                    submit_directly(stack.url, stack.api_key_file.read_text().strip(), clip),
                ):
                    done = client.wait(job.id, timeout_s=120)
                    assert (done.status, done.verdict, done.fake_score) == ("succeeded", "real", first.fake_score)
                    # Segments can be recorded by one release and read by the other.
                    assert summaries(done) == summaries(first)
                if stream is not None:
                    assert client.get(stream).status == "running"
                    client.stop_stream(stream)
                    assert client.wait(stream, timeout_s=20).status == "cancelled"
        # When all services are of the newer release, the older ones' results are unchanged.
        with MixedStack(state, before, lambda _: False, s3_settings) as stack, stack.client() as client:
            assert client.get(first.id).fake_score == first.fake_score
            for job in client.list(status="succeeded"):
                assert summaries(client.get(job.id)) == summaries(first)
            again = client.wait(client.submit(clip).id, timeout_s=120)
            assert (again.status, again.verdict) == ("succeeded", first.verdict)


def summaries(job):
    """Return the summaries of a job's segments, without faces, and how many are done."""
    said = [(part.status, part.people_count, part.faces_found, part.faces_scored) for part in job.segments]
    assert (job.segments_done, job.segments_total) == (len(said), len(said))
    return said


def submit_directly(url, key, clip):
    """Submit by direct upload, only with what both releases support."""

    def call(path, document):
        headers = {"Authorization": f"Bearer {key}"}
        return httpx.post(f"{url}{path}", headers=headers, json=document, timeout=30.0).raise_for_status().json()

    upload = call("/v1/uploads", {"size_bytes": clip.stat().st_size})
    httpx.put(upload["url"], headers=upload["headers"], content=clip.read_bytes()).raise_for_status()
    return Job.from_json(call("/v1/jobs", {"upload_id": upload["id"]}))
