import copy

import pytest
import torch
from efficientnet_pytorch.utils import Conv2dStaticSamePadding
from torch import nn

from tests.unit.worker.training.tiny_runs import tiny
from worker.model.network import ForgeryNetwork
from worker.training.fitting.depthwise import keep_freed_memory, use_fast_depthwise

PLANES = 16


def layers(kernel, stride, size, seed=0):
    """The published layer and its fast twin, with the same parameters."""
    torch.manual_seed(seed)
    plain = Conv2dStaticSamePadding(
        PLANES, PLANES, kernel, stride=stride, groups=PLANES, bias=False, image_size=(size, size)
    )
    fast = nn.Sequential(copy.deepcopy(plain))
    use_fast_depthwise(fast)
    assert type(fast[0]) is not type(plain)
    return plain, fast[0]


def results(layer, planes, *, autocast):
    """What comes out, and the gradients of the input and of the weight for a given gradient of the output."""
    planes = planes.clone().requires_grad_()
    layer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        out = layer(planes)
    generator = torch.Generator().manual_seed(2)
    out.backward(torch.randn(out.shape, generator=generator).to(out.dtype))
    return out, planes.grad, layer.weight.grad


def distance(one, other):
    return ((one.double() - other.double()).norm() / other.double().norm()).item()


@pytest.mark.parametrize("size", [8, 9, 16, 21])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize(
    ("autocast", "tolerance"),
    # A bfloat16 has eight bits, and the reference rounds to it no less than we do.
    [pytest.param(False, 1e-5, id="float32"), pytest.param(True, 1e-2, id="bfloat16")],
)
def test_the_fast_convolution_agrees_with_torch(kernel, stride, size, autocast, tolerance):
    plain, fast = layers(kernel, stride, size)
    planes = torch.randn(3, PLANES, size, size, generator=torch.Generator().manual_seed(1))
    planes = planes.contiguous(memory_format=torch.channels_last)
    ours = results(fast, planes, autocast=autocast)
    # Torch's own in float32 is what both precisions mean.
    theirs = results(plain, planes, autocast=False)
    for actual, expected in zip(ours, theirs, strict=True):
        assert actual.shape == expected.shape
        assert distance(actual, expected) < tolerance
    assert ours[0].dtype == (torch.bfloat16 if autocast else torch.float32)
    assert ours[1].dtype == ours[2].dtype == torch.float32


@pytest.mark.parametrize("wide", [False, True], ids=["tall", "wide"])
def test_non_square_pictures_are_accepted(wide):
    plain, fast = layers(5, 2, 16)
    planes = torch.randn(2, PLANES, *((12, 17) if wide else (17, 12)), generator=torch.Generator().manual_seed(1))
    for actual, expected in zip(
        results(fast, planes, autocast=False), results(plain, planes, autocast=False), strict=True
    ):
        assert distance(actual, expected) < 1e-5


def test_gradients_agree_with_finite_differences():
    plain, fast = layers(5, 2, 9)
    fast.double()
    planes = torch.randn(1, PLANES, 9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert torch.autograd.gradcheck(fast, (planes.requires_grad_(),), fast_mode=True)
    assert torch.equal(plain.weight, fast.weight.float())


def test_switching_keeps_parameters_names_and_outputs():
    recipe = tiny()
    torch.manual_seed(0)
    network = ForgeryNetwork(recipe.architecture, 64).eval()
    faces = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.inference_mode():
        said = network(faces)
    use_fast_depthwise(network)
    changed = [module for module in network.modules() if type(module).__name__ == "_DepthwiseConvolution"]
    assert len(changed) == 16  # One in each block of EfficientNet-Lite0.
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in after.items())
    with torch.inference_mode():
        assert torch.allclose(network(faces), said, atol=1e-6)


def test_keep_freed_memory_can_be_called_twice():
    keep_freed_memory()
    keep_freed_memory()
