"""
Whether anything but the swap tells a fake from its real counterpart.

Fakes are made of public-domain faces on generated grounds and go through the augmentation as in training. What is
measured are pixels that lie outside the blend's mask in both pictures of a pair, and what encoders write beside them.
"""

import struct
from functools import cache

import cv2
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tests.unit.worker.training.conftest import ASTRONAUT, HOPPER, Portrait
from worker.training.evaluation.background_statistics import pixel_statistics
from worker.training.evaluation.linear_probes import score_cross_validated
from worker.training.fakes import transcoding
from worker.training.fakes.augmentation import Augmentation
from worker.training.fakes.blending import Blend, self_blend, swap
from worker.training.fakes.transcoding import make_jpeg

SIZE_PX, MARGIN = 128, 0.45
SOURCES = 24
FEW_OF_EACH, MANY_OF_EACH = 4, 10
"""Pairs that are made of each source: few on each push, many, which reveal weaker leaks, before a merge."""
AUGMENTATION = Augmentation(flip=0.0)
"""As in training; without flips, so that the mask can be carried along."""
CROP_ALONE = Augmentation(
    flip=0.0, rescale=0.0, blur=0.0, noise=0.0, sharpen=0.0, jpeg=0.0, h264=0.0, colour=0.0, cutout=0.0
)
SPREADING_PX = 12
"""How far blocks, filters and motion carry what is inside the mask outwards."""


@cache
def source(number: int) -> Portrait:
    """One of two faces, mirrored or not, on a ground of its own, lit in its own way."""
    rng = np.random.default_rng((11, number))
    portrait = (ASTRONAUT, HOPPER.scaled(0.6))[number % 2]
    portrait = portrait.flipped() if number % 4 > 1 else portrait
    size = 260
    ground = rng.normal(0.0, 1.0, (size, size, 3)).astype(np.float32)
    ground = cv2.GaussianBlur(ground, (0, 0), rng.uniform(0.5, 4.0))
    ground = ground / ground.std() * rng.uniform(8, 40) + rng.uniform(60, 190, 3).astype(np.float32)
    shift = size / 2 - np.array(portrait.landmarks[2])
    height, width = portrait.picture.shape[:2]
    move = np.array([[1.0, 0.0, shift[0]], [0.0, 1.0, shift[1]]])
    face = cv2.warpAffine(portrait.picture, move, (size, size)).astype(np.float32)
    left, top, right, bottom = portrait.box
    here = np.zeros((height, width), np.float32)
    cv2.ellipse(here, (round((left + right) / 2), round((top + bottom) / 2)), (60, 72), 0, 0, 360, 1.0, -1)
    here = cv2.GaussianBlur(cv2.warpAffine(here, move, (size, size)), (0, 0), 3.0)[..., None]
    picture = (face * here + ground * (1 - here)) * rng.uniform(0.6, 1.1)
    x, y = shift
    return Portrait(
        np.clip(picture, 0, 255).astype(np.uint8),
        (left + x, top + y, right + x, bottom + y),
        tuple((a + x, b + y) for a, b in portrait.landmarks),
    )


def blend(kind: str, number: int, rng: np.random.Generator) -> Blend:
    target = source(number)
    if kind == "swap":
        donor = source((number + 1) % SOURCES)
        return swap(target.picture, target.landmarks, donor.picture, donor.landmarks, rng)
    if kind == "painted":
        # As smooth as what an autoencoder paints.
        smooth = cv2.GaussianBlur(target.picture, (0, 0), 2.0)
        return swap(target.picture, target.landmarks, smooth, target.landmarks, rng, source_is="painted")
    return self_blend(target.picture, target.landmarks, rng, kind)


def make_pair(kind, number, seed, leak=None):
    """A pair after augmentation, and where both of it show nothing but the background."""
    made = blend(kind, number, np.random.default_rng((seed, 0)))
    fake = made.fake if leak is None else leak(made.fake)
    box = source(number).box

    def changed(augmentation, pictures):
        rng = np.random.default_rng((seed, 1))
        return augmentation.apply(pictures, box, rng, size_px=SIZE_PX, margin=MARGIN)

    inside = (made.mask > 0).astype(np.uint8)[..., None].repeat(3, axis=2) * 255
    (covered,) = changed(CROP_ALONE, [inside])
    reach = np.ones((2 * SPREADING_PX + 1,) * 2, np.uint8)
    background = cv2.dilate(covered[..., 0], reach) == 0
    real, fake = changed(AUGMENTATION, [made.real, fake])
    return real, fake, background


@cache
def measured(kind, of_each, leak=None):
    """(N, 2, F) statistics of N pairs, real before fake, and the numbers of the sources they were made of."""
    rows, sources = [], []
    for number in range(SOURCES):
        for seed in range(of_each):
            real, fake, background = make_pair(kind, number, 1000 * number + seed, leak)
            both = [pixel_statistics(picture, background) for picture in (real, fake)]
            if both[0] is None:
                continue  # A wide mask leaves too little to measure.
            rows.append(both)
            sources.append(number)
    return np.array(rows), np.array(sources)


