"""
The workflows are valid, have the least permissions, and use the versions that the tests use.

``make lint`` runs zizmor as well, which finds much more. What is here are rules of this project that zizmor does not
have, or that it drops when a line says the opposite explicitly.
"""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from api.app import VERSION
from tests.tools import PACKAGES, tool

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.fixture(params=WORKFLOWS, ids=lambda path: path.stem)
def workflow(request):
    return request.param


def jobs(path):
    return yaml.safe_load(path.read_text())["jobs"]


@pytest.mark.merge
def test_actionlint_finds_nothing(workflow):
    done = subprocess.run([tool("actionlint"), "-no-color", workflow], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.merge
def test_actionlint_finds_an_unknown_property(tmp_path):
    file = tmp_path / "x.yml"
    file.write_text("on: push\njobs: {a: {runs-on: ubuntu-24.04, steps: [{run: 'echo ${{ github.nothing }}'}]}}\n")
    assert subprocess.run([tool("actionlint"), file], capture_output=True, check=False).returncode != 0


def test_every_action_is_pinned_by_its_commit_and_names_its_version(workflow):
    used = re.findall(r"uses: (.*)", workflow.read_text())
    assert used
    assert [line for line in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)] == []


def test_every_use_of_an_action_is_of_the_same_version():
    versions = {}
    for path in WORKFLOWS:
        for name, version in re.findall(r"uses: ([\w./-]+)@(.*)", path.read_text()):
            versions.setdefault(name, set()).add(version)
    assert all(len(found) == 1 for found in versions.values()), versions


def test_every_job_has_a_time_limit_and_only_the_permissions_that_it_declares(workflow):
    content = yaml.safe_load(workflow.read_text())
    assert content["permissions"] == {}
    assert content["concurrency"]["group"]
    for job in jobs(workflow).values():
        assert set(job["permissions"]) <= {"contents", "id-token"}
        assert job["permissions"]["contents"] == "read"
        assert job["timeout-minutes"] <= 90


def test_no_checkout_leaves_credentials_and_no_script_has_an_expression(workflow):
    """zizmor accepts ``persist-credentials: true``, and expressions such as those of a matrix, which may change."""
    for step in (step for job in jobs(workflow).values() for step in job["steps"]):
        if step.get("uses", "").startswith("actions/checkout"):
            assert step["with"]["persist-credentials"] is False
        assert "${{" not in step.get("run", "")


def test_a_release_uses_the_version_of_helm_that_the_tests_use():
    text = next(path for path in WORKFLOWS if path.stem == "cd").read_text()
    assert set(re.findall(r"go install (\S+)", text)) == {PACKAGES["helm"]}


def test_package_chart_and_api_have_the_same_version():
    setup = re.search(r"^version = (.*)$", (ROOT / "setup.cfg").read_text(), re.MULTILINE)[1]
    chart = yaml.safe_load((ROOT / "helm" / "deepfakestream" / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == setup == VERSION
