import json
import shutil

import pytest
import torch

from shared.errors import ModelError
from shared.manifests import DEFAULT_CHECKPOINT, PACKAGED_MODELS_DIR, list_manifests, read_manifest
from worker.model.checkpoint import load_checkpoint, load_pinned, save_checkpoint
from worker.model.network import ForgeryNetwork

NAME = DEFAULT_CHECKPOINT


@pytest.fixture
def models(tmp_path):
    shutil.copytree(PACKAGED_MODELS_DIR / NAME, tmp_path / NAME)
    return tmp_path


def edit(models, **changes):
    path = models / NAME / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def saved(models):
    """Save another checkpoint beside the packaged one."""
    manifest = read_manifest(models / NAME)
    network = ForgeryNetwork(manifest.architecture, manifest.preprocessing.crop_size_px)
    renamed = manifest.model_copy(update={"name": "saved", "trained": True})
    return save_checkpoint(models / "saved", renamed, network, "# saved\n"), network


def test_every_packaged_checkpoint_loads():
    names = list(list_manifests(PACKAGED_MODELS_DIR))
    assert NAME in names
    for name in names:
        checkpoint = load_checkpoint(PACKAGED_MODELS_DIR, name)
        assert not checkpoint.network.training


def test_the_packaged_default_is_trained_and_small_and_has_a_model_card():
    folder = PACKAGED_MODELS_DIR / NAME
    manifest = read_manifest(folder)
    low, high = manifest.calibration.uncertainty_band
    assert manifest.trained
    assert low <= manifest.calibration.threshold <= high
    assert (folder / manifest.weights.file).stat().st_size <= 12 * 1024**2
    assert {"validation_roc_auc", "validation_pairs_roc_auc", "validation_false_positive_rate"} <= set(manifest.metrics)
    card = (folder / "MODEL_CARD.md").read_text()
    assert f"{manifest.calibration.threshold:g}" in card
    assert manifest.training_data
    for line in manifest.training_data:
        assert line in card
    for heading in ("How weak it is", "Intended use", "Out of scope", "Validation", "Calibration", "Where it fails"):
        assert f"## {heading}" in card
    assert (folder / "curves.svg").exists()


def test_saved_half_precision_weights_load_as_float32(models):
    manifest, network = saved(models)
    loaded = load_checkpoint(models, "saved")
    assert loaded.manifest == manifest
    for name, value in loaded.network.state_dict().items():
        original = network.state_dict()[name]
        assert value.dtype == original.dtype
        assert torch.allclose(value.float(), original.float(), atol=1e-3, rtol=1e-3)
    assert (models / "saved" / "weights.safetensors").stat().st_size < 12 * 1024**2


def test_changed_weights_are_refused(models):
    saved(models)
    path = models / "saved" / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match="do not have the SHA-256 in its manifest"):
        load_checkpoint(models, "saved")


@pytest.mark.parametrize("name", ["absent", f"../{NAME}", "", "a/b"])
def test_a_name_without_a_checkpoint_is_refused(models, name):
    with pytest.raises(ModelError):
        load_checkpoint(models, name)


@pytest.mark.parametrize(
    "changes",
    [
        {"weights": {"file": "../../etc/passwd", "sha256": "0" * 64}},
        {"weights": {"file": "absent.safetensors", "sha256": "0" * 64}},
        {"weights": {"file": "weights.safetensors", "sha256": "0" * 64}},
        {"weights": {"sha256": "0" * 64}},
        {"surprise": 1},
        {"calibration": {"temperature": 1.0, "threshold": 0.9, "uncertainty_band": [0.4, 0.6]}},
    ],
    ids=["outside", "absent", "digest", "no file", "unknown key", "band without threshold"],
)
def test_a_broken_manifest_is_refused(models, changes):
    edit(models, **changes)
    with pytest.raises(ModelError):
        load_checkpoint(models, NAME)


def test_pinned_weights_are_found_in_another_folder_and_use_the_pinned_manifest(models):
    pinned = read_manifest(models / NAME)
    calibration = pinned.calibration.model_copy(update={"temperature": 7.0})
    pinned = pinned.model_copy(update={"calibration": calibration})
    (models / NAME).rename(models / "kept")
    (models / "broken").mkdir()
    (models / "broken" / "manifest.json").write_text("{")
    saved_as_default(models)
    loaded = load_pinned(models, pinned)
    assert loaded.manifest == pinned
    kept = load_checkpoint(models, "kept").network.state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in loaded.network.state_dict().items())


def saved_as_default(models):
    """Replace the default checkpoint with an untrained one of the same name."""
    manifest = read_manifest(models / "kept")
    network = ForgeryNetwork(manifest.architecture, manifest.preprocessing.crop_size_px)
    save_checkpoint(models / NAME, manifest, network, "# other\n")


def test_other_weights_of_the_same_name_are_refused(models):
    pinned = read_manifest(models / NAME)
    (models / NAME).rename(models / "kept")
    saved_as_default(models)
    shutil.rmtree(models / "kept")
    with pytest.raises(ModelError, match="are not installed"):
        load_pinned(models, pinned)


@pytest.mark.parametrize("damage", ["weights are gone", "weights are exchanged already"])
def test_a_half_replaced_folder_does_not_hide_the_old_checkpoint(models, damage):
    pinned = read_manifest(models / NAME)
    shutil.copytree(models / NAME, models / "kept")
    weights = models / NAME / pinned.weights.file
    if damage == "weights are gone":
        weights.unlink()
    else:
        weights.write_bytes(b"other")
    assert load_pinned(models, pinned).manifest == pinned
