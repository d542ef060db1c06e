"""Portraits with their landmarks, and one crop cache of small generated media that the tests here share."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from tests.clips import astronaut, hopper, run
from tests.unit.worker.training.cutting_here import cut_here
from tests.unit.worker.training.rule_data import RuleDataSet, make_rule_data_set
from worker.detection.faces import Box
from worker.model.efficientnet import LITE_SCALES
from worker.training.data import cutting
from worker.training.data.cache import CacheSettings, CropCache
from worker.training.data.cutting import build_cache
from worker.training.data.media import Medium
from worker.training.evaluation import evaluate, report
from worker.training.evaluation.figures import compute_figures
from worker.training.fakes.generators.autoencoders import AutoencoderSettings
from worker.training.fakes.generators.inpainters import InpainterSettings
from worker.training.fakes.generators.painting import paint_faces
from worker.training.fakes.generators.restorers import RestorerSettings

SETTINGS = CacheSettings(sample_fps=4.0, max_frames=4, min_sharpness=5.0)
AUTOENCODERS = [
    AutoencoderSettings(upsampling="shuffle", halvings=3, code_channels=16, images=16),
    AutoencoderSettings(upsampling="bilinear", halvings=2, code_channels=16, images=16),
]
PAINTERS = [
    *AUTOENCODERS,
    AutoencoderSettings(
        upsampling="shuffle", code="quantised", halvings=2, code_channels=4, whole=True, images=16, faces=50
    ),
    RestorerSettings(factor=2, blocks=1, planes=8, likeness={"perception": 0.0, "adversary": 0.1}, images=16),
    InpainterSettings(planes=8, steps=2, images=16),
]
"""A network of each kind, hardly trained."""
SIDE_PX = 320
"""Of a half of the side-by-side clip."""


@dataclass(frozen=True)
class Portrait:
    """A picture of one face, and where MTCNN finds it."""

    picture: NDArray[np.uint8]
    box: Box
    landmarks: tuple[tuple[float, float], ...]

    def flipped(self):
        width = self.picture.shape[1]
        left, top, right, bottom = self.box
        marks = [(width - 1 - x, y) for x, y in self.landmarks]
        order = (1, 0, 2, 4, 3)
        return Portrait(
            np.ascontiguousarray(self.picture[:, ::-1]),
            (width - right, top, width - left, bottom),
            tuple(marks[number] for number in order),
        )

    def scaled(self, factor):
        size = round(self.picture.shape[1] * factor)
        factor = size / self.picture.shape[1]
        small = cv2.resize(self.picture, (size, size), interpolation=cv2.INTER_AREA)
        box = tuple(value * factor for value in self.box)
        return Portrait(small, box, tuple((x * factor, y * factor) for x, y in self.landmarks))


ASTRONAUT = Portrait(
    astronaut(),
    (79.7, 63.2, 168.3, 173.9),
    ((105.1, 101.6), (147.4, 103.7), (125.5, 128.4), (101.9, 140.2), (146.1, 141.9)),
)
HOPPER = Portrait(
    hopper(),
    (74.8, 81.3, 220.0, 265.2),
    ((108.5, 142.1), (181.2, 136.9), (147.9, 180.7), (118.7, 214.5), (178.4, 210.3)),
)


@dataclass(frozen=True)
class Crops:
    """A built cache and what it was built from."""

    folder: Path
    media: tuple[Medium, ...]
    painted: tuple[Path, ...]
    """What ``PAINTERS`` made of it."""


@pytest.fixture(scope="session")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Crops:
    """
    A cache in five shards: real stills, a labelled data set, both halves of a clip, and media without faces.

    In the clip, the larger person of both halves is the same one, and the smaller one's face was swapped.
    """
    root = tmp_path_factory.mktemp("media")
    media = tuple(_media(root))
    folder = tmp_path_factory.mktemp("crops") / "all"
    with pytest.MonkeyPatch.context() as patch, cut_here():
        patch.setattr(cutting, "MEDIA_PER_SHARD", 2)
        build_cache(media, folder, SETTINGS)
    assert any(CropCache(folder).read_faces())
    painted = paint_faces([folder], tmp_path_factory.mktemp("painted"), PAINTERS)
    return Crops(folder, media, tuple(painted))


@pytest.fixture(scope="session")
def judged(tmp_path_factory: pytest.TempPathFactory) -> RuleDataSet:
    """A data set that a rule divides, with its crops cut."""
    return make_rule_data_set(tmp_path_factory.mktemp("judged"))


@pytest.fixture(scope="module")
def narrow_backbone() -> Iterator[None]:
    """
    Shrink EfficientNet-Lite0, in this process, to a quarter of its planes and one block a stage.

    A step of training takes a fraction of the time, and so does writing its state. Processes that a test starts and
    files of weights have the published size.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(LITE_SCALES, "efficientnet-lite0", (0.25, 0.25))
        yield


