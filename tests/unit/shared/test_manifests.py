import json

import numpy as np
import pytest

from shared.errors import ModelError
from shared.manifests import (
    DEFAULT_CHECKPOINT,
    PACKAGED_MODELS_DIR,
    Manifest,
    Scale,
    check_manifests,
    list_manifests,
    read_manifest,
)


@pytest.fixture
def packaged():
    """Return the first packaged manifest as plain data."""
    return json.loads(next(iter(sorted(PACKAGED_MODELS_DIR.glob("*/manifest.json")))).read_bytes())


def test_manifests_without_a_residual_scale_mean_grey_levels(packaged, tmp_path):
    packaged["architecture"].pop("residual_scale", None)
    (tmp_path / "manifest.json").write_text(json.dumps(packaged))
    assert read_manifest(tmp_path).architecture.residual_scale == "grey-levels"


@pytest.mark.parametrize("scale", ["grey-levels", "own-level"])
def test_the_residual_scale_is_kept(scale, packaged):
    packaged["architecture"]["residual_scale"] = scale
    manifest = Manifest.model_validate(packaged)
    assert Manifest.model_validate_json(manifest.model_dump_json()) == manifest
    assert manifest.architecture.residual_scale == scale


def test_packaged_manifests_are_named_like_their_folders():
    manifests = list_manifests(PACKAGED_MODELS_DIR)
    assert manifests
    assert all((PACKAGED_MODELS_DIR / name / "manifest.json").exists() for name in manifests)


@pytest.fixture
def checkpoint(packaged, tmp_path):
    """Return a function that writes a manifest with a changed architecture and returns the models folder."""

    def write(name, **architecture):
        (tmp_path / name).mkdir()
        content = {**packaged, "name": name, "architecture": {**packaged["architecture"], **architecture}}
        (tmp_path / name / "manifest.json").write_text(json.dumps(content))
        return tmp_path

    return write


def test_the_error_of_an_unknown_backbone_names_checkpoint_and_known_backbones(checkpoint):
    folder = checkpoint("future", backbone="xception", dropout=2.0)
    with pytest.raises(ModelError) as caught:
        read_manifest(folder / "future")
    message = str(caught.value)
    assert message.startswith("checkpoint 'future' has the unknown backbone 'xception'; known are efficientnet-lite0, ")
    assert message.endswith("efficientnet-b4")
    assert "\n" not in message


def test_an_unreadable_checkpoint_does_not_affect_others(checkpoint):
    checkpoint("future", backbone="xception")
    checkpoint("broken", dropout=2.0)
    folder = checkpoint("good")
    assert list(list_manifests(folder)) == ["good"]
    broken, future = check_manifests(folder, "good")
    assert "'broken' is invalid" in broken
    assert "'xception'" in future
    with pytest.raises(ModelError, match="'future' has the unknown backbone"):
        check_manifests(folder, "future")


def test_readable_checkpoints_give_no_errors(checkpoint, tmp_path):
    assert check_manifests(checkpoint("good"), "good") == []
    # cpu workers do not need the default checkpoint. The api and gpu workers refuse to start without it.
    assert check_manifests(tmp_path / "nowhere", "good") == []


def test_numbers_and_arrays_share_one_logistic_function_and_keep_their_precision():
    scale = Scale(1.7, -0.4)
    logits = np.array([-1e30, -50.0, -3.25, -0.4, 0.0, 7.5, 1e30], np.float32)
    found = scale.probabilities(logits, np.tanh)
    assert found.dtype == np.float32
    assert (found[0], found[3], found[-1]) == (0.0, 0.5, 1.0)
    assert found.tolist() == pytest.approx([scale.probability(float(logit)) for logit in logits], abs=1e-7)
    # Scores are equal to those in 32 bits, bit for bit.
    halves = (logits - np.float32(-0.4)) / np.float32(2 * 1.7)
    assert np.array_equal(found, 0.5 + 0.5 * np.tanh(halves))


def test_a_pinned_manifest_leaves_out_defaults():
    """An older release can then read manifests that do not use newer fields."""
    manifest = read_manifest(PACKAGED_MODELS_DIR / DEFAULT_CHECKPOINT)
    pinned = manifest.pin()
    assert Manifest.from_pin(json.loads(json.dumps(pinned))).calibration == manifest.calibration
    fields = type(manifest.preprocessing).model_fields
    same = {name for name, field in fields.items() if getattr(manifest.preprocessing, name) == field.default}
    assert same
    assert not same & set(pinned["preprocessing"])
