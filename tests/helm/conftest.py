"""Fixtures that render the chart with Helm."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.tools import KUBERNETES_OLDEST, tool

CHART = Path(__file__).resolve().parents[2] / "helm" / "deepfakestream"
EXAMPLES = sorted((CHART / "examples").glob("*.yaml"))

Render = Callable[..., "Rendered"]


class Rendered:
    """The objects that Helm rendered from the chart and some values."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.objects: list[dict[str, Any]] = [item for item in yaml.safe_load_all(text) if item]

    def of(self, kind: str) -> dict[str, dict[str, Any]]:
        """Objects of one kind by component: ``api``, ``gpu-worker`` and so on."""
        return {
            item["metadata"]["labels"]["app.kubernetes.io/component"]: item
            for item in self.objects
            if item["kind"] == kind
        }

    def pods(self) -> dict[str, dict[str, Any]]:
        """Specifications of all pods by component."""
        found = {}
        for kind in ("Deployment", "Job"):
            found |= {component: item["spec"]["template"]["spec"] for component, item in self.of(kind).items()}
        return found | {component: item["spec"] for component, item in self.of("Pod").items()}

    def config(self) -> str:
        """The service's configuration file."""
        return str(self.of("ConfigMap")["config"]["data"]["config.yaml"])


def helm(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    """Run Helm and return its output."""
    return subprocess.run([tool("helm"), *map(str, arguments)], capture_output=True, text=True, check=False)


@pytest.fixture(scope="session")
def render() -> Render:
    """Render an example by its name, with values changed as by ``--set``."""

    def run(example: str, *changes: str) -> Rendered:
        done = helm(
            *("template", "release", CHART, "--namespace", "deepfakes", "--kube-version", KUBERNETES_OLDEST),
            *("--values", CHART / "examples" / f"{example}.yaml"),
            *(f"--set-json={change}" for change in changes),
        )
        assert done.returncode == 0, done.stderr
        return Rendered(done.stdout)

    return run
