"""The cascade's networks give the same outputs as facenet-pytorch's."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from facenet_pytorch.models import mtcnn as reference
from torch import nn

from worker.detection.networks import ONet, Proposals, RNet, RowConvolution, from_channels_last

CPU = torch.device("cpu")


def pictures(count: int, height: int, width: int) -> torch.Tensor:
    values = np.random.default_rng(7).uniform(-1.0, 1.0, (count, height, width, 3))
    return torch.from_numpy(values.astype(np.float32))


@torch.inference_mode()
def test_proposals_equal_those_of_pnet() -> None:
    shown = pictures(2, 31, 40)
    offsets, probabilities = reference.PNet().eval()(shown.permute(0, 3, 1, 2))
    answers = from_channels_last(Proposals().eval(), CPU)(shown)
    torch.testing.assert_close(answers[:, 0].sigmoid(), probabilities[:, 1], rtol=0, atol=1e-5)
    torch.testing.assert_close(answers[:, 1:], offsets, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "make_reference", "side_px"),
    [(RNet, reference.RNet, 24), (ONet, reference.ONet, 48)],
    ids=["rnet", "onet"],
)
@torch.inference_mode()
def test_later_networks_equal_those_of_facenet_pytorch(
    make: Callable[[], nn.Module], make_reference: Callable[[], nn.Module], side_px: int
) -> None:
    shown = pictures(3, side_px, side_px)
    expected = make_reference().eval()(shown.permute(0, 3, 1, 2))
    for ours, theirs in zip(make().eval()(shown.permute(0, 3, 1, 2)), expected, strict=True):
        assert torch.equal(ours, theirs)
    given = from_channels_last(make().eval(), CPU)(shown)
    for ours, theirs in zip(given, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
@torch.inference_mode()
def test_row_convolution_equals_any_convolution(bias: bool) -> None:
    convolution = nn.Conv2d(3, 5, (2, 4), bias=bias)
    shown = pictures(2, 9, 11)
    torch.testing.assert_close(
        RowConvolution(convolution)(shown), convolution(shown.permute(0, 3, 1, 2)), rtol=0, atol=1e-5
    )
