import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shared.config import Limits
from tests.unit.worker.training.conftest import ASTRONAUT, HOPPER, SETTINGS
from tests.unit.worker.training.cutting_here import cut_here
from worker.detection.faces import crop_face, square_around
from worker.detection.mtcnn import MTCNN
from worker.media.frames import read_frames
from worker.media.probe import probe
from worker.training.data import cutting
from worker.training.data.cache import MARGIN, MAX_SIDE_PX, CacheSettings, CropCache
from worker.training.data.cutting import build_cache
from worker.training.data.media import Medium
from worker.training.errors import DataError


def content(folder: Path):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def by_medium(crops):
    faces = {}
    for face in CropCache(crops.folder).read_faces():
        faces.setdefault(face.key, []).append(face)
    return faces


def test_every_medium_with_a_face_is_in_the_cache_as_it_was_described(crops):
    faces = by_medium(crops)
    expected = {medium.key for medium in crops.media} - {"noise.png", "broken.jpg"}
    assert set(faces) == expected
    for medium in crops.media:
        for face in faces.get(medium.key, []):
            assert (face.label, face.dataset, face.group) == (medium.label, medium.dataset, medium.group)
            assert face.set == (medium.set or "train")
            assert face.is_video == medium.is_video


def test_a_crop_is_the_same_pixels_as_serving_cuts_out_of_the_decoded_frame(crops):
    opened = CropCache(crops.folder)
    faces = by_medium(crops)
    for medium in crops.media:
        if medium.key not in faces:
            continue
        facts = probe(medium.path, Limits().for_media())
        frames = read_frames(
            medium.path, facts, start_s=0.0, end_s=facts.duration_s or 0.0, sample_fps=4.0, timeout_s=60.0
        )
        pixels = {round(frame.time_s, 4): frame.pixels for frame in frames}
        for face in faces[medium.key]:
            view = pixels[face.time_s]
            half = view.shape[1] // 2
            view = {"whole": view, "left": view[:, :half], "right": view[:, half:]}[medium.region]
            picture = opened.read_picture(face)
            assert max(picture.shape) <= MAX_SIDE_PX
            wanted = crop_face(view, face.frame_box_px, size_px=picture.shape[0], margin=MARGIN)
            assert np.array_equal(picture, wanted)


def overlap(one, other):
    """Intersection over union of two boxes."""
    left, top, right, bottom = (
        choose(pair) for choose, pair in zip((max, max, min, min), zip(one, other, strict=True), strict=True)
    )
    shared = max(0.0, right - left) * max(0.0, bottom - top)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return shared / (sum(areas) - shared)


TIGHT = {"astronaut": (ASTRONAUT, -0.1), "hopper": (HOPPER, -0.05)}
"""Margins within the face's box."""


@pytest.fixture(scope="module")
def tight(tmp_path_factory):
    """A cache of pictures that a face fills, and the part of its portrait that each shows."""
    root, media, parts = tmp_path_factory.mktemp("tight"), [], {}
    for name, (portrait, margin) in TIGHT.items():
        x, y, side = square_around(portrait.box, margin)
        picture = portrait.picture[y : y + side, x : x + side]
        Image.fromarray(picture).save(root / f"{name}.png")
        media.append(Medium(root / f"{name}.png", name, "real", "tight", name))
        parts[name] = picture, np.array([x, y])
    with cut_here():
        build_cache(media, root / "crops", SETTINGS)
    return CropCache(root / "crops"), parts


@pytest.mark.parametrize("name", TIGHT)
def test_a_face_that_fills_its_picture_gets_a_box_that_reaches_beyond_it(tight, name):
    opened, parts = tight
    picture, corner = parts[name]
    wanted = np.array(TIGHT[name][0].box) - np.tile(corner, 2)
    (face,) = [face for face in opened.read_faces() if face.key == name]
    assert overlap(face.frame_box_px, wanted) > 0.85
    # The detector by itself keeps to the picture, and misplaces the face.
    plain = MTCNN(min_face_px=SETTINGS.min_face_px).detect([np.ascontiguousarray(picture)])[0][0]
    assert overlap(plain.box_px, wanted) < 0.65
    assert min(face.frame_box_px[1], picture.shape[0] - face.frame_box_px[3]) < 0


@pytest.mark.parametrize("name", TIGHT)
def test_landmarks_and_crop_of_a_tight_face_move_with_its_box(tight, name):
    opened, parts = tight
    picture, corner = parts[name]
    (face,) = [face for face in opened.read_faces() if face.key == name]
    crop = opened.read_picture(face)
    wanted = crop_face(np.ascontiguousarray(picture), face.frame_box_px, size_px=crop.shape[0], margin=MARGIN)
    assert np.array_equal(crop, wanted)
    offset = np.array(face.box_px[:2]) - np.array(face.frame_box_px[:2])
    marks = np.array(face.landmarks_px) - offset
    eyes_px = np.linalg.norm(np.subtract(*np.array(TIGHT[name][0].landmarks[:2])))
    assert np.abs(marks - (np.array(TIGHT[name][0].landmarks) - corner)).max() < 0.12 * eyes_px


