import io
import json
import shutil
import tarfile
from dataclasses import asdict, replace

import cv2
import numpy as np
import pytest

from tests.unit.worker.training.conftest import ASTRONAUT, HOPPER
from tests.unit.worker.training.tiny_runs import PLAIN
from worker.detection.faces import crop_face, square_around
from worker.training.__main__ import main
from worker.training.data.cache import MARGIN, CachedFace
from worker.training.errors import DataError
from worker.training.evaluation.background_statistics import NAMES, PIXEL_NAMES, find_background, pixel_statistics
from worker.training.evaluation.leak_probes import probe_caches, probe_pseudo_fakes
from worker.training.evaluation.linear_probes import MIN_GROUPS, ProbeArea, format_table
from worker.training.fakes.augmentation import Augmentation, make_jpeg

TIMED_PAIRS = 16
FACE = ((100.0, 90.0, 180.0, 190.0), ((120.0, 125.0), (160.0, 125.0), (140.0, 148.0), (124.0, 165.0), (156.0, 165.0)))


def plain(picture):
    return picture


def swapped(picture):
    """Another face, within the box of the old one."""
    left, top, right, bottom = map(int, ASTRONAUT.box)
    fake = picture.copy()
    fake[top + 12 : bottom - 8, left + 10 : right - 10] = cv2.GaussianBlur(
        picture[top + 12 : bottom - 8, left + 10 : right - 10], (0, 0), 3.0
    )
    return fake


def write_cache(folder, change, *, after=plain, shift=(0.0, 0.0), with_originals=True, ending=".png"):
    """
    Write a crop cache of real/fake pairs: a face on a random background, and what *change* makes of it.

    The detector finds the fake's face *shift* aside; its crop goes through *after*.
    """
    folder.mkdir()
    lines = []
    with tarfile.TarFile(folder / "00000.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for number in range(TIMED_PAIRS):
            rng = np.random.default_rng(number)
            ground = cv2.GaussianBlur(rng.normal(0.0, 30.0, (280, 280, 3)), (0, 0), rng.uniform(0.5, 2.0))
            real = np.clip(ASTRONAUT.picture * rng.uniform(0.5, 1.0) + ground * 2, 0, 255).astype(np.uint8)
            for label, picture in (("real", real), ("fake", change(real))):
                dx, dy = shift if label == "fake" else (0.0, 0.0)
                left, top, right, bottom = ASTRONAUT.box
                box = (left + dx, top + dy, right + dx, bottom + dy)
                x, y, side = square_around(box, MARGIN)
                crop = crop_face(picture, box, size_px=side, margin=MARGIN)
                crop = after(crop) if label == "fake" else crop
                _, data = cv2.imencode(ending, cv2.cvtColor(crop, cv2.COLOR_RGB2BGR))
                header = tarfile.TarInfo(f"{number}-{label}{ending}")
                header.size = len(data)
                offset = tar.offset + tarfile.BLOCKSIZE
                tar.addfile(header, io.BytesIO(data.tobytes()))
                face = CachedFace(
                    shard="00000",
                    offset=offset,
                    length=len(data),
                    key=f"{number}-{label}",
                    label=label,
                    dataset="made",
                    group=str(number if with_originals else f"{number}-{label}"),
                    set="train",
                    method="",
                    compression="",
                    original=f"{number}-real" if label == "fake" and with_originals else "",
                    is_video=False,
                    time_s=0.0,
                    box_px=(box[0] - x, box[1] - y, box[2] - x, box[3] - y),
                    landmarks_px=tuple((a - x, b - y) for a, b in ASTRONAUT.landmarks),
                    frame_box_px=box,
                    size_px=88.0,
                    sharpness=100.0,
                )
                lines.append(json.dumps(asdict(face)) + "\n")
    (folder / "00000.jsonl").write_text("".join(lines))
    return folder


@pytest.fixture(scope="module")
def faces_swapped(tmp_path_factory):
    """A cache of real faces, and of fakes in which only the face changed; not to be written to."""
    return write_cache(tmp_path_factory.mktemp("swapped") / "cache", swapped)


@pytest.fixture(scope="module")
def faces_alone(tmp_path_factory):
    """The same, without a fake's original."""
    return write_cache(tmp_path_factory.mktemp("alone") / "cache", swapped, with_originals=False)


def areas(found, how):
    (one,) = (one for one in found if one.how == how)
    return {area.statistics: area for area in one.areas}


@pytest.mark.parametrize("portrait", [ASTRONAUT, HOPPER], ids=["astronaut", "hopper"])
def test_the_blanked_ellipses_cover_the_whole_face(portrait):
    background = find_background(portrait.picture.shape, portrait.box, portrait.landmarks)
    left, top, right, bottom = map(int, portrait.box)
    middle_x, middle_y = (left + right) // 2, (top + bottom) // 2
    inside = [*portrait.landmarks, (middle_x, top), (middle_x, bottom), (left, middle_y), (right, middle_y)]
    assert not any(background[round(y), round(x)] for x, y in inside)
    assert background[2, 2]
    assert 0.2 < background.mean() < 0.9


def test_statistics_do_not_depend_on_a_pixel_of_the_face():
    box, marks = FACE
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (280, 280, 3), np.uint8)
    background = find_background(picture.shape, box, marks)
    other = picture.copy()
    other[~background] = rng.integers(0, 256, ((~background).sum(), 3), np.uint8)
    assert pixel_statistics(picture, background).tolist() == pixel_statistics(other, background).tolist()


