"""What the doctor finds wrong with an installation; tests/e2e/test_command_line.py has one that is well."""

import shutil

import pytest

from shared.errors import ModelError
from shared.manifests import DEFAULT_CHECKPOINT, PACKAGED_MODELS_DIR
from worker.doctor import check_checkpoints, describe_sandbox, run_check
from worker.media.sandbox import Sandbox


@pytest.fixture
def models(tmp_path):
    """Copy the packaged checkpoints."""
    return shutil.copytree(PACKAGED_MODELS_DIR, tmp_path / "models")


def test_weights_that_were_changed_are_a_problem(models):
    weights = models / "swap-lite0" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    state, detail = check_checkpoints(models, DEFAULT_CHECKPOINT)
    assert state == "problem"
    assert detail.startswith(
        "the weights of checkpoint 'swap-lite0' do not have the SHA-256 in its manifest; swap-lite2"
    )


def test_a_manifest_that_cannot_be_read_is_a_problem(models):
    (models / "swap-lite0" / "manifest.json").write_text("{}")
    assert check_checkpoints(models, DEFAULT_CHECKPOINT)[0] == "problem"
    (models / DEFAULT_CHECKPOINT / "manifest.json").write_text("{}")
    with pytest.raises(ModelError):
        check_checkpoints(models, DEFAULT_CHECKPOINT)


def test_missing_protection_is_a_warning_that_names_it():
    assert describe_sandbox(Sandbox(has_no_network=True, dies_with_parent=True))[0] == "ok"
    state, detail = describe_sandbox(Sandbox(dies_with_parent=True))
    assert state == "warning"
    assert "missing on this system: network namespaces" in detail
    assert "setpriv" in describe_sandbox(Sandbox())[1]


def test_a_check_that_fails_is_a_problem_and_no_crash():
    def fail():
        raise OSError(2, "No such file or directory", "ffmpeg")

    found = run_check("ffmpeg", fail)
    assert (found["name"], found["state"]) == ("ffmpeg", "problem")
    assert "No such file" in found["detail"]
