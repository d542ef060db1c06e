import pytest

from shared.config import ConfigurationError, SharedSettings, load_settings
from worker.config import WorkerSettings

ADDRESSES = """
database: {url: "postgresql+psycopg://x/y"}
broker: {url: "redis://x"}
storage: {url: "file:///x"}
"""


@pytest.fixture
def configure(tmp_path, monkeypatch):
    def write(text, **environment):
        (tmp_path / "config.yaml").write_text(text)
        monkeypatch.setenv("DEEPFAKESTREAM_CONFIG", str(tmp_path / "config.yaml"))
        for name, value in environment.items():
            monkeypatch.setenv(f"DEEPFAKESTREAM_{name}", value)

    return write


def test_the_environment_overrides_the_file(configure):
    configure(ADDRESSES + "limits: {max_duration_s: 60}\njobs: {lease_s: 7}", LIMITS__MAX_DURATION_S="90")
    settings = load_settings(SharedSettings)
    assert (settings.limits.max_duration_s, settings.jobs.lease_s) == (90.0, 7.0)


def test_all_mistakes_are_reported_together_with_full_names(configure):
    configure("limits: {max_pixels: -1}\njobs: {leases: 1}\nwoker: {}")
    with pytest.raises(ConfigurationError) as raised:
        load_settings(SharedSettings)
    for name in ("database", "broker", "storage", "limits.max_pixels", "jobs.leases", "woker"):
        assert f"  {name}: " in str(raised.value)


@pytest.mark.parametrize(
    ("value", "devices"), [("cpu", ["cpu"]), ("cuda:1", ["cuda:1"]), ('["cuda:0", "cuda:1"]', ["cuda:0", "cuda:1"])]
)
def test_devices_can_be_one_name_or_a_list_in_the_environment(configure, value, devices):
    configure(ADDRESSES, WORKER__DEVICE=value)
    settings = load_settings(WorkerSettings)
    assert settings.worker.devices == devices


@pytest.mark.parametrize(
    ("cores", "worker", "processes", "threads"),
    [
        (2, "device: cpu", 2, 1),
        (16, "device: cpu", 4, 4),
        (16, "device: [cpu, cpu]", 2, 8),
        (16, "device: cpu, processes_per_device: 1", 1, 16),
        (4, "device: cpu, threads_per_process: 3", 4, 3),
        (16, "device: [cuda:0, cuda:1]", 2, 8),
        (1, "device: cpu", 1, 1),
    ],
)
def test_cores_are_divided_among_processes(configure, monkeypatch, tmp_path, cores, worker, processes, threads):
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(cores)))
    monkeypatch.setattr("worker.cores.OWN_GROUPS", tmp_path / "nothing")
    configure(f"{ADDRESSES}worker: {{{worker}}}")
    chosen = load_settings(WorkerSettings).worker
    assert (chosen.processes("gpu"), chosen.threads()) == (processes, threads)


def test_processes_are_assigned_to_devices_in_turn(configure):
    configure(ADDRESSES + "worker: {device: [cuda:0, cuda:1], processes_per_device: 2}")
    worker = load_settings(WorkerSettings).worker
    assert [worker.device_of(index) for index in range(4)] == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cuda:²", "cuda:١", "'cuda:'", "[]"])
def test_an_unknown_device_is_refused(configure, device):
    configure(ADDRESSES + f"worker: {{device: {device}}}")
    with pytest.raises(ConfigurationError, match=r"worker\.device"):
        load_settings(WorkerSettings)


def test_time_limits_must_stay_below_the_brokers_visibility_timeout(configure):
    configure(ADDRESSES + "worker: {ingest_time_limit_s: 2000}")
    with pytest.raises(ConfigurationError, match="visibility_timeout_s"):
        load_settings(WorkerSettings)


def test_secret_files_override_the_file_but_not_the_environment(configure, tmp_path, monkeypatch):
    # Kubernetes mounts secrets as links to files in a hidden folder.
    folder, hidden = tmp_path / "secrets", tmp_path / "secrets" / "..2026_01_31"
    hidden.mkdir(parents=True)
    for name, value in {
        "database__url": "postgresql+psycopg://from/secret\n",
        "broker__url": "redis://from-secret",
        "worker__flower__password": "hush",
        "something_else": "not a setting",
    }.items():
        (hidden / name).write_text(value)
        (folder / name).symlink_to(hidden / name)
    monkeypatch.setenv("DEEPFAKESTREAM_SECRETS", str(folder))
    configure(ADDRESSES, BROKER__URL="redis://from-environment")
    settings = load_settings(WorkerSettings)
    assert settings.database.url == "postgresql+psycopg://from/secret"
    assert settings.broker.url == "redis://from-environment"
    assert settings.worker.flower.password.get_secret_value() == "hush"
    assert "hush" not in repr(settings)


def test_a_missing_folder_of_secrets_is_a_mistake(configure, monkeypatch):
    monkeypatch.setenv("DEEPFAKESTREAM_SECRETS", "/no/such/folder")
    configure(ADDRESSES)
    with pytest.raises(ConfigurationError, match="/no/such/folder"):
        load_settings(SharedSettings)


@pytest.mark.parametrize(
    "storage",
    [
        "url: ftp://x/y",
        "url: s3://",
        "url: s3://x, access_key_id: a",
        "url: s3://x, kms_key_id: k",
        "url: s3://x, server_side_encryption: rot13",
    ],
)
def test_inconsistent_storage_settings_are_refused(configure, storage):
    configure(ADDRESSES.replace('url: "file:///x"', storage))
    with pytest.raises(ConfigurationError, match="storage"):
        load_settings(SharedSettings)


@pytest.mark.parametrize(
    ("given", "endpoint"),
    [("0.0.0.0:1935", ("0.0.0.0", 1935)), ("[::]:1935", ("::", 1935)), ("", None)],  # noqa: S104 - only parsed
    ids=["IPv4", "IPv6", "off"],
)
def test_the_port_of_publishers_is_a_host_and_a_port(configure, given, endpoint):
    configure(ADDRESSES, STREAMS__PUSH_LISTEN=given, STREAMS__PUSH_ADDRESS="rtmps://live.example/")
    streams = load_settings(SharedSettings).streams
    assert (streams.push_endpoint, streams.push_address) == (endpoint, "rtmps://live.example")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("PUSH_LISTEN", value) for value in ("1935", "host", "host:99999", "host:1935/live", "rtmp://host:1935")),
        *(
            ("PUSH_ADDRESS", value)
            for value in ("live.example", "https://live.example", "rtmp://live.example/app", "rtmp://user@live.example")
        ),
    ],
)
def test_addresses_of_publishers_with_mistakes_are_refused(configure, name, value):
    configure(ADDRESSES, **{f"STREAMS__{name}": value})
    with pytest.raises(ConfigurationError, match=rf"streams\.{name.lower()}"):
        load_settings(SharedSettings)