def test_every_statistic_has_a_name_and_a_small_background_gives_none():
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    everywhere = np.ones((64, 64), np.bool_)
    assert pixel_statistics(picture, everywhere).shape == (len(PIXEL_NAMES),)
    assert len(set(NAMES)) == len(NAMES)
    nearly_nothing = np.zeros((64, 64), np.bool_)
    nearly_nothing[:12, :12] = True
    assert pixel_statistics(picture, nearly_nothing) is None


@pytest.mark.parametrize("shift", [0, 3], ids=["in place", "cut off its grid"])
def test_a_block_grid_is_detected_at_any_offset(shift):
    picture = cv2.GaussianBlur(np.random.default_rng(1).integers(0, 256, (128, 128, 3), np.uint8), (0, 0), 3.0)
    everywhere = np.ones((128 - shift,) * 2, np.bool_)
    clean, coarse = (
        pixel_statistics(np.ascontiguousarray(one[shift:, shift:]), everywhere)
        for one in (picture, make_jpeg(10)(picture))
    )
    for name in ("8x8 grid rows", "8x8 grid columns"):
        assert coarse[PIXEL_NAMES.index(name)] > 2 * clean[PIXEL_NAMES.index(name)]


def test_changing_only_the_face_leaves_the_probe_at_chance(faces_swapped):
    found = probe_caches([faces_swapped], rounds=50)
    assert [one.how for one in found] == ["media", "couples"]
    for one in found:
        outside = areas(found, one.how)["outside"]
        assert outside.is_chance
        assert outside.roc_auc == pytest.approx(0.5, abs=0.05)
        assert (one.media, one.fakes, one.groups, one.left_out) == (2 * TIMED_PAIRS, TIMED_PAIRS, TIMED_PAIRS, 0)
        assert one.outside_px > 1000
        assert one.outside_share == pytest.approx(one.outside_px / 222**2, rel=0.1)


def test_the_position_of_the_detected_face_carries_no_information_within_pairs(tmp_path):
    found = probe_caches([write_cache(tmp_path / "cache", swapped, shift=(5.0, -4.0))], rounds=50)
    assert areas(found, "couples")["outside"].roc_auc == pytest.approx(0.5, abs=0.05)


def test_compressing_only_fakes_is_detected_and_the_statistics_are_named(tmp_path):
    found = probe_caches([write_cache(tmp_path / "cache", make_jpeg(40))], rounds=50)
    area = areas(found, "couples")["outside"]
    assert area.roc_auc > 0.9
    assert not area.is_chance
    (name, value), *_ = area.telling
    assert name in PIXEL_NAMES
    assert abs(value - 0.5) > 0.4
    assert name in format_table(found)


def test_differences_of_cached_files_are_reported_apart_from_pixels(tmp_path):
    folder = write_cache(tmp_path / "cache", swapped, ending=".jpg")
    index = folder / "00000.jsonl"
    assert "cut" not in areas(probe_caches([folder], limit=8, rounds=5), "media"), "all faces were cut alike"
    faces = [CachedFace.from_line(line) for line in index.read_text().splitlines()]
    # Fakes that are said to be larger in their frames.
    faces = [replace(face, size_px=face.size_px + 20 * (face.label == "fake")) for face in faces]
    index.write_text("".join(json.dumps(asdict(face)) + "\n" for face in faces))
    found = probe_caches([folder], rounds=50)
    assert areas(found, "media")["cut"].roc_auc > 0.95
    assert areas(found, "media")["cut"].telling[0] == ("face size", 1.0)
    assert areas(found, "media")["outside"].is_chance


