"""
Each network that paints is really trained here, for a second or two, on pictures that every installation has.

Where it is, patches and batches are half as large as usual: an eighth of the work for the same number of steps.
"""

import numpy as np
import pytest
import torch

from tests.unit.worker.training.conftest import ASTRONAUT, HOPPER
from worker.training.fakes.generators import autoencoders, inpainters, pictures, restorers, training_loop
from worker.training.fakes.generators.autoencoders import (
    HALF_LEVELS,
    Autoencoder,
    AutoencoderSettings,
    train_autoencoder,
)
from worker.training.fakes.generators.inpainters import Face, Inpainter, InpainterSettings, train_inpainter
from worker.training.fakes.generators.pictures import PATCH_PX, resize, to_tensor
from worker.training.fakes.generators.reconstruction_loss import (
    Discriminator,
    PerceptualDistance,
    ReconstructionLoss,
    ReconstructionLossSettings,
)
from worker.training.fakes.generators.restorers import Restorer, RestorerSettings, degrade, train_restorer
from worker.training.fakes.generators.training_loop import fit

CODES = ("plain", "variational", "quantised")
PICTURE = ASTRONAUT.picture[:256, :256]
TINY = {"upsampling": "shuffle", "halvings": 2, "code_channels": 8}
SMALL_PX, FEW = 64, 8
"""Side of a patch, and pictures in a batch, where a network is trained."""


@pytest.fixture
def small(monkeypatch):
    """Train on small patches in small batches."""
    for module in (autoencoders, inpainters, pictures, restorers):
        monkeypatch.setattr(module, "PATCH_PX", SMALL_PX)
    for module in (autoencoders, inpainters, restorers, training_loop):
        monkeypatch.setattr(module, "BATCH", FEW)


def face(portrait=ASTRONAUT):
    """As ``painting`` cuts faces for an inpainter."""
    left, top, right, bottom = (round(value) for value in portrait.box)
    left, top, right, bottom = left - 30, top - 30, right + 30, bottom + 30
    part = portrait.picture[top:bottom, left:right]
    return Face(part, [(x - left, y - top) for x, y in portrait.landmarks])


