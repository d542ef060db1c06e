"""The compose files, read by Docker Compose's own library, agree with the code."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from api.config import APISettings
from shared.config import load_settings
from tests.tools import tool
from worker.config import WorkerSettings

DOCKER = Path(__file__).resolve().parents[2] / "docker"
OWN = {"api", "migrate", "gpu-worker", "cpu-worker", "stream-worker", "beat", "flower", "bucket"}


def composed(*files):
    """Return the project as Docker Compose reads it."""
    done = subprocess.run(
        [tool("compose"), "-format", "json", *files], cwd=DOCKER, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def project():
    return composed("compose.yml")


@pytest.fixture(scope="module")
def services(project):
    return project["services"]


def test_an_unknown_property_is_refused(tmp_path):
    file = tmp_path / "compose.yml"
    file.write_text("services: {a: {image: x, depend_on: [b]}}\n")
    done = subprocess.run([tool("compose"), file], capture_output=True, text=True, check=False)
    assert done.returncode != 0


def test_every_service_is_defined(services):
    assert set(services) == OWN | {"postgres", "redis", "s3", "prometheus", "grafana"}


def test_only_the_api_and_the_port_of_publishers_can_be_published_beyond_loopback(services):
    published = {
        name: [port.get("host_ip") for port in service["ports"]]
        for name, service in services.items()
        if service.get("ports")
    }
    names = ("api", "stream-worker", "flower", "prometheus", "grafana")
    assert published == {name: ["127.0.0.1"] for name in names}
    bound = re.findall(r"\$\{(\w*BIND):-127\.0\.0\.1\}", (DOCKER / "compose.yml").read_text())
    assert bound == ["BIND", "PUSH_BIND"]


def test_only_workers_that_fetch_reach_the_internet(project, services):
    assert project["networks"]["back"]["internal"] is True
    assert [name for name, service in services.items() if "out" in service["networks"]] == [
        "cpu-worker",
        "stream-worker",
    ]
    assert set(services["gpu-worker"]["networks"]) == {"back"}


def test_containers_are_read_only_without_capabilities(services):
    for name in OWN:
        service = services[name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert "no-new-privileges:true" in service["security_opt"]
    for service in services.values():
        assert "mem_limit" in service
        assert not service.get("privileged")


def test_no_secret_is_in_an_environment_variable(project, services):
    for service in services.values():
        for name, value in (service.get("environment") or {}).items():
            assert not re.search(r"PASSWORD$|SECRET_ACCESS_KEY$|TOKEN$", name), (name, value)
    for secret in project["secrets"].values():
        assert Path(secret["file"]).parent.name == "secrets"


def test_the_script_creates_every_secret_once(project, tmp_path):
    script = tmp_path / "secrets.sh"
    script.write_text((DOCKER / "secrets.sh").read_text())
    subprocess.run(["/bin/sh", script], check=True)
    made = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}
    assert set(made) == {Path(secret["file"]).name for secret in project["secrets"].values()}
    assert made["postgres_password"] in made["database__url"]
    assert made["redis_password"] in made["broker__url"]
    [identity] = json.loads(made["s3_identities"])["identities"]
    assert identity["credentials"] == [
        {"accessKey": made["storage__access_key_id"], "secretKey": made["storage__secret_access_key"]}
    ]
    assert len(set(made.values())) == len(made)
    subprocess.run(["/bin/sh", script], check=True)
    assert {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()} == made
    assert (tmp_path / "secrets").stat().st_mode & 0o077 == 0


def test_the_services_accept_the_configuration(services, tmp_path, monkeypatch):
    given = services["gpu-worker"]["environment"]
    configs = DOCKER.parent / "configs"
    file = configs / Path(given["DEEPFAKESTREAM_CONFIG"]).name
    script = tmp_path / "secrets.sh"
    script.write_text((DOCKER / "secrets.sh").read_text())
    subprocess.run(["/bin/sh", script], check=True)
    monkeypatch.setenv("DEEPFAKESTREAM_CONFIG", str(file))
    monkeypatch.setenv("DEEPFAKESTREAM_SECRETS", str(tmp_path / "secrets"))
    api, worker = load_settings(APISettings), load_settings(WorkerSettings)
    assert [port["target"] for port in services["api"]["ports"]] == [api.api.port]
    assert [port["target"] for port in services["flower"]["ports"]] == [worker.worker.flower.port]
    assert [port["target"] for port in services["stream-worker"]["ports"]] == [worker.streams.push_endpoint[1]]
    assert api.streams.push_address == f"rtmp://127.0.0.1:{worker.streams.push_endpoint[1]}"
    scraped = yaml.safe_load((DOCKER / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    assert scraped[0]["static_configs"] == [{"targets": [f"api:{api.api.port}"]}]
    assert scraped[1]["dns_sd_configs"][0]["port"] == worker.worker.metrics_port
    assert set(scraped[1]["dns_sd_configs"][0]["names"]) <= set(services)
    for name in ("gpu-worker", "cpu-worker"):
        grace_s = seconds(services[name]["stop_grace_period"])
        limit_s = max(worker.worker.score_time_limit_s, worker.worker.ingest_time_limit_s)
        assert limit_s <= worker.worker.shutdown_grace_s < grace_s
    assert seconds(services["api"]["stop_grace_period"]) > api.api.shutdown_grace_s
    assert worker.worker.flower.password is not None
    assert api.api.metrics_token is not None


def seconds(duration):
    """Convert a duration such as ``10m30s``."""
    factors = {"h": 3600, "m": 60, "s": 1}
    return sum(float(number) * factors[unit] for number, unit in re.findall(r"([\d.]+)([hms])", duration))


def test_every_bind_mount_exists(services):
    for service in services.values():
        for volume in service.get("volumes", ()):
            if volume["type"] == "bind":
                assert Path(volume["source"]).exists(), volume["source"]


def test_containers_run_the_expected_commands(services):
    assert {name: services[name].get("command") for name in OWN} == {
        "api": None,
        "migrate": ["python", "-m", "migrations", "upgrade"],
        "gpu-worker": ["python", "-m", "worker", "--role", "gpu"],
        "cpu-worker": ["python", "-m", "worker", "--role", "cpu"],
        "stream-worker": ["python", "-m", "worker", "--role", "stream"],
        "beat": ["python", "-m", "worker", "beat"],
        "flower": ["python", "-m", "worker", "flower"],
        "bucket": ["python", "-m", "api.storage", "prepare"],
    }


def test_a_gpu_is_added_by_the_second_file():
    worker = composed("compose.yml", "compose.gpu.yml")["services"]["gpu-worker"]
    [device] = worker["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    # The library writes merged environments as a list.
    environment = dict(item.split("=", 1) for item in worker["environment"])
    assert environment["DEEPFAKESTREAM_WORKER__DEVICE"] == "cuda"
    assert environment["DEEPFAKESTREAM_CONFIG"]
    assert worker["image"].endswith("-cuda")