def test_other_pictures_are_searched_without_a_border(crops):
    mtcnn = MTCNN(min_face_px=SETTINGS.min_face_px, thresholds=SETTINGS.detector_thresholds)
    faces = by_medium(crops)
    compared = 0
    for medium in crops.media:
        if medium.region != "whole" or medium.key not in faces:
            continue
        facts = probe(medium.path, Limits().for_media())
        (frame,) = read_frames(medium.path, facts, start_s=0.0, end_s=0.0, sample_fps=4.0, timeout_s=60.0)
        found = [face.box_px for face in mtcnn.detect([frame.pixels])[0]]
        for face in faces[medium.key]:
            assert any(face.frame_box_px == pytest.approx(box, abs=0.05) for box in found)
            compared += 1
    assert compared >= 5


def test_landmarks_and_boxes_are_those_of_the_crop(crops):
    opened = CropCache(crops.folder)
    for face in opened.read_faces():
        side = opened.read_picture(face).shape[0]
        left, top, right, bottom = face.box_px
        # The margin on each side is half of the box's larger side.
        assert max(right - left, bottom - top) == pytest.approx(side / 2, abs=2)
        assert (left + right) / 2 == pytest.approx(side / 2, abs=2)
        eyes, mouth = np.array(face.landmarks_px[:2]), np.array(face.landmarks_px[3:])
        assert top < eyes[:, 1].mean() < mouth[:, 1].mean() < bottom
        assert left < eyes[:, 0].min()
        assert eyes[:, 0].max() < right


def test_a_large_face_is_shrunk(crops):
    (fake,) = by_medium(crops)["two.png"]
    assert CropCache(crops.folder).read_picture(fake).shape == (MAX_SIDE_PX, MAX_SIDE_PX, 3)
    assert fake.size_px > MAX_SIDE_PX / 2


def test_the_right_half_keeps_only_faces_that_differ_from_the_left(crops):
    faces = by_medium(crops)
    left, right = faces["person_1.mp4#left"], faces["person_1.mp4#right"]
    times = {face.time_s for face in left}
    assert len(times) == 4
    # Two people stand on the left in each frame, the larger one first; on the right only the smaller one was changed.
    assert len(left) == 8
    assert {face.time_s for face in right} == times
    assert len(right) == 4
    assert all(face.frame_box_px[0] > 280 for face in right)


def test_media_without_a_face_are_recorded_with_the_reason(crops):
    problems = {row["key"]: row["problem"] for row in CropCache(crops.folder).read_problems()}
    assert set(problems) == {"noise.png", "broken.jpg"}
    assert problems["noise.png"] == "no_usable_face"
    assert problems["broken.jpg"] != "no_usable_face"


def test_shards_are_ordinary_tar_files_of_lossless_pictures(crops, tmp_path):
    opened = CropCache(crops.folder)
    face = next(opened.read_faces())
    with tarfile.open(crops.folder / f"{face.shard}.tar") as tar:
        tar.extractall(tmp_path, filter="data")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names[0] == f"{face.shard}-000000.png"
    assert np.array_equal(np.asarray(Image.open(tmp_path / names[0])), opened.read_picture(face))


def test_an_interrupted_build_resumes_with_identical_files(crops, tmp_path, monkeypatch):
    monkeypatch.setattr(cutting, "MEDIA_PER_SHARD", 2)

    def interrupted():
        yield from crops.media[:7]
        raise KeyboardInterrupt

    with cut_here(), pytest.raises(KeyboardInterrupt):
        build_cache(interrupted(), tmp_path, SETTINGS)
    finished = content(tmp_path)
    assert {name for name in finished if name.endswith(".jsonl")} == {f"0000{number}.jsonl" for number in range(3)}
    # Kills in the middle of a shard and between its two files leave these behind.
    (tmp_path / "00003.tar.partial").write_bytes(b"half")
    (tmp_path / "00003.jsonl.partial").write_bytes(b"half")
    (tmp_path / "00003.tar").write_bytes(b"whole, but nothing points into it")
    written = {name: (tmp_path / name).stat().st_mtime_ns for name in finished}
    # By another process, as everywhere but in tests.
    build_cache(crops.media, tmp_path, SETTINGS)
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in finished} == written
    assert content(tmp_path) == content(crops.folder)


def test_a_complete_cache_is_not_written_again(crops, tmp_path, monkeypatch):
    monkeypatch.setattr(cutting, "MEDIA_PER_SHARD", 2)
    folder = Path(shutil.copytree(crops.folder, tmp_path / "copy"))
    build_cache(crops.media, folder, SETTINGS)
    assert content(folder) == content(crops.folder)


def test_other_settings_are_rejected(crops):
    other = CacheSettings(**{**SETTINGS.model_dump(), "min_face_px": 41})
    with pytest.raises(DataError, match="other settings"):
        build_cache(crops.media, crops.folder, other)


def test_a_folder_without_a_shard_is_not_a_cache(tmp_path):
    with pytest.raises(DataError, match="no crop cache"):
        CropCache(tmp_path)


def test_a_damaged_picture_is_an_error(crops, tmp_path):
    folder = Path(shutil.copytree(crops.folder, tmp_path / "copy"))
    face = next(CropCache(folder).read_faces())
    with (folder / f"{face.shard}.tar").open("r+b") as file:
        file.seek(face.offset)
        file.write(os.urandom(face.length))
    with pytest.raises(
        DataError,
        match=rf"picture of {face.dataset}/{face.key}, at byte {face.offset} of {face.shard}.tar in .* is damaged",
    ):
        CropCache(folder).read_picture(face)
