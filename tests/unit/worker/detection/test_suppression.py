"""Suppression keeps exactly the boxes of torchvision, whose operator it uses without importing the rest."""

import subprocess
import sys

import pytest
import torch
from torchvision.ops import batched_nms

from worker.detection import suppression
from worker.detection.suppression import suppress_overlaps


def make_boxes(count: int, groups: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return boxes with whole edges, many of which overlap by exactly a half or more, their scores and groups."""
    generator = torch.Generator().manual_seed(count)
    begins = torch.randint(0, 60, (count, 2), generator=generator).float()
    sides = torch.randint(1, 5, (count, 1), generator=generator) * 10.0
    scores = torch.rand(count, generator=generator)
    return torch.cat([begins, begins + sides], dim=1), scores, torch.randint(0, groups, (count,), generator=generator)


@pytest.mark.parametrize("count", [0, 1, 300, 1000, 1001, 2500])
@pytest.mark.parametrize("threshold", [0.5, 0.7])
def test_it_keeps_the_boxes_of_torchvision(count, threshold):
    boxes, scores, groups = make_boxes(count, 5)
    kept = suppress_overlaps(boxes, scores, groups, threshold)
    assert torch.equal(kept, batched_nms(boxes, scores, groups, threshold))
    assert count < 2 or 0 < len(kept) < count


def test_another_version_of_torchvision_is_imported_as_a_whole(monkeypatch):
    monkeypatch.setattr(suppression, "LIBRARIES", ("_absent",))
    suppression.find_operator.cache_clear()
    try:
        test_it_keeps_the_boxes_of_torchvision(300, 0.5)
    finally:
        suppression.find_operator.cache_clear()


def test_torchvision_can_be_imported_afterwards():
    program = (
        "import sys, torch\n"
        "from worker.detection.suppression import suppress_overlaps\n"
        "boxes = torch.tensor([[0.0, 0.0, 9.0, 9.0], [1.0, 0.0, 9.0, 9.0]])\n"
        "given = boxes, torch.tensor([0.1, 0.2]), torch.zeros(2, dtype=torch.int64), 0.5\n"
        "before = suppress_overlaps(*given)\n"
        "assert 'torchvision' not in sys.modules\n"
        "from torchvision.ops import batched_nms\n"
        "assert before.tolist() == batched_nms(*given).tolist() == [1]\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
