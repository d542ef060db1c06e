"""The operator's commands for storage."""

import sys
import uuid

import pytest
from click.testing import CliRunner

from api.storage import commands


@pytest.fixture
def run(monkeypatch):
    def invoke(storage, *arguments):
        values = {"DATABASE__URL": "postgresql+psycopg://x/y", "BROKER__URL": "redis://x"}
        for name, value in storage.items():
            values[f"STORAGE__{name.upper()}"] = value
        monkeypatch.delenv("DEEPFAKESTREAM_CONFIG", raising=False)
        for name, value in values.items():
            monkeypatch.setenv(f"DEEPFAKESTREAM_{name}", value)
        return CliRunner().invoke(commands, arguments)

    return invoke


@pytest.fixture
def bucket(s3_settings):
    return {
        "url": s3_settings.url,
        "endpoint_url": s3_settings.endpoint_url,
        "region": s3_settings.region,
        "access_key_id": s3_settings.access_key_id,
        "secret_access_key": s3_settings.secret_access_key.get_secret_value(),
    }


def test_check_reports_working_storage(run, tmp_path, bucket):
    for storage in ({"url": f"file://{tmp_path}"}, bucket):
        done = run(storage, "check")
        assert (done.exit_code, done.output) == (0, f"ok: {storage['url']}\n")


def test_check_reports_why_storage_fails(run, bucket):
    done = run(bucket | {"secret_access_key": "wrong"}, "check")
    assert done.exit_code == 1
    assert "storage" in done.output
    assert "wrong" not in done.output


def test_the_lifecycle_is_longer_than_the_retention(run, bucket):
    done = run(bucket, "lifecycle")
    assert done.exit_code == 0, done.output
    assert "media/  expires after 67 days" in done.output
    assert run(bucket, "lifecycle", "--days", "60").exit_code == 1
    assert "61 days" in run(bucket, "lifecycle", "--days", "61").output


def test_prepare_creates_the_bucket_once(run, bucket):
    new = bucket | {"url": f"s3://b{uuid.uuid4().hex}/files"}
    assert "created the bucket" in run(new, "prepare").output
    again = run(new, "prepare")
    assert again.exit_code == 0
    assert "created the bucket" not in again.output
    assert "files/media/  expires" in again.output
    assert run(new, "check").exit_code == 0


def test_storage_on_a_disk_has_no_lifecycle(run, tmp_path):
    assert run({"url": f"file://{tmp_path}"}, "lifecycle").exit_code == 1


def test_without_the_library_for_s3_the_error_names_the_extra(run, bucket, monkeypatch):
    monkeypatch.delitem(sys.modules, "shared.storage.s3", raising=False)
    monkeypatch.delitem(sys.modules, "shared.storage.client", raising=False)
    monkeypatch.setitem(sys.modules, "boto3.session", None)
    for command in ("check", "prepare", "lifecycle"):
        done = run(bucket, command)
        assert done.exit_code == 1
        assert "the extra 's3' is not installed" in done.output


def test_an_address_without_a_scheme_is_a_configuration_error(run, bucket):
    done = run({**bucket, "endpoint_url": "127.0.0.1:8333"}, "check")
    assert done.exit_code == 1
    assert "endpoint_url" in done.output
    assert "http://" in done.output


def test_an_environment_that_boto3_refuses_is_reported(run, bucket, monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "nope")
    for command in ("check", "prepare", "lifecycle"):
        done = run(bucket, command)
        assert (done.exit_code, done.output) == (
            1,
            "Error: storage in S3 cannot be opened: The config profile (nope) could not be found\n",
        )
