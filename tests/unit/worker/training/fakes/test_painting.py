import shutil

import cv2
import numpy as np
import pytest

from tests.unit.worker.training.conftest import AUTOENCODERS, PAINTERS
from worker.detection.faces import crop_face
from worker.training.data.cache import CropCache
from worker.training.errors import DataError
from worker.training.fakes.generators import painting
from worker.training.fakes.generators.painting import cache_names, face_name, paint_faces
from worker.training.fakes.generators.pictures import resize


def real_faces(crops):
    return {face_name(face): face for face in CropCache(crops.folder).read_faces() if face.label == "real"}


def test_every_network_paints_each_real_face_once_including_held_out_people(crops):
    real = real_faces(crops)
    assert {face.set for face in real.values()} == {"train", "validation"}
    assert len(crops.painted) == len(PAINTERS)
    for settings, folder in zip(PAINTERS, crops.painted, strict=True):
        cache = CropCache(folder)
        faces = list(cache.read_faces())
        assert sorted(face.original for face in faces) == sorted(real)
        for face in faces:
            before = real[face.original]
            assert (face.label, face.dataset, face.method) == ("fake", settings.kind, folder.name)
            assert (face.group, face.key, face.time_s) == (before.group, before.key, before.time_s)
            assert face.set == before.set
            height, width = cache.read_picture(face).shape[:2]
            left, top, right, bottom = face.box_px
            assert -1 < left < right < width + 1
            assert -1 < top < bottom < height + 1
            # The landmarks lie in the box as they did before.
            for mark, old in zip(face.landmarks_px, before.landmarks_px, strict=True):
                share = ((mark[0] - left) / (right - left), (mark[1] - top) / (bottom - top))
                old_left, old_top, old_right, old_bottom = before.box_px
                wanted = ((old[0] - old_left) / (old_right - old_left), (old[1] - old_top) / (old_bottom - old_top))
                assert share == pytest.approx(wanted, abs=1e-3)


class Copyist:
    """Gives back what it gets, at another size, as a network that paints perfectly would."""

    def paint(self, part, _landmarks, rng):
        factor = rng.uniform(0.7, 2.0)
        width, height = (round(length * factor) for length in part.shape[1::-1])
        return resize(part, width, height)


def test_a_painted_face_shows_the_same_place(tmp_path, crops):
    """A network that gives back what it gets shows that box and picture belong together."""
    rows = painting.draw_faces([crops.folder], "train", 100, 0)
    painting.paint_cache(Copyist(), rows, tmp_path / "same", kind="painted", seed=3)
    cache = CropCache(tmp_path / "same")
    for (source, before), face in zip(rows, cache.read_faces(), strict=True):
        crop = crop_face(cache.read_picture(face), face.box_px, size_px=64, margin=0.2)
        old = crop_face(source.read_picture(before), before.box_px, size_px=64, margin=0.2)
        # Painting resizes, so details differ: much less than where the box is off by a few pixels.
        crop, old = (cv2.GaussianBlur(picture, (0, 0), 2.0).astype(int) for picture in (crop, old))
        differs = np.abs(crop - old).mean()
        for axis in (0, 1):
            for by in (-2, 2):
                moved = np.abs(np.roll(crop, by, axis)[4:-4, 4:-4] - old[4:-4, 4:-4]).mean()
                assert differs < 0.5 * moved


@pytest.mark.parametrize("place", [0, 2, 3, 4], ids=lambda place: PAINTERS[place].kind)
def test_the_same_seed_paints_the_same_pictures(place, tmp_path, crops):
    (again,) = paint_faces([crops.folder], tmp_path, PAINTERS[place : place + 1])
    assert again.name == crops.painted[place].name
    for name in ("00000.jsonl", "00000.tar"):
        assert (again / name).read_bytes() == (crops.painted[place] / name).read_bytes()


def test_existing_paintings_are_kept(tmp_path, crops):
    again = tmp_path / crops.painted[0].name
    shutil.copytree(crops.painted[0], again)
    index = again / "00000.jsonl"
    written = index.stat().st_mtime_ns
    assert paint_faces([crops.folder], tmp_path, AUTOENCODERS[:1]) == [again]
    assert index.stat().st_mtime_ns == written
    index.unlink()  # As if it had been killed while painting.
    assert paint_faces([crops.folder], tmp_path, AUTOENCODERS[:1]) == [again]
    assert index.exists()


def test_networks_are_trained_only_on_faces_of_the_training_set(crops, monkeypatch, tmp_path):
    seen = []

    def trained(_settings, rows, _seed, _title):
        seen.extend(row.face.set for row in rows)
        return Copyist()

    monkeypatch.setattr(painting, "train_painter", trained)
    paint_faces([crops.folder], tmp_path, PAINTERS[-1:])
    assert set(seen) == {"train"}


def test_the_number_of_painted_faces_is_limited(crops, tmp_path):
    settings = AUTOENCODERS[0].model_copy(update={"faces": 3})
    (folder,) = paint_faces([crops.folder], tmp_path, [settings])
    sets = [face.set for face in CropCache(folder).read_faces()]
    assert (sets.count("train"), sets.count("validation")) == (3, 1)


def test_other_settings_and_seeds_have_a_folder_of_their_own(crops):
    names = {name for seed in (0, 1) for name in cache_names(PAINTERS, seed, [crops.folder])}
    assert len(names) == 2 * len(PAINTERS)


def test_networks_of_equal_settings_get_different_seeds_and_stable_folders(crops):
    first, second, other = cache_names([PAINTERS[0], PAINTERS[0], PAINTERS[-1]], 0, [crops.folder])
    assert first != second
    assert cache_names([PAINTERS[-1], PAINTERS[0], PAINTERS[0]], 0, [crops.folder]) == [other, first, second]


def test_without_a_real_face_there_is_nothing_to_paint(tmp_path, crops):
    with pytest.raises(DataError, match="no cache holds a real face"):
        paint_faces([crops.painted[0]], tmp_path, AUTOENCODERS[:1])
