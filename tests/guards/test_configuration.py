"""The configuration files document exactly the settings of the code, and are valid."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from api.config import API, APISettings, Evidence
from api.embedded import stack
from shared.config import SECTIONS, SharedSettings, load_settings
from worker.config import Provenance, Worker, WorkerSettings

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
ADDRESSES = {"DATABASE__URL": "postgresql+psycopg://x/y", "BROKER__URL": "redis://x", "STORAGE__URL": "file:///x"}


def sections():
    found = {name: field.annotation for name, field in SharedSettings.model_fields.items()}
    return found | {"api": API, "evidence": Evidence, "provenance": Provenance, "worker": Worker}


def settings_of(model: type[BaseModel], prefix: str) -> dict[str, Any]:
    """Full name → default of each setting; Ellipsis where there is none."""
    found: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= settings_of(field.annotation, f"{prefix}.{name}")
        else:
            found[f"{prefix}.{name}"] = ... if field.is_required() else field.default
    return found


def documented():
    """Full name → value of each setting in the reference; None where it is commented out."""
    found: dict[str, Any] = {}
    path: list[str] = []
    for line in (CONFIGS / "reference.yaml").read_text().splitlines():
        match = re.match(r"^( *)(# )?([a-z_]+):(?: (.*))?$", line)
        if not match or (match[2] and not match[1]):
            continue
        depth = len(match[1]) // 2
        path[depth:] = [match[3]]
        value = (match[4] or "").split(" #")[0].strip()
        if match[2]:
            found[".".join(path)] = None
        elif value:
            found[".".join(path)] = yaml.safe_load(value)
    return found


def test_the_reference_names_every_setting_with_its_default():
    expected = {
        name: value for section, model in sections().items() for name, value in settings_of(model, section).items()
    }
    written = documented()
    assert set(written) == set(expected)
    for name, value in written.items():
        if value is not None:
            assert value == expected[name], name


def test_the_settings_have_exactly_the_known_sections():
    assert set(sections()) == SECTIONS


SETTINGS_FILES = [*(CONFIGS / f"{name}.yaml" for name in ("cpu", "gpu", "multi-gpu", "reference")), stack.CONFIG]


@pytest.mark.parametrize("path", SETTINGS_FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("settings", [APISettings, WorkerSettings])
def test_every_configuration_file_is_valid_once_addresses_are_given(path, settings, monkeypatch):
    monkeypatch.setenv("DEEPFAKESTREAM_CONFIG", str(path))
    for variable, value in ADDRESSES.items():
        monkeypatch.setenv(f"DEEPFAKESTREAM_{variable}", value)
    load_settings(settings)


def test_each_gpu_gets_the_configured_number_of_processes(monkeypatch):
    monkeypatch.setenv("DEEPFAKESTREAM_CONFIG", str(CONFIGS / "multi-gpu.yaml"))
    for variable, value in ADDRESSES.items():
        monkeypatch.setenv(f"DEEPFAKESTREAM_{variable}", value)
    worker = load_settings(WorkerSettings).worker
    assert worker.processes("gpu") == 4
    assert {worker.device_of(index) for index in range(4)} == {"cuda:0", "cuda:1"}


SECRET = re.compile(r"password|secret|token|api_key|private_key", re.IGNORECASE)


def test_no_secret_has_a_default():
    settings = {
        name: value for section, model in sections().items() for name, value in settings_of(model, section).items()
    }
    secret = {name: value for name, value in settings.items() if SECRET.search(name)}
    assert {"api.metrics_token", "worker.flower.password"} <= set(secret)
    assert set(secret.values()) <= {None, ...}


@pytest.mark.parametrize("path", [*sorted(CONFIGS.rglob("*.yaml")), stack.CONFIG], ids=lambda path: path.stem)
def test_no_configuration_file_holds_a_secret(path):
    def look(value, name):
        if isinstance(value, dict):
            for key, inner in value.items():
                look(inner, f"{name}.{key}")
        elif isinstance(value, str):
            assert not SECRET.search(name), name
            # user:password@ in an address
            assert not re.search(r"//[^/@\s]*:[^/@\s]+@", value), name

    look(yaml.safe_load(path.read_text()) or {}, path.stem)
