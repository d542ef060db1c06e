import numpy as np
import pytest
import torch

from worker.model.srm import DIVISORS, KERNELS, TRUNCATION, SRMFilter


def test_residuals_equal_an_explicit_convolution():
    faces = torch.from_numpy(np.random.default_rng(0).random((2, 3, 12, 15), np.float32))
    grey = faces.numpy().astype(np.float64).mean(axis=1) * 255
    padded = np.pad(grey, ((0, 0), (2, 2), (2, 2)), mode="reflect")
    expected = np.zeros((2, 3, 12, 15))
    for plane, (kernel, divisor) in enumerate(zip(KERNELS, DIVISORS, strict=True)):
        for y in range(12):
            for x in range(15):
                window = padded[:, y : y + 5, x : x + 5]
                expected[:, plane, y, x] = (window * np.array(kernel)).sum(axis=(1, 2)) / divisor
    expected = np.clip(expected, -TRUNCATION, TRUNCATION) / TRUNCATION
    assert SRMFilter()(faces).numpy() == pytest.approx(expected, abs=1e-4)


def test_flat_and_linear_pictures_have_no_residual():
    slope = torch.linspace(0.2, 0.8, 32).view(1, 1, 1, 32).expand(1, 3, 32, 32)
    # Not at the border, where reflection breaks the slope.
    assert SRMFilter()(slope)[..., 4:-4, 4:-4].abs().max() < 1e-3
    assert SRMFilter()(torch.full((1, 3, 16, 16), 0.5)).abs().max() < 1e-3


def test_kernels_sum_to_zero_and_are_neither_trained_nor_saved():
    layer = SRMFilter()
    assert layer.kernels.sum(dim=(1, 2, 3)).abs().max() < 1e-6
    assert list(layer.parameters()) == []
    assert layer.state_dict() == {}


def test_residuals_stay_within_their_range():
    noise = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    residuals = SRMFilter()(noise)
    assert residuals.abs().max() == 1.0


def noise(level, size=64):
    """Make a grey picture with noise of *level* grey levels."""
    grain = torch.randn(1, 1, size, size, generator=torch.Generator().manual_seed(2))
    return (0.5 + grain * level / 255.0).expand(1, 3, size, size)


def test_relative_residuals_do_not_depend_on_the_noise_level():
    quiet, loud = noise(0.25), noise(1.0)
    relative, absolute = SRMFilter(own_level=True), SRMFilter()
    planes = relative(quiet), relative(loud)
    # Truncation before the level is measured affects the louder picture a little.
    assert (planes[0] - planes[1]).abs().mean() < 0.1 * planes[0].abs().mean()
    assert absolute(loud).abs().mean() > 3 * absolute(quiet).abs().mean()


def test_relative_residuals_are_multiples_of_the_mean_of_each_plane_and_picture():
    faces = torch.cat([noise(0.5), noise(1.0)])
    planes = SRMFilter(own_level=True)(faces)
    # In units of the range, which is four times the mean; what was cut off beyond it is missing.
    assert planes.abs().mean(dim=(2, 3)).numpy() == pytest.approx(np.full((2, 3), 0.25), abs=0.01)
    assert planes.abs().max() == 1.0
    assert torch.equal(planes[1], SRMFilter(own_level=True)(faces[1:])[0])


def test_a_flat_picture_has_no_level_and_stays_flat():
    flat = SRMFilter(own_level=True)(torch.full((1, 3, 32, 32), 0.5))
    assert flat.abs().max() < 1e-2
    # Rounding errors do not become noise either.
    assert SRMFilter(own_level=True)(noise(0.01)).abs().mean() < 0.1


def test_both_scales_have_the_same_state():
    assert SRMFilter(own_level=True).state_dict() == {}
