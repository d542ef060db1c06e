"""An evidence bundle of the running service: downloaded, checked, and its media scored again."""

import json
import zipfile

import pytest
from click.testing import CliRunner
from deepfakestream import Client, DeepfakeStreamError
from deepfakestream.cli import main
from deepfakestream.verification import verify_bundle


@pytest.fixture(scope="module")
def finished(stack, clip):
    """A job of the clip that has ended, and the command line that reaches the stack."""
    api_key = stack.api_key_file.read_text().strip()
    with Client(stack.url, api_key) as client:
        job = client.wait(client.submit(clip).id, timeout_s=120)
    assert job.status == "succeeded"

    def run(*arguments):
        return CliRunner().invoke(main, ["--url", stack.url, "--api-key", api_key, *map(str, arguments)])

    return job, run


def test_a_bundle_of_a_real_scan_holds_and_its_scores_come_out_again(stack, clip, finished, tmp_path):
    job, run = finished
    path = tmp_path / "bundle.zip"
    done = run("evidence", job.id, "--out", path)
    assert done.exit_code == 0, done.output
    assert [file.name for file in tmp_path.iterdir()] == ["bundle.zip"]
    key = json.loads(run("evidence-key", "--json").output)
    found = verify_bundle(path, media=clip, key=key["id"], scan_again=True)
    assert found.passed, found.checks
    assert found.is_key_expected
    assert found.is_rescored
    assert stack.evidence_key_file.stat().st_mode & 0o777 == 0o600


def test_a_download_that_is_refused_leaves_no_file(client, finished, tmp_path):
    _, run = finished
    with pytest.raises(DeepfakeStreamError):
        client.evidence("00000000-0000-7000-8000-000000000000", tmp_path / "bundle.zip")
    assert not list(tmp_path.iterdir())
    done = run("evidence", "00000000-0000-7000-8000-000000000000", "--out", tmp_path / "bundle.zip")
    assert done.exit_code == 1
    assert "not_found" in done.output


def test_a_download_replaces_a_file_only_when_it_has_arrived(client, finished, tmp_path):
    job, _ = finished
    path = tmp_path / "bundle.zip"
    path.write_text("before")
    with pytest.raises(DeepfakeStreamError):
        client.evidence("00000000-0000-7000-8000-000000000000", path)
    assert path.read_text() == "before"
    assert client.evidence(job.id, path) == path
    assert zipfile.is_zipfile(path)
