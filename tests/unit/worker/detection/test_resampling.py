import numpy as np
import pytest
import torch
from facenet_pytorch.models.utils.detect_face import imresample

from worker.detection.resampling import CPUResampler, TorchResampler

CPU = torch.device("cpu")


def views(kind, frames):
    return CPUResampler(frames) if kind == "host" else TorchResampler(frames, CPU)


@pytest.mark.parametrize("kind", ["host", "device"])
@pytest.mark.parametrize("size", [(37, 53), (240, 320), (361, 641)])
@pytest.mark.parametrize("scale", [0.6, 0.3, 0.11])
def test_pyramid_levels_equal_those_of_facenet_pytorch(kind, size, scale):
    frames = np.random.default_rng(0).integers(0, 256, (2, *size, 3), np.uint8)
    (level,) = views(kind, list(frames)).pyramid([scale])
    planes = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    wanted = (imresample(planes, [int(side * scale + 1) for side in size]) - 127.5) * 0.0078125
    assert np.abs(np.asarray(level) - wanted.permute(0, 2, 3, 1).numpy()).max() < 1e-5


@pytest.mark.parametrize("kind", ["host", "device"])
def test_sums_over_a_large_bright_frame_do_not_overflow(kind):
    frame = np.full((3100, 2800, 3), 254, np.uint8)
    assert frame[..., 0].sum(dtype=np.int64) > 2**31
    made = views(kind, [frame])
    (level,) = made.pyramid([0.02])
    assert np.allclose(level, (254 - 127.5) / 128)
    (crop,) = made.crops(np.array([[1000, 1200, 2800, 3100]]), np.array([0]), 24)
    assert np.allclose(crop, (254 - 127.5) / 128)


@pytest.mark.parametrize("kind", ["host", "device"])
@pytest.mark.parametrize("side", [24, 48])
def test_crops_equal_those_of_facenet_pytorch(kind, side):
    rng = np.random.default_rng(3)
    frames = list(rng.integers(0, 256, (3, 150, 210, 3), np.uint8))
    edges = np.array([[0, 0, 210, 150], [5, 7, 6, 8], [10, 20, 30, 33], [100, 3, 209, 120], [180, 100, 210, 150]])
    owners = np.array([0, 1, 1, 2, 0])
    crops = np.asarray(views(kind, frames).crops(edges, owners, side))
    assert crops.shape == (5, side, side, 3)
    for crop, (left, top, right, bottom), owner in zip(crops, edges, owners, strict=True):
        part = torch.from_numpy(frames[owner][top:bottom, left:right]).permute(2, 0, 1).unsqueeze(0).float()
        wanted = (imresample(part, (side, side))[0].permute(1, 2, 0) - 127.5) / 128
        assert crop == pytest.approx(wanted.numpy(), abs=1e-5)


def test_reused_memory_does_not_change_results():
    rng = np.random.default_rng(5)
    tables = []
    for count, size in ((2, (60, 80)), (3, (60, 80)), (1, (60, 80)), (2, (50, 90))):
        frames = list(rng.integers(0, 256, (count, *size, 3), np.uint8))
        before = list(tables)
        again, fresh = CPUResampler(frames, map, tables), CPUResampler(frames)
        assert len(tables) == count
        assert all(old is new for old, new in zip(before, tables, strict=False)) == (size == (60, 80))
        edges = np.tile([5, 5, 40, 44], (count, 1))
        assert np.array_equal(again.crops(edges, np.arange(count), 24), fresh.crops(edges, np.arange(count), 24))


@pytest.mark.parametrize("width", [32764, 32765, 32766, 32767, 33000])
def test_frames_too_wide_for_16_bits_give_the_same_crops(width):
    frame = np.random.default_rng(0).integers(0, 256, (40, width, 3), np.uint8)
    edges = np.array([[width - 100, 3, width - 10, 39], [0, 0, 12, 12], [100, 5, width, 40]], np.int64)
    owners = np.zeros(3, np.int64)
    wide = CPUResampler([frame]).crops(edges, owners, 24)
    assert np.allclose(wide, TorchResampler([frame], torch.device("cpu")).crops(edges, owners, 24), atol=1e-6)