def probe(features, sources):
    """Area under the curve of a linear probe, on pairs whose source picture it has not seen."""
    rows = features.transpose(1, 0, 2).reshape(-1, features.shape[2])
    labels = np.repeat([0, 1], len(features))
    return roc_auc_score(labels, score_cross_validated(rows, labels, np.tile(sources, 2).astype(str)))


def subtract_pair_means(features):
    """What is left without a pair's mean: nothing of its faces and its augmentation, so that leaks stand out."""
    return features - features.mean(axis=1, keepdims=True)


KINDS = pytest.mark.parametrize("kind", ["textbook", "subtle", "swap", "painted"])
OF_EACH = pytest.mark.parametrize(
    "of_each", [FEW_OF_EACH, pytest.param(MANY_OF_EACH, marks=pytest.mark.merge)], ids=["few", "many"]
)


@KINDS
@OF_EACH
def test_pixels_outside_the_mask_do_not_reveal_fakes(kind, of_each):
    features, sources = measured(kind, of_each)
    count = len(features)
    assert count > SOURCES * of_each / 2
    # Three standard deviations under chance: of the Mann-Whitney statistic of two samples, …
    assert probe(features, sources) == pytest.approx(0.5, abs=3 * np.sqrt((2 * count + 1) / (12 * count**2)))
    # … and of a share of coin tosses, one a pair, as the two rows of a pair mirror each other.
    assert probe(subtract_pair_means(features), sources) == pytest.approx(0.5, abs=3 * 0.5 / np.sqrt(count))


def test_the_probe_detects_that_only_fakes_were_compressed():
    features, sources = measured("textbook", FEW_OF_EACH, make_jpeg(75))
    assert probe(subtract_pair_means(features), sources) > 0.9


@KINDS
@OF_EACH
def test_most_pairs_have_identical_backgrounds(kind, of_each):
    features, _ = measured(kind, of_each)
    same = (np.ptp(features, axis=1) == 0.0).all(axis=1)
    # H.264 alone spends its bits on the whole picture, so that a changed face moves them elsewhere, too.
    assert same.mean() > 1.0 - AUGMENTATION.h264 - 0.15


class Watched:
    """An encoder that keeps what it wrote."""

    def __init__(self, encoder, written):
        self.__dict__.update(encoder=encoder, written=written)

    def __getattr__(self, name):
        return getattr(self.encoder, name)

    def __setattr__(self, name, value):
        setattr(self.encoder, name, value)

    def encode(self, frame):
        packets = self.encoder.encode(frame)
        self.written.extend(bytes(packet) for packet in packets)
        return packets


@pytest.fixture
def encoded(monkeypatch):
    """Everything that encoders write, as (format, bytes), in order."""
    written = []
    imencode, create = cv2.imencode, transcoding.av.CodecContext.create

    def watched_imencode(ending, picture, options=()):
        done, data = imencode(ending, picture, options)
        written.append((ending, data.tobytes()))
        return done, data

    class Streams:
        @staticmethod
        def create(codec, mode):
            if mode == "r":
                return create(codec, mode)
            packets = []
            written.append((codec, packets))
            return Watched(create(codec, mode), packets)

    monkeypatch.setattr(cv2, "imencode", watched_imencode)
    monkeypatch.setattr(transcoding.av, "CodecContext", Streams)
    return written


def jpeg_headers(data):
    """Every segment before the scan but the Huffman tables: size, sampling factors, quantisation tables."""
    segments, place = [], 2
    while data[place + 1] != 0xDA:
        length = struct.unpack(">H", data[place + 2 : place + 4])[0]
        segments.append(data[place : place + 2 + length])
        place += 2 + length
    return segments


def h264_headers(packets):
    """Parameter sets, and the message in which x264 writes its options out."""
    units = [unit for packet in packets for unit in packet.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1") if unit]
    return [unit for unit in units if unit[0] & 0x1F in {6, 7, 8}]


HEADERS = {".jpg": jpeg_headers, "libx264": h264_headers}


@KINDS
def test_both_pictures_of_a_pair_are_encoded_with_identical_headers(kind, encoded):
    seen = {".jpg": set(), "libx264": set()}
    for seed in range(40):
        made = blend(kind, seed % SOURCES, np.random.default_rng(seed))
        encoded.clear()
        changed = Augmentation().apply(
            [made.real, made.fake], source(seed % SOURCES).box, np.random.default_rng(seed), size_px=SIZE_PX, margin=0.2
        )
        assert {(picture.shape, picture.dtype) for picture in changed} == {((SIZE_PX, SIZE_PX, 3), np.dtype(np.uint8))}
        headers = [(ending, HEADERS[ending](data)) for ending, data in encoded]
        # Change by change, the real picture goes first.
        assert headers[::2] == headers[1::2]
        for ending, found in headers:
            assert found
            seen[ending].add(b"".join(found))
    assert len(seen[".jpg"]) > 5
    assert len(seen["libx264"]) > 3


def test_headers_differ_with_quality_sampling_and_rate_factor(encoded):
    picture = source(0).picture
    for transform in (
        make_jpeg(70),
        make_jpeg(71),
        make_jpeg(70, coarse_chroma=False),
        transcoding.make_h264(20),
        transcoding.make_h264(21),
    ):
        transform(picture)
    found = {b"".join(HEADERS[ending](data)) for ending, data in encoded}
    assert len(found) == 5