@pytest.fixture
def same_threads() -> Iterator[None]:
    """Leave PyTorch as many threads as it had: trainers set their number for the whole process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Render pages whose text alone matters without plots."""
    for name in ("curves_plot", "robustness_plot"):
        monkeypatch.setattr(report, name, lambda *_: b"")


@pytest.fixture
def few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw few rounds of the bootstrap, whose thousand take seconds."""
    monkeypatch.setattr(
        evaluate, "compute_figures", lambda media, manifest, **_: compute_figures(media, manifest, rounds=20)
    )


def _media(root: Path) -> Iterator[Medium]:
    yield Medium(_save(root / "astronaut.png", astronaut()), "astronaut.png", "real", "faces", "astronaut")
    yield Medium(_save(root / "hopper.png", hopper()), "hopper.png", "real", "faces", "hopper", set="train")
    yield Medium(_save(root / "one.png", astronaut()), "one.png", "real", "blended", "one")
    fake = _save(root / "two.png", _enlarged(hopper()))
    yield Medium(fake, "two.png", "fake", "blended", "two", original="one.png")
    clip = _side_by_side(root / "person_1.mp4")
    for region, label in (("left", "real"), ("right", "fake")):
        key = f"person_1.mp4#{region}"
        yield Medium(clip, key, label, "pairs", "person", region=region, original="person_1.mp4#left")
    noise = np.random.default_rng(1).integers(0, 255, (120, 120, 3), np.uint8)
    yield Medium(_save(root / "noise.png", noise), "noise.png", "real", "faces", "noise")
    (root / "broken.jpg").write_bytes(b"this is no picture")
    yield Medium(root / "broken.jpg", "broken.jpg", "real", "faces", "broken")
    yield Medium(_save(root / "held.png", hopper()[:, ::-1]), "held.png", "real", "faces", "held", set="validation")


def _save(path: Path, picture: NDArray[np.uint8]) -> Path:
    Image.fromarray(picture).save(path)
    return path


def _enlarged(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(picture, None, fx=1.6, fy=1.6, interpolation=cv2.INTER_LINEAR))


def _side_by_side(path: Path) -> Path:
    move, _ = cv2.estimateAffinePartial2D(np.array(HOPPER.landmarks), np.array(ASTRONAUT.landmarks))
    swapped = cv2.warpAffine(hopper(), move, (280, 280), borderMode=cv2.BORDER_REPLICATE)
    halves = []
    for smaller in (astronaut(), swapped):
        half = np.full((SIDE_PX, SIDE_PX * 3 // 2, 3), 120, np.uint8)
        half[10:290, 4:284] = hopper()
        half[60:240, 296:476] = cv2.resize(smaller, (180, 180), interpolation=cv2.INTER_AREA)
        halves.append(half)
    still = path.with_suffix(".png")
    _save(still, np.concatenate(halves, axis=1))
    run("-loop", "1", "-framerate", "4", "-t", "1", "-i", str(still), "-pix_fmt", "yuv420p", "-crf", "12", str(path))
    return path
