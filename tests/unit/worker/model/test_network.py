import math

import numpy as np
import pytest
import torch

from shared.manifests import Architecture
from worker.model.network import ForgeryNetwork

REFERENCE_LOGITS = {"efficientnet-b0": 9.2765e-5, "efficientnet-lite0": 4.33180}
"""Logits of networks filled by ``fill``, measured in float32 on an x86 CPU."""


def architecture(planes="rgb+srm", backbone="efficientnet-b0"):
    return Architecture(backbone=backbone, input_planes=planes, head_channels=16, dropout=0.5)


def faces(count=2, size=96, seed=0):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return ForgeryNetwork(architecture(), 96).eval()


@pytest.mark.parametrize("planes", ["rgb+srm", "srm", "rgb"])
@torch.inference_mode()
def test_each_face_gets_one_finite_logit(planes):
    logits = ForgeryNetwork(architecture(planes), 96).eval()(faces(3))
    assert logits.shape == (3,)
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()


@torch.inference_mode()
def test_no_faces_give_no_logits(network):
    assert network(faces(0)).shape == (0,)


@torch.inference_mode()
def test_eval_mode_is_deterministic_and_rows_do_not_depend_on_each_other(network):
    batch = faces(4)
    together = network(batch)
    assert torch.equal(together, network(batch))
    alone = torch.cat([network(row.unsqueeze(0)) for row in batch])
    assert torch.allclose(together, alone, atol=1e-6)


def test_the_backbone_has_no_classifier(network):
    assert not [name for name in network.state_dict() if "_fc" in name]


def test_every_parameter_gets_a_gradient():
    torch.manual_seed(0)
    network = ForgeryNetwork(architecture(), 96).train()
    network(faces(4)).sum().backward()
    assert [name for name, value in network.named_parameters() if value.grad is None] == []


def fill(network, seed):
    """
    Give *network* the same parameters on every machine: He-uniform from PCG64, whose bits are specified.

    Biases are zero, those of squeeze-and-excitation, too, which torch draws; batch norms begin alike everywhere.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    state = network.state_dict()
    for name, value in sorted(state.items()):
        if name.endswith("bias"):
            state[name] = torch.zeros_like(value)
        elif value.is_floating_point() and value.dim() > 1:
            bound = math.sqrt(6.0 / math.prod(value.shape[1:]))
            state[name] = torch.from_numpy((generator.random(tuple(value.shape)) * 2.0 - 1.0) * bound).float()
    network.load_state_dict(state)


@pytest.mark.parametrize("backbone", sorted(REFERENCE_LOGITS))
@torch.inference_mode()
def test_the_network_gives_its_reference_value(backbone):
    network = ForgeryNetwork(architecture(backbone=backbone), 160).eval()
    fill(network, 1)
    y, x = torch.meshgrid(torch.linspace(0, 6.28, 160), torch.linspace(0, 6.28, 160), indexing="ij")
    picture = torch.stack([0.5 + 0.4 * torch.sin(3 * x), 0.5 + 0.4 * torch.cos(2 * y), 0.5 + 0.3 * torch.sin(x + y)])
    assert network(picture.unsqueeze(0)).item() == pytest.approx(REFERENCE_LOGITS[backbone], rel=1e-3)


def test_residuals_are_grey_levels_unless_the_architecture_says_otherwise():
    plain = architecture("srm", "efficientnet-lite0")
    relative = plain.model_copy(update={"residual_scale": "own-level"})
    assert not ForgeryNetwork(plain, 64).srm.own_level
    assert ForgeryNetwork(relative, 64).srm.own_level
    # Both have the same parameters, so only the architecture distinguishes them.
    assert ForgeryNetwork(plain, 64).state_dict().keys() == ForgeryNetwork(relative, 64).state_dict().keys()
