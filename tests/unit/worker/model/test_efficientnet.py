import pytest
import torch
from torch import nn

from worker.model.efficientnet import EfficientNetFeatures


def features(name="efficientnet-lite0", planes=6, size=64):
    torch.manual_seed(0)
    return EfficientNetFeatures(name, planes, size).eval()


@pytest.mark.parametrize("planes", [3, 6])
@pytest.mark.parametrize(("size", "side"), [(64, 2), (96, 3), (100, 4)])
@torch.inference_mode()
def test_lite0_gives_1280_planes_at_a_thirty_second_of_the_size(planes, size, side):
    layer = features(planes=planes, size=size)
    assert layer.out_planes == 1280
    result = layer(torch.rand(2, planes, size, size))
    assert result.shape == (2, 1280, side, side)
    assert torch.isfinite(result).all()


def test_lite0_is_b0_without_squeeze_and_excitation():
    lite, plain = features().state_dict(), features("efficientnet-b0").state_dict()
    assert lite.keys() == {name for name in plain if "_se_" not in name}
    assert len(lite) < len(plain)
    assert all(value.shape == plain[name].shape for name, value in lite.items())


def test_lite0_only_uses_relu6():
    kinds = {type(module) for name, module in features().named_modules() if name.endswith("_swish")}
    assert kinds == {nn.ReLU6}
    others = {type(module) for name, module in features("efficientnet-b0").named_modules() if name.endswith("_swish")}
    assert nn.ReLU6 not in others


@torch.inference_mode()
def test_lite0s_features_are_in_the_range_of_relu6():
    layer = features()
    for norm in (module for module in layer.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.weight.fill_(10.0)
    result = layer(torch.rand(1, 6, 64, 64) * 10)
    assert result.min() == 0.0
    assert result.max() == 6.0


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("efficientnet-lite0", 3.4e6), ("efficientnet-lite1", 4.1e6), ("efficientnet-lite2", 4.8e6)],
)
def test_the_lite_networks_have_the_published_size_without_classifiers(name, parameters):
    count = sum(value.numel() for value in features(name, planes=3).parameters())
    assert count == pytest.approx(parameters, rel=0.02)


@pytest.mark.parametrize("name", ["efficientnet-lite0", "efficientnet-lite2", "efficientnet-b0", "efficientnet-b4"])
def test_features_have_no_classifier(name):
    assert not [key for key in features(name).state_dict() if "_fc" in key]
