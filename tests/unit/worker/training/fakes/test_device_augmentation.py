import cv2
import numpy as np
import pytest
import torch

from tests.unit.worker.training.conftest import ASTRONAUT, HOPPER
from worker.training.fakes import augmentation, transcoding
from worker.training.fakes.augmentation import Augmentation, Changes
from worker.training.fakes.device_augmentation import (
    OnDevice,
    apply_changes,
    blur,
    compress_jpeg,
    cover_rectangle,
    draw_changes,
    map_colours,
    rescale,
    select_loader_augmentation,
    sharpen,
)

CASES = 4000


@pytest.fixture(autouse=True)
def _one_thread():
    """Small operations on several threads are slow where something else is running."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def portraits(side_px=160):
    pictures = [ASTRONAUT.picture, HOPPER.picture]
    return [cv2.resize(picture, (side_px, side_px), interpolation=cv2.INTER_AREA) for picture in pictures]


def planes(pictures):
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float()


def levels(tensor):
    return tensor.round().clamp(0, 255).permute(0, 2, 3, 1).numpy()


def psnr(one, other):
    return 10 * np.log10(255**2 / np.mean((np.float64(one) - np.float64(other)) ** 2))


@pytest.mark.parametrize("coarse_chroma", [True, False], ids=["4:2:0", "4:4:4"])
@pytest.mark.parametrize("quality", [20, 50, 75, 95])
@pytest.mark.parametrize("side_px", [160, 150])
def test_jpeg_loses_what_libjpeg_loses(quality, coarse_chroma, side_px):
    pictures = portraits(side_px)
    ours = levels(compress_jpeg(planes(pictures), torch.full((2,), float(quality)), coarse_chroma=coarse_chroma))
    for picture, coded in zip(pictures, ours, strict=True):
        theirs = transcoding.make_jpeg(quality, coarse_chroma=coarse_chroma)(picture)
        assert psnr(coded, picture) == pytest.approx(psnr(theirs, picture), abs=0.15)
        assert psnr(coded, theirs) > psnr(theirs, picture) + 6.0
        assert np.abs(coded - theirs).mean() < 1.0


def test_each_picture_has_its_own_quality():
    pictures = [portraits()[0]] * 2
    both = compress_jpeg(planes(pictures), torch.tensor([20.0, 95.0]), coarse_chroma=True)
    for number, quality in enumerate((20.0, 95.0)):
        alone = compress_jpeg(planes(pictures[:1]), torch.tensor([quality]), coarse_chroma=True)
        assert torch.equal(both[number], alone[0])


def test_device_colours_agree_with_loader_colours():
    pictures = portraits()
    maps = [augmentation.draw_colour_map(np.random.default_rng(seed)) for seed in (1, 2)]
    ours = levels(map_colours(planes(pictures), torch.from_numpy(np.stack(maps))))
    for picture, colours, changed in zip(pictures, maps, ours, strict=True):
        assert np.abs(changed - cv2.transform(picture, colours)).max() <= 1


@pytest.mark.parametrize(
    ("ours", "theirs", "values"),
    [
        (blur, augmentation.make_blur, (0.3, 1.3)),
        (sharpen, augmentation.make_sharpen, (0.2, 0.9)),
        (rescale, lambda factor: augmentation.make_rescale(factor, enlarge=True), (0.4, 0.9)),
    ],
    ids=["blur", "sharpen", "rescale"],
)
def test_device_changes_agree_with_loader_changes(ours, theirs, values):
    pictures = portraits()
    for picture, value, changed in zip(
        pictures, values, levels(ours(planes(pictures), torch.tensor(values))), strict=True
    ):
        apart = np.abs(changed - theirs(value)(picture))
        assert apart.max() <= 3
        assert apart.mean() < 0.6
        assert np.abs(changed - picture).mean() > 4 * apart.mean()


def test_cutout_changes_only_its_rectangle():
    before = planes(portraits())
    after = cover_rectangle(before, torch.tensor([[0.25, 0.5, 0.5, 0.75, 7.0], [0.0, 0.0, 0.1, 0.1, 9.0]]))
    assert (after[0, :, 80:120, 40:80] == 7.0).all()
    assert (after != before)[0].any(0).sum() <= 40 * 40
    assert (after[1, :, :16, :16] == 9.0).all()


def everything(**chances):
    names = ("rescale", "blur", "noise", "sharpen", "jpeg", "colour", "cutout")
    return Augmentation(**(dict.fromkeys(names, 1.0) | {"h264": 0.0} | chances))


def batch(count=4):
    """Pairs of two equal pictures."""
    half = planes(portraits() * (count // 2)).to(torch.uint8)
    return torch.cat([half, half])


def test_both_pictures_of_a_pair_get_the_same_changes_and_pairs_get_different_ones():
    before = batch()
    after = OnDevice([(1, everything())], seed=3).apply(before, 0)
    assert after.dtype == torch.uint8
    assert torch.equal(after[:4], after[4:])
    assert not torch.equal(after[0], before[0])
    assert not torch.equal(after[0], after[2])


def test_changes_follow_from_the_number_of_the_batch():
    first, again = (OnDevice([(1, everything())], seed=3).apply(batch(), 5) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, OnDevice([(1, everything())], seed=3).apply(batch(), 6))
    assert not torch.equal(first, OnDevice([(1, everything())], seed=4).apply(batch(), 5))


def test_without_noise_a_pair_does_not_depend_on_the_batch_size():
    changes = OnDevice([(1, everything(noise=0.0))], seed=3)
    small = [changes.apply(batch(2), number) for number in (0, 1)]
    whole = changes.apply(batch(4), 0)
    assert torch.equal(whole[:4], torch.cat([small[0][:2], small[1][:2]]))


def test_pairs_without_drawn_changes_stay_unchanged():
    before = batch()
    changes = [Changes(), Changes(jpegs=[(30, True)]), Changes(), Changes()]
    after = apply_changes(before, changes, torch.Generator())
    same = [torch.equal(one, other) for one, other in zip(before, after, strict=True)]
    assert same == [True, False, True, True] * 2


def test_a_stage_has_its_own_augmentation():
    still = everything(**dict.fromkeys(("rescale", "blur", "noise", "sharpen", "jpeg", "colour", "cutout"), 0.0))
    changes = OnDevice([(2, still), (1, everything())], seed=3)
    before = batch()
    after = changes.apply(before, 0)
    assert torch.equal(after[:2], before[:2])
    assert not torch.equal(after[2], before[2])


def test_loaders_and_device_together_keep_the_frequency_of_each_change():
    whole = Augmentation(jpeg=0.35, h264=0.3, chain=0.4, rescale=0.5, colour=0.5)
    loaders = [select_loader_augmentation(whole, 1, number) for number in range(CASES)]
    device = [draw_changes(whole, 1, number) for number in range(CASES)]
    both = list(zip(loaders, device, strict=True))
    shares = {
        "chain": np.mean([part.chain for part in loaders]),
        "h264": np.mean([part.h264 for part in loaders]),
        "jpeg": np.mean([bool(part.jpegs) for part in device]),
        "rescale": np.mean([part.rescale + bool(rest.rescale_factor) for part, rest in both if not part.chain]),
        "colour": np.mean([rest.colours is not None for rest in device]),
    }
    expected = {"chain": 0.4, "h264": 0.6 * 0.3, "jpeg": 0.6 * 0.35, "rescale": 0.5, "colour": 0.5}
    assert shares == pytest.approx(expected, abs=4 * 0.5 / np.sqrt(0.6 * CASES))
    for part, rest in both:
        is_coded = part.chain + part.h264 > 0
        assert not (
            is_coded
            and (rest.jpegs or rest.rescale_factor or rest.blur_sigma_px or rest.noise_level or rest.sharpening)
        )
        assert part.jpeg == part.colour == part.cutout == 0.0
        assert (part.jitter, part.flip) == (whole.jitter, whole.flip)
