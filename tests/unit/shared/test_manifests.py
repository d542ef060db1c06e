import json

import pytest

from shared.manifests import PACKAGED_MODELS_DIR, Manifest, list_manifests, read_manifest


@pytest.fixture
def packaged():
    """The first packaged manifest, as plain data."""
    return json.loads(next(iter(sorted(PACKAGED_MODELS_DIR.glob("*/manifest.json")))).read_bytes())


def test_manifests_from_before_there_were_two_residual_scales_mean_grey_levels(packaged, tmp_path):
    packaged["architecture"].pop("residual_scale", None)
    (tmp_path / "manifest.json").write_text(json.dumps(packaged))
    assert read_manifest(tmp_path).architecture.residual_scale == "grey-levels"


@pytest.mark.parametrize("scale", ["grey-levels", "own-level"])
def test_the_residual_scale_is_kept(scale, packaged):
    packaged["architecture"]["residual_scale"] = scale
    manifest = Manifest.model_validate(packaged)
    assert Manifest.model_validate_json(manifest.model_dump_json()) == manifest
    assert manifest.architecture.residual_scale == scale


def test_packaged_manifests_are_named_as_their_folders():
    manifests = list_manifests(PACKAGED_MODELS_DIR)
    assert manifests
    assert all((PACKAGED_MODELS_DIR / name / "manifest.json").exists() for name in manifests)
