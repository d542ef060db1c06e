"""
The part of the chart's schema that follows from the settings in the code.

``python -m tests.helm.settings`` rewrites it.
"""

import json
from pathlib import Path
from typing import Any, Final

from api.config import APISettings
from worker.config import WorkerSettings

SCHEMA: Final = Path(__file__).resolve().parents[2] / "helm/deepfakestream/values.schema.json"
NOT_THE_OPERATORS: Final = {
    # Addresses with passwords in them, and secrets, belong into the Secret.
    "database": {"url"},
    "broker": {"url"},
    "api": {"host", "port", "metrics_token"},
    # The key is in the Secret, and the chart mounts no other files.
    "evidence": {"key", "key_file", "retired_key_files"},
    # The chart mounts no file of certificates; an image made on top of the worker's can bring one.
    "provenance": {"trust_anchors_file"},
    "worker": {
        *("device", "processes_per_device", "cpu_processes"),
        *("metrics_address", "metrics_port", "beat_folder"),
    },
    # Those of the port for publishers have values of their own.
    "streams": {"push_listen", "push_address", "push_certificate_file", "push_certificate_key_file"},
    "flower": {"address", "port", "password"},
}
"""Section → settings that the chart sets itself or reads from the Secret."""
OF_STORAGE: Final = {"upload_valid_s", "cache_linger_s"}
"""Settings of storage that ``config`` may hold; the others have values of their own in the chart."""


def config_schema() -> dict[str, Any]:
    """Return the schema of ``config`` in the chart's values."""
    sections: dict[str, Any] = {}
    for settings in (APISettings, WorkerSettings):
        schema = settings.model_json_schema()
        for name, reference in schema["properties"].items():
            sections[name] = _section(name, reference, schema["$defs"])
    storage = sections["storage"]
    storage["description"] = "The rest follows from the values under storage."
    storage["properties"] = {name: value for name, value in storage["properties"].items() if name in OF_STORAGE}
    return {
        "type": "object",
        "description": "As a configuration file; no addresses and no secrets.",
        "properties": dict(sorted(sections.items())),
        "additionalProperties": False,
    }


def _section(name: str, reference: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    definition = definitions[reference["$ref"].rpartition("/")[2]]
    properties = {}
    for setting, value in definition["properties"].items():
        if setting in NOT_THE_OPERATORS.get(name, ()):
            continue
        is_section = "$ref" in value
        properties[setting] = _section(setting, value, definitions) if is_section else _plain(value)
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    """Remove titles, defaults and descriptions, which the documents have."""
    return {key: part for key, part in value.items() if key not in {"title", "default", "description"}}


def main() -> None:
    """Rewrite the schema."""
    schema = json.loads(SCHEMA.read_text())
    schema["properties"]["config"] = config_schema()
    SCHEMA.write_text(json.dumps(schema, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