def test_without_originals_only_media_are_probed(tmp_path):
    found = probe_caches([write_cache(tmp_path / "cache", make_jpeg(20), with_originals=False)], limit=15, rounds=50)
    assert [(one.how, one.media, one.groups) for one in found] == [("media", 30, 30)]
    assert areas(found, "media")["outside"].roc_auc > 0.8


def test_caches_of_one_class_cannot_be_probed(tmp_path):
    folder = write_cache(tmp_path / "cache", plain)
    index = folder / "00000.jsonl"
    index.write_text("".join(line for line in index.read_text().splitlines(True) if '"label": "real"' in line))
    with pytest.raises(DataError, match="both real and fake"):
        probe_caches([folder])


def keep(cache, folder, real, fake):
    """Copy a cache with only some media of each label."""
    shutil.copytree(cache, folder)
    index = folder / "00000.jsonl"
    lines = index.read_text().splitlines(True)
    kept = [[line for line in lines if f'"label": "{label}"' in line] for label in ("real", "fake")]
    index.write_text("".join([*kept[0][:real], *kept[1][:fake]]))
    return folder


@pytest.mark.parametrize("with_originals", [True, False], ids=["couples", "media"])
@pytest.mark.parametrize(("real", "fake"), [(1, 1), (3, 3), (3, 9)], ids=str)
def test_a_data_set_with_too_few_media_is_reported_in_one_sentence(
    real, fake, with_originals, faces_swapped, faces_alone, tmp_path, capsys
):
    folder = keep(faces_swapped if with_originals else faces_alone, tmp_path / "cache", real, fake)
    assert main(["probe-outside", str(folder)]) == 2
    (sentence,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("python")]
    counted = min(real, fake) if with_originals else fake
    assert sentence == (
        "python -m worker.training probe-outside: made is too small to be probed: "
        f"{real} people or single pictures that are real and {counted} that are fake show enough outside the face, "
        f"and {MIN_GROUPS} of each are needed"
    )


@pytest.mark.parametrize("with_originals", [True, False], ids=["couples", "media"])
@pytest.mark.parametrize(("real", "fake"), [(MIN_GROUPS, MIN_GROUPS), (MIN_GROUPS, TIMED_PAIRS)], ids=str)
def test_the_minimum_number_of_media_is_probed(real, fake, with_originals, faces_swapped, faces_alone, tmp_path):
    folder = keep(faces_swapped if with_originals else faces_alone, tmp_path / "cache", real, fake)
    assert all(one.areas for one in probe_caches([folder], rounds=5))


def test_pseudo_fakes_are_probed_outside_their_masks(tmp_path):
    folder = write_cache(tmp_path / "cache", plain)
    media, pairs = probe_pseudo_fakes(
        [folder], "subtle", Augmentation(**PLAIN), size_px=128, margin=0.5, count=20, rounds=50
    )
    assert (media.name, pairs.how) == ("made: subtle", "couples")
    assert media.left_out + media.media == 2 * (pairs.left_out + pairs.fakes) == 40
    assert {area.statistics for area in media.areas} == {"outside", "colour", "residual", "blocks"}
    # Without augmentation both of a pair are the same to the byte outside the mask.
    assert all((area.roc_auc, area.interval) == (0.5, (0.5, 0.5)) for area in pairs.areas)


def test_an_interval_containing_one_half_is_chance():
    assert ProbeArea("outside", 0.55, (0.49, 0.6), ()).is_chance
    assert not ProbeArea("outside", 0.55, (0.51, 0.6), ()).is_chance
    assert not ProbeArea("outside", 0.55, None, ()).is_chance


def test_the_command_prints_a_table_and_writes_the_figures(faces_swapped, tmp_path, capsys):
    out = tmp_path / "new" / "outside.json"
    assert main(["probe-outside", str(faces_swapped), "--limit", "12", "--out", str(out)]) == 0
    assert "| made | couples | 24 (12 fake) | 12 |" in capsys.readouterr().out
    figures = json.loads(out.read_text())
    assert [one["how"] for one in figures] == ["media", "couples"]
    assert figures[0]["areas"][0]["statistics"] == "outside"


def test_the_command_reports_what_is_missing(tmp_path, capsys):
    assert main(["probe-outside", str(tmp_path / "nowhere")]) == 2
    assert "probe-outside: there is no folder" in capsys.readouterr().err
