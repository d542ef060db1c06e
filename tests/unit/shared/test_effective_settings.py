"""The command that shows the effective settings: sources, masks and mistakes."""

import json
import os

import pytest
from click.testing import CliRunner

from api.config import APISettings
from shared.config import ConfigurationError
from shared.effective_settings import MASK, commands, find_effective, mask_address
from worker.config import WorkerSettings

SERVICES = {"api": APISettings, "worker": WorkerSettings}
ADDRESSES = {
    "DATABASE__URL": "postgresql+psycopg://app:s3cret-pw@db/app",
    "BROKER__URL": "redis://:s3cret-pw@redis:6379/0",
    "STORAGE__URL": "file:///srv",
}


@pytest.fixture(autouse=True)
def configured(monkeypatch, tmp_path):
    """Give the least configuration, by the environment; return a function that gives more of it."""
    for name in os.environ:
        if name.startswith("DEEPFAKESTREAM_"):
            monkeypatch.delenv(name)

    def give(*, file=None, secrets=None, **environment):
        for name, value in environment.items():
            monkeypatch.setenv(f"DEEPFAKESTREAM_{name}", value)
        if file is not None:
            (tmp_path / "config.yaml").write_text(file)
            monkeypatch.setenv("DEEPFAKESTREAM_CONFIG", str(tmp_path / "config.yaml"))
        if secrets is not None:
            (tmp_path / "secrets").mkdir()
            for name, value in secrets.items():
                (tmp_path / "secrets" / name).write_text(value)
            monkeypatch.setenv("DEEPFAKESTREAM_SECRETS", str(tmp_path / "secrets"))

    give(**ADDRESSES)
    return give


def effective():
    return {setting.name: setting for setting in find_effective(SERVICES)}


def test_each_setting_names_the_source_that_wins(configured):
    configured(
        file="api:\n  port: 1\n  threads: 4\n  metrics_token: f\nworker:\n  flower: {user: f}\njobs:\n  lease_s: 7\n",
        secrets={"api__metrics_token": "from-a-secret", "worker__flower__password": "x"},
        API__PORT="2",
        WORKER='{"cpu_processes": 3}',
    )
    found = effective()
    assert {name: (found[name].value, found[name].source) for name in ("api.port", "api.threads", "jobs.lease_s")} == {
        "api.port": (2, "environment"),
        "api.threads": (4, "file"),
        "jobs.lease_s": (7.0, "file"),
    }
    assert (found["worker.cpu_processes"].value, found["worker.cpu_processes"].source) == (3, "environment")
    assert (found["worker.flower.user"].value, found["worker.flower.user"].source) == ("f", "file")
    assert found["api.metrics_token"].source == "secrets"
    assert found["worker.flower.password"].source == "secrets"
    assert found["worker.device"].source == "default"
    assert (found["api.port"].services, found["jobs.lease_s"].services) == (("api",), ("api", "worker"))


def test_no_secret_is_shown(configured):
    configured(
        secrets={"evidence__key": "s3cret-pw"},
        STORAGE__ACCESS_KEY_ID="id",
        STORAGE__SECRET_ACCESS_KEY="s3cret-pw",
        API__METRICS_TOKEN="s3cret-pw",
        API__LISTEN_URL="postgresql+psycopg://app:s3cret-pw/@b@db/app?sslpassword=s3cret-pw",
        TRACING__OTLP_ENDPOINT="https://u:s3cret-pw@collector",
        WORKER__FLOWER__PASSWORD="s3cret-pw",
    )
    for arguments in ([], ["--json"]):
        done = CliRunner().invoke(commands, ["check", *arguments])
        assert done.exit_code == 0, done.output
        assert "s3cret" not in done.output
        assert MASK in done.output
    assert effective()["database.url"].value == f"postgresql+psycopg://app:{MASK}@db/app"


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("redis://:pw@h:6379/0", f"redis://:{MASK}@h:6379/0"),
        ("redis://h:6379/0", "redis://h:6379/0"),
        ("postgresql://user@h/d", "postgresql://user@h/d"),
        ("postgresql://u:p@ss/wo:rd@h/d", f"postgresql://u:{MASK}@h/d"),
        ("postgresql:///d?host=/run&password=pw", f"postgresql:///d?host=/run&password={MASK}"),
        ("https://h/x?X-Amz-Signature=abc&a=1", f"https://h/x?X-Amz-Signature={MASK}&a=1"),
        ("file:///srv/a:b@c", "file:///srv/a:b@c"),
    ],
)
def test_passwords_in_addresses_are_masked(address, shown):
    assert mask_address(address) == shown


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"API__PROT": "1"}, "api.prot: Extra inputs are not permitted"),
        ({"WORKER__DEVICES": "cpu"}, "worker.devices: Extra inputs are not permitted"),
        ({"DATABSE__URL": "x"}, "DEEPFAKESTREAM_DATABSE__URL: no such setting"),
        ({"file": "api:\n  prot: 1\n"}, "api.prot: Extra inputs are not permitted"),
        ({"file": "ap:\n  port: 1\n"}, "ap: no such section"),
        ({"secrets": {"databse__url": "x"}}, "DEEPFAKESTREAM_SECRETS, file databse__url: no such setting"),
        ({"secrets": {"database__ulr": "x"}}, "database.ulr: Extra inputs are not permitted"),
        ({"API__PORT": "many"}, "api.port: Input should be a valid integer"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_unknown_and_invalid_settings_are_refused(configured, given, problem):
    configured(**given)
    with pytest.raises(ConfigurationError) as raised:
        find_effective(SERVICES)
    assert problem in str(raised.value)
    done = CliRunner().invoke(commands, ["check", "--json"])
    assert done.exit_code == 1
    assert any(problem in each for each in json.loads(done.stdout)["problems"])


def test_all_mistakes_of_both_services_are_named_once(configured, monkeypatch):
    monkeypatch.delenv("DEEPFAKESTREAM_DATABASE__URL")
    configured(API__PORT="0", WORKER__DEVICE="tpu")
    done = CliRunner().invoke(commands, ["check"])
    assert done.exit_code == 1
    assert done.stderr.count("database: Field required") == 1
    assert "api.port" in done.stderr
    assert "worker.device" in done.stderr


def test_only_what_was_given_and_only_one_service_can_be_shown(configured):
    configured(API__PORT="2")
    done = CliRunner().invoke(commands, ["check", "--changed", "--service", "worker", "--json"])
    assert set(json.loads(done.stdout)["settings"]) == {"database.url", "broker.url", "storage.url"}
    assert CliRunner().invoke(commands, ["check", "--service", "beat"]).exit_code == 2