def mean_of_ends(losses):
    """Mean loss of the first tenth and of the last."""
    few = max(1, len(losses) // 10)
    return np.mean(losses[:few]), np.mean(losses[-few:])


def roughness(pictures):
    """How much neighbouring pixels differ."""
    return float((pictures[..., 1:] - pictures[..., :-1]).abs().mean())


@pytest.mark.parametrize("upsampling", ["shuffle", "transposed", "bilinear"])
@pytest.mark.parametrize("halvings", [2, 3, 4])
def test_an_autoencoder_keeps_the_size_of_a_picture(upsampling, halvings):
    network = Autoencoder(AutoencoderSettings(upsampling=upsampling, halvings=halvings, code_channels=4))
    assert network(torch.rand(2, 3, 96, 112)).shape == (2, 3, 96, 112)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("code", CODES)
def test_an_autoencoder_learns_to_reconstruct_a_picture(code):
    wanted = to_tensor(PICTURE[None])
    errors = []
    for images in (FEW, FEW * 30):
        settings = AutoencoderSettings(**TINY, code=code, images=images)
        network, losses = train_autoencoder(settings, [PICTURE], seed=1)
        assert len(losses) == images // FEW
        with torch.inference_mode():
            errors.append(float((network(wanted) - wanted).abs().mean()))
    assert errors[1] < 0.6 * errors[0]
    first, last = mean_of_ends(losses)
    assert last < first


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("code", CODES)
def test_equal_seeds_train_equal_autoencoders(code):
    settings = AutoencoderSettings(**TINY, code=code, likeness={"perception": 0.5, "adversary": 0.1}, images=2 * FEW)
    first, again, other = (train_autoencoder(settings, [PICTURE], seed=seed) for seed in (1, 1, 2))
    assert first[1] == again[1] != other[1]
    for name, value in first[0].state_dict().items():
        assert torch.equal(value, again[0].state_dict()[name])


@pytest.mark.parametrize("whole", [False, True])
def test_an_autoencoder_paints_patches_or_whole_faces_at_their_sizes(whole):
    network = Autoencoder(AutoencoderSettings(**TINY, whole=whole)).eval()
    sizes = set()
    for seed in range(4):
        painted = network.paint(PICTURE[:200, :180], (), np.random.default_rng(seed))
        assert (painted.dtype, painted.shape[2]) == (np.uint8, 3)
        assert all(side % 16 == 0 for side in painted.shape[:2])
        assert np.array_equal(painted, network.paint(PICTURE[:200, :180], (), np.random.default_rng(seed)))
        sizes.add(painted.shape[:2])
    assert (len(sizes) == 1) == whole
    if whole:
        assert sizes == {(PATCH_PX + 16, PATCH_PX)}


def test_a_quantised_code_takes_few_values_and_passes_gradients():
    network = Autoencoder(AutoencoderSettings(**TINY, code="quantised"))
    before = (torch.randn(2, 8, 4, 4) * 3).requires_grad_()
    code, cost = network.encode(before)
    values = code.detach().unique()
    assert len(values) <= 2 * HALF_LEVELS + 1
    assert torch.equal(values, (values * HALF_LEVELS).round() / HALF_LEVELS)
    assert (values.min(), values.max()) == (-1.0, 1.0)
    assert float(cost) == 0.0
    code.sum().backward()
    assert (before.grad > 0).all()


def test_a_variational_code_has_a_divergence_and_training_noise():
    network = Autoencoder(AutoencoderSettings(**TINY, code="variational"))
    given = torch.cat([torch.full((1, 8, 4, 4), 2.0), torch.zeros(1, 8, 4, 4)], dim=1)
    one, cost = network.encode(given)
    other, _ = network.encode(given)
    assert not torch.equal(one, other)
    # Kullback and Leibler's divergence of N(2, 1) from N(0, 1) is 2.
    assert float(cost) == pytest.approx(2e-3)
    assert torch.equal(network.eval().encode(given)[0], given[:, :8])


@pytest.mark.usefixtures("small")
def test_a_restorer_learns_to_enlarge():
    wanted = to_tensor(PICTURE[None])
    small = to_tensor(degrade(PICTURE, 128, 128, np.random.default_rng(0))[None])
    errors = []
    for images in (FEW, FEW * 24):
        settings = RestorerSettings(factor=2, blocks=1, planes=16, likeness={}, images=images)
        network, losses = train_restorer(settings, [PICTURE], seed=1)
        with torch.inference_mode():
            restored = network(small)
        assert restored.shape == wanted.shape
        errors.append(float((restored - wanted).abs().mean()))
    assert errors[1] < 0.8 * errors[0]
    first, last = mean_of_ends(losses)
    assert last < 0.8 * first


@pytest.mark.usefixtures("small")
def test_equal_seeds_train_equal_restorers():
    settings = RestorerSettings(factor=4, blocks=1, planes=8, likeness={"adversary": 0.1}, images=2 * FEW)
    first, again, other = (train_restorer(settings, [PICTURE], seed=seed)[1] for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize("factor", [2, 4])
def test_a_restored_face_has_a_size_that_swappers_paint(factor):
    network = Restorer(RestorerSettings(factor=factor, blocks=1, planes=8)).eval()
    sides = [min(network.paint(PICTURE, (), np.random.default_rng(seed)).shape[:2]) for seed in range(12)]
    assert all(128 <= side <= 256 for side in sides)
    assert len(set(sides)) > 3


def test_degrading_is_random_and_repeatable():
    one, again, other = (degrade(PICTURE, 48, 40, np.random.default_rng(seed)) for seed in (1, 1, 5))
    assert (one.shape, one.dtype) == ((40, 48, 3), np.uint8)
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


@pytest.mark.usefixtures("small")
def test_an_inpainter_learns_to_denoise_faces():
    settings = InpainterSettings(planes=8, steps=4, images=FEW * 24)
    network, losses = train_inpainter(settings, [face(), face(HOPPER)], seed=1)
    first, last = mean_of_ends(losses)
    assert last < 0.7 * first
    pictures = to_tensor(resize(face().picture, PATCH_PX, PATCH_PX)[None]) * 2 - 1
    masks = torch.zeros(1, 1, PATCH_PX, PATCH_PX)
    masks[:, :, 32:96, 32:96] = 1.0
    noise = torch.randn(1, 3, PATCH_PX, PATCH_PX)
    # However little was learnt, what is drawn is no noise.
    drawn = network.sample(pictures, masks, noise, 0.9)[:, :, 32:96, 32:96]
    assert roughness(drawn) < 0.25 * roughness(noise)


@pytest.mark.usefixtures("small")
def test_equal_seeds_train_equal_inpainters():
    settings = InpainterSettings(planes=8, images=2 * FEW)
    first, again, other = (train_inpainter(settings, [face()], seed=seed)[1] for seed in (1, 1, 2))
    assert first == again != other


def test_an_inpainter_changes_nothing_outside_the_mask_and_all_within():
    network = Inpainter(InpainterSettings(planes=8, steps=3)).eval()
    pictures = torch.rand(2, 3, 32, 32) * 2 - 1
    masks = torch.zeros(2, 1, 32, 32)
    masks[:, :, 8:24, 8:24] = 1.0
    noise = torch.randn(2, 3, 32, 32)
    drawn = network.sample(pictures, masks, noise, 1.0)
    inside = masks.bool().expand_as(drawn)
    assert torch.equal(drawn[~inside], pictures[~inside])
    assert (drawn[inside] != pictures[inside]).float().mean() > 0.99
    assert drawn.abs().max() <= 1.0
    assert torch.equal(drawn, network.sample(pictures, masks, noise, 1.0))
    # What is under the mask is not seen where nothing of it is left in the noise.
    hidden = network.sample(torch.where(inside, -pictures, pictures), masks, noise, 1.0)
    assert (hidden - drawn)[inside].abs().mean() < 0.05


class Believer(Inpainter):
    """Takes what it is shown for the clear picture."""

    def forward(self, noisy, _known, _mask, _time):
        return noisy


def test_lower_strength_keeps_more_of_a_face():
    network = Believer(InpainterSettings(planes=8, steps=4))
    pictures, masks = torch.rand(1, 3, 16, 16) * 2 - 1, torch.ones(1, 1, 16, 16)
    noise = torch.randn(1, 3, 16, 16)
    drawn = [network.sample(pictures, masks, noise, strength) for strength in (0.1, 0.5, 0.9)]
    apart = [float((picture - pictures).abs().mean()) for picture in drawn]
    assert apart[0] < 0.8 * apart[1] < 0.8 * apart[2]


def test_an_inpainted_face_keeps_its_size_and_what_is_outside_the_mask():
    network = Inpainter(InpainterSettings(planes=8, steps=2)).eval()
    part, marks = face()
    painted = network.paint(part, marks, np.random.default_rng(3))
    assert (painted.shape, painted.dtype) == (part.shape, np.uint8)
    same = (painted == part).all(axis=2)
    assert 0.1 < same.mean() < 0.9
    # Corners of the square lie outside every face mask.
    assert same[:5, :5].all()
    assert same[-5:, -5:].all()


def test_perceptual_distance_is_zero_for_equal_pictures_and_grows_with_blur():
    perception = PerceptualDistance()
    assert sum(1 for _ in perception.levels) == 3
    sharp = to_tensor(PICTURE[None, :128, :128])
    distances = []
    for side in (128, 64, 24):
        small = resize(np.ascontiguousarray(PICTURE[:128, :128]), side, side)
        distances.append(float(perception(to_tensor(resize(small, 128, 128)[None]), sharp)))
    assert distances[0] == 0.0
    assert 0.0 < distances[1] < distances[2]


def test_perceptual_distance_draws_no_random_number():
    torch.manual_seed(1)
    alone = torch.rand(3)
    torch.manual_seed(1)
    PerceptualDistance()
    assert torch.equal(torch.rand(3), alone)


def test_the_discriminator_starts_after_its_share_of_training():
    settings = ReconstructionLossSettings(structure=0.0, adversary=1.0, adversary_from=0.5)
    likeness = ReconstructionLoss(settings, images=64)
    clear = resize(PICTURE, 64, 64)
    sharp = to_tensor(np.stack([clear] * 8))
    blurred = to_tensor(np.stack([resize(resize(clear, 8, 8), 64, 64)] * 8))
    plain = float((sharp - blurred).abs().mean())
    losses = [float(likeness(blurred, sharp).detach()) for _ in range(60)]
    assert losses[:4] == pytest.approx([plain] * 4)
    # A discriminator that tells them apart makes blurred pictures dear.
    assert losses[4] != pytest.approx(plain)
    assert losses[-1] > losses[4] + 0.2


def test_a_discriminator_rates_patches():
    assert Discriminator()(torch.rand(2, 3, 128, 96)).shape == (2, 1, 16, 12)


def test_fitting_leaves_a_network_in_eval_mode_and_counts_its_steps():
    network = torch.nn.Linear(2, 1)
    given = torch.rand(16, 2)
    losses = fit(network, lambda _: network(given).square().mean(), images=16 * 30, seed=1, rate=1e-1)
    assert len(losses) == 30
    assert losses[-1] < losses[0]
    assert not network.training
