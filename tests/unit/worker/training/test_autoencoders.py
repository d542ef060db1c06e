import cv2
import numpy as np
import pytest
import torch

from tests.clips import astronaut
from tests.unit.worker.training.conftest import AUTOENCODERS
from worker.detection.faces import crop_face
from worker.training import autoencoders
from worker.training.autoencoders import (
    Autoencoder,
    AutoencoderSettings,
    face_name,
    paint_faces,
    train_autoencoder,
)
from worker.training.cache import CropCache
from worker.training.errors import DataError

UPSAMPLINGS = ("shuffle", "transposed", "bilinear")


@pytest.mark.parametrize("upsampling", UPSAMPLINGS)
@pytest.mark.parametrize("halvings", [2, 3, 4])
def test_a_picture_keeps_its_size(upsampling, halvings):
    network = Autoencoder(AutoencoderSettings(upsampling=upsampling, halvings=halvings, code_channels=4))
    assert network(torch.rand(2, 3, 96, 112)).shape == (2, 3, 96, 112)


def test_training_brings_pictures_nearer_to_what_they_were():
    picture = astronaut()[:256, :256]
    wanted = autoencoders._tensor(picture[None])
    errors = []
    for images in (16, 16 * 60):
        network = train_autoencoder(
            AutoencoderSettings(upsampling="shuffle", halvings=2, code_channels=32, images=images), [picture], seed=1
        )
        with torch.inference_mode():
            errors.append(float((network(wanted) - wanted).abs().mean()))
    assert errors[1] < 0.4 * errors[0]


def test_every_real_face_of_the_training_set_is_painted_once(crops):
    real = {face_name(face): face for face in CropCache(crops.folder).faces() if face.label == "real"}
    trained = {name for name, face in real.items() if face.set == "train"}
    assert trained < set(real)
    assert len(crops.painted) == len(AUTOENCODERS)
    for folder in crops.painted:
        cache = CropCache(folder)
        faces = list(cache.faces())
        assert sorted(face.original for face in faces) == sorted(trained)
        for face in faces:
            before = real[face.original]
            assert (face.label, face.dataset, face.set) == ("fake", "painted", "train")
            assert (face.group, face.key, face.time_s) == (before.group, before.key, before.time_s)
            height, width = cache.picture(face).shape[:2]
            assert (height % 16, width % 16) == (0, 0)
            left, top, right, bottom = face.box_px
            assert -1 < left < right < width + 1
            assert -1 < top < bottom < height + 1
            # The landmarks lie in the box as they did before.
            for mark, old in zip(face.landmarks_px, before.landmarks_px, strict=True):
                share = ((mark[0] - left) / (right - left), (mark[1] - top) / (bottom - top))
                old_left, old_top, old_right, old_bottom = before.box_px
                wanted = ((old[0] - old_left) / (old_right - old_left), (old[1] - old_top) / (old_bottom - old_top))
                assert share == pytest.approx(wanted, abs=1e-3)


def test_a_painted_face_shows_the_same_place(tmp_path, crops):
    """An autoencoder that gives back what it gets shows that box and picture belong together."""
    rows = autoencoders._drawn_faces([crops.folder], 0)
    autoencoders._paint(torch.nn.Identity(), rows, tmp_path / "same", seed=3)
    cache = CropCache(tmp_path / "same")
    for (source, before), face in zip(rows, cache.faces(), strict=True):
        crop = crop_face(cache.picture(face), face.box_px, size_px=64, margin=0.2)
        old = crop_face(source.picture(before), before.box_px, size_px=64, margin=0.2)
        # Painting resizes, so details differ: much less than where the box is off by a few pixels.
        crop, old = (cv2.GaussianBlur(picture, (0, 0), 2.0).astype(int) for picture in (crop, old))
        differs = np.abs(crop - old).mean()
        for axis in (0, 1):
            for by in (-2, 2):
                moved = np.abs(np.roll(crop, by, axis)[4:-4, 4:-4] - old[4:-4, 4:-4]).mean()
                assert differs < 0.5 * moved


def test_the_same_faces_are_painted_again_alike_and_what_is_there_is_kept(tmp_path, crops):
    (again,) = paint_faces([crops.folder], tmp_path, AUTOENCODERS[:1])
    assert again.name == crops.painted[0].name
    index = again / "00000.jsonl"
    assert index.read_bytes() == (crops.painted[0] / "00000.jsonl").read_bytes()
    written = index.stat().st_mtime_ns
    assert paint_faces([crops.folder], tmp_path, AUTOENCODERS[:1]) == [again]
    assert index.stat().st_mtime_ns == written
    index.unlink()  # As if it had been killed while painting.
    assert paint_faces([crops.folder], tmp_path, AUTOENCODERS[:1]) == [again]
    assert index.exists()


def test_other_settings_have_a_folder_of_their_own(crops):
    names = {
        name
        for settings in AUTOENCODERS
        for seed in (0, 1)
        for name in autoencoders.cache_names([settings], seed, [crops.folder])
    }
    assert len(names) == 4


def test_without_a_real_face_there_is_nothing_to_paint(tmp_path, crops):
    with pytest.raises(DataError, match="no cache holds a real face"):
        paint_faces([crops.painted[0]], tmp_path, AUTOENCODERS[:1])
