import pytest
import torch

from shared.manifests import PACKAGED_MODELS_DIR, Architecture
from worker.model.checkpoint import load_checkpoint
from worker.model.network import ForgeryNetwork


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
def test_one_finite_logit_a_face(planes):
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


def test_the_classifier_of_the_backbone_is_not_carried_along(network):
    assert not [name for name in network.state_dict() if "_fc" in name]


def test_a_gradient_reaches_every_parameter():
    torch.manual_seed(0)
    network = ForgeryNetwork(architecture(), 96).train()
    network(faces(4)).sum().backward()
    assert [name for name, value in network.named_parameters() if value.grad is None] == []


@torch.inference_mode()
def test_the_packaged_checkpoint_gives_its_reference_value():
    network = load_checkpoint(PACKAGED_MODELS_DIR, "untrained-b0").network
    y, x = torch.meshgrid(torch.linspace(0, 6.28, 224), torch.linspace(0, 6.28, 224), indexing="ij")
    picture = torch.stack([0.5 + 0.4 * torch.sin(3 * x), 0.5 + 0.4 * torch.cos(2 * y), 0.5 + 0.3 * torch.sin(x + y)])
    logit = network(picture.unsqueeze(0)).item() / 0.001
    assert logit == pytest.approx(REFERENCE_LOGIT, abs=5e-3)


REFERENCE_LOGIT = 0.2139
"""Under the manifest's temperature; measured in float32 on an x86 processor."""
