"""Storage that cannot be opened is a configuration error with a message."""

import pytest

from api.app import create_app
from api.config import APISettings
from shared.config import ConfigurationError, StorageSettings
from shared.queues import Sender, make_celery
from shared.storage import open_storage
from worker.config import WorkerSettings
from worker.tasks.context import Context

S3 = {"url": "s3://bucket", "endpoint_url": "http://127.0.0.1:1"}
KEY = {"access_key_id": "id", "secret_access_key": "secret"}


@pytest.fixture
def aws(monkeypatch):
    """Set variables of boto3, and disable the user's configuration files and the platform's credentials."""
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    return monkeypatch.setenv


@pytest.mark.parametrize(
    ("variables", "settings", "reason"),
    [
        pytest.param({"AWS_PROFILE": "nope"}, KEY, "profile .nope. could not be found", id="profile"),
        pytest.param({"AWS_ACCESS_KEY_ID": "id"}, {}, "missing: AWS_SECRET_ACCESS_KEY", id="half of the credentials"),
        pytest.param({}, KEY | {"region": "not a region!"}, "region_name 'not a region!'", id="region"),
        pytest.param({"AWS_DEFAULT_REGION": "not a region!"}, KEY, "region_name", id="region of the environment"),
        pytest.param({}, KEY | {"endpoint_url": "http://a b:99999999"}, "Invalid endpoint", id="address"),
    ],
)
def test_settings_that_boto3_refuses_are_configuration_errors(aws, variables, settings, reason):
    for name, value in variables.items():
        aws(name, value)
    with pytest.raises(ConfigurationError, match=reason):
        open_storage(StorageSettings(**{**S3, **settings}))


def test_api_and_worker_raise_configuration_errors(aws):
    aws("AWS_PROFILE", "nope")
    shared = {
        "database": {"url": "postgresql+psycopg://nobody@127.0.0.1:1/none"},
        "broker": {"url": "redis://127.0.0.1:1/0"},
        "storage": S3 | KEY,
    }
    with pytest.raises(ConfigurationError, match="storage in S3 cannot be opened"):
        create_app(APISettings(**shared))
    settings = WorkerSettings(**shared)
    with pytest.raises(ConfigurationError, match="storage in S3 cannot be opened"):
        Context.connect(settings, Sender(make_celery(settings.broker, settings.jobs)))
