import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam, LayerGradientXActivation

from shared.errors import ModelError
from shared.manifests import DEFAULT_CHECKPOINT, PACKAGED_MODELS_DIR
from tests.clips import astronaut
from tests.unit.worker.explain.conftest import score
from worker.explain.hiding import hide, hottest_area
from worker.explain.maps import Explainer, as_input, as_map, features_and_gradient, spread_out
from worker.media.decoding import Frame
from worker.model.checkpoint import load_checkpoint

PATCH = (slice(120, 176), slice(90, 146))


@pytest.fixture(scope="module")
def network():
    return load_checkpoint(PACKAGED_MODELS_DIR, DEFAULT_CHECKPOINT).network


def test_a_map_has_the_size_of_its_crop_and_is_one_at_its_hottest_place(explainer, swapped):
    [heat] = explainer.explain_faces([swapped.crop])
    assert heat.values.shape == swapped.crop.shape[:2]
    assert heat.values.dtype == np.float32
    assert (heat.values.min(), heat.values.max()) == (0.0, 1.0)


def test_the_explained_score_is_that_of_serving(detector, explainer, swapped, real):
    crops = [swapped.crop, real.crop]
    found = [heat.fake_score for heat in explainer.explain_faces(crops)]
    assert found == pytest.approx(detector.score_crops(crops), abs=2e-3)


def test_a_map_is_the_same_every_time_and_whatever_is_explained_beside_it(explainer, swapped, real):
    [alone] = explainer.explain_faces([swapped.crop])
    beside, _ = explainer.explain_faces([swapped.crop, real.crop])
    assert np.array_equal(alone.values, beside.values)
    assert (alone.fake_score, alone.fake_score_hidden) == (beside.fake_score, beside.fake_score_hidden)
    assert explainer.explain_faces([]) == []


def test_hiding_the_hottest_part_lowers_the_score_and_hiding_the_coldest_does_not(detector, explainer, swapped):
    [heat] = explainer.explain_faces([swapped.crop])
    hot, cold = (hide(swapped.crop, hottest_area(values, 0.1)) for values in (heat.values, -heat.values))
    whole, without_hot, without_cold = detector.score_crops([swapped.crop, hot, cold])
    assert without_hot < whole - 0.02
    assert without_hot < without_cold - 0.02
    assert heat.fake_score_hidden == pytest.approx(without_hot, abs=5e-3)


def test_a_planted_artefact_attracts_the_map(detector, explainer):
    clean = score(detector, Frame(0.0, astronaut())).crop
    planted = clean.copy()
    planted[PATCH] = np.clip(clean[PATCH] + np.random.default_rng(0).normal(0.0, 12.0, (56, 56, 1)), 0, 255)
    before, after = (heat.values for heat in explainer.explain_faces([clean, planted]))
    # The patch covers a sixteenth of the crop.
    assert before[PATCH].sum() / before.sum() < 0.2
    assert after[PATCH].sum() / after.sum() > 0.4


@pytest.mark.parametrize("endpoint", ["reduction_3", "reduction_4"])
def test_features_and_gradient_are_those_of_captum(network, swapped, endpoint):
    face = as_input(swapped.crop)
    logit, features, gradient = features_and_gradient(network, face, endpoint)
    with torch.inference_mode():
        assert logit == pytest.approx(float(network(face)), abs=1e-4)
        maps = network.features.network.extract_endpoints(network.make_input_planes(face))
        layer = last_block(network, face, maps[endpoint].shape[2:])
    given = face.clone().requires_grad_()
    products = LayerGradientXActivation(network, layer).attribute(given)[0].sum(0).detach().numpy()
    assert np.allclose((features * gradient).sum(axis=0), products, rtol=0.0, atol=1e-4 * np.abs(products).max())
    cam = LayerGradCam(network, layer).attribute(given)[0, 0].detach().numpy()
    ours = (features * gradient.mean(axis=(1, 2), keepdims=True)).sum(axis=0)
    assert np.allclose(ours, cam, rtol=0.0, atol=1e-4 * np.abs(cam).max())


def last_block(network, face, size):
    """The last block of the backbone whose map has this height and width."""
    found = []
    blocks = network.features.network._blocks
    hooks = [
        block.register_forward_hook(lambda block, _given, made: found.append(block) if made.shape[2:] == size else None)
        for block in blocks
    ]
    network(face)
    for hook in hooks:
        hook.remove()
    return found[-1]


def test_where_nothing_raises_the_score_the_map_is_zero():
    assert not as_map(-np.ones((8, 8), np.float32)).any()
    assert as_map(np.array([[-1.0, 2.0], [0.0, 4.0]], np.float32)).tolist() == [[0.0, 0.5], [0.0, 1.0]]


def test_spreading_out_keeps_places():
    cells = np.zeros((28, 28), np.float32)
    cells[7, 20] = 1.0
    values = spread_out(cells, 224)
    row, column = np.unravel_index(values.argmax(), values.shape)
    assert (row // 8, column // 8) == (7, 20)


def test_what_is_not_a_number_is_a_model_error(swapped):
    checkpoint = load_checkpoint(PACKAGED_MODELS_DIR, DEFAULT_CHECKPOINT)
    checkpoint.network.head.decide.weight.fill_(float("nan"))
    with pytest.raises(ModelError, match="not a number"):
        Explainer(checkpoint, "cpu").explain_faces([swapped.crop])


def test_a_pinned_checkpoint_is_loaded_by_its_weights(explainer, swapped):
    pinned = Explainer.load_pinned(PACKAGED_MODELS_DIR, explainer.manifest)
    [one], [other] = (each.explain_faces([swapped.crop]) for each in (explainer, pinned))
    assert np.array_equal(one.values, other.values)
