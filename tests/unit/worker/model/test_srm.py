import numpy as np
import pytest
import torch

from worker.model.srm import DIVISORS, KERNELS, TRUNCATION, SRMFilter


def test_it_equals_a_convolution_written_out():
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


def test_flat_and_evenly_sloped_pictures_leave_no_residual():
    slope = torch.linspace(0.2, 0.8, 32).view(1, 1, 1, 32).expand(1, 3, 32, 32)
    # Not at the border, where reflection breaks the slope.
    assert SRMFilter()(slope)[..., 4:-4, 4:-4].abs().max() < 1e-3
    assert SRMFilter()(torch.full((1, 3, 16, 16), 0.5)).abs().max() < 1e-3


def test_kernels_sum_to_zero_and_are_neither_learnt_nor_saved():
    layer = SRMFilter()
    assert layer.kernels.sum(dim=(1, 2, 3)).abs().max() < 1e-6
    assert list(layer.parameters()) == []
    assert layer.state_dict() == {}


def test_residuals_stay_within_their_range():
    noise = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    residuals = SRMFilter()(noise)
    assert residuals.abs().max() == 1.0
