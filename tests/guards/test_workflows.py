"""The workflows are ones that GitHub takes, pinned, with the least rights, and call what a person calls."""

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


def steps(path):
    return [step for job in jobs(path).values() for step in job["steps"]]


@pytest.mark.merge
def test_actionlint_finds_nothing(workflow):
    done = subprocess.run([tool("actionlint"), "-no-color", workflow], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.merge
def test_actionlint_would_find_a_mistake(tmp_path):
    file = tmp_path / "x.yml"
    file.write_text("on: push\njobs: {a: {runs-on: ubuntu-24.04, steps: [{run: 'echo ${{ github.nothing }}'}]}}\n")
    assert subprocess.run([tool("actionlint"), file], capture_output=True, check=False).returncode != 0


def test_every_action_is_pinned_by_its_commit_and_says_its_version(workflow):
    used = re.findall(r"uses: (.*)", workflow.read_text())
    assert used
    for line in used:
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line


def test_one_action_has_one_version():
    pins = {}
    for path in WORKFLOWS:
        for name, pin in re.findall(r"uses: ([\w./-]+)@(.*)", path.read_text()):
            pins.setdefault(name, set()).add(pin)
    assert all(len(found) == 1 for found in pins.values()), pins


def test_nothing_has_more_rights_than_it_says(workflow):
    content = yaml.safe_load(workflow.read_text())
    assert content["permissions"] == {}
    assert content["concurrency"]["group"]
    for job in content["jobs"].values():
        assert set(job["permissions"]) <= {"contents", "id-token"}
        assert job["permissions"]["contents"] == "read"
        assert job["timeout-minutes"] <= 90
    for step in steps(workflow):
        if step.get("uses", "").startswith("actions/checkout"):
            assert step["with"]["persist-credentials"] is False


def test_no_script_has_an_expression_in_it(workflow):
    """What others can write, such as a branch's name, would be run."""
    for step in steps(workflow):
        assert "${{" not in step.get("run", "")


def test_helm_is_the_one_that_the_tests_use():
    text = next(path for path in WORKFLOWS if path.stem == "cd").read_text()
    assert set(re.findall(r"go install (\S+)", text)) == {PACKAGES["helm"]}


def test_versions_agree():
    setup = re.search(r"^version = (.*)$", (ROOT / "setup.cfg").read_text(), re.MULTILINE)[1]
    chart = yaml.safe_load((ROOT / "helm" / "deepfakestream" / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == setup == VERSION
