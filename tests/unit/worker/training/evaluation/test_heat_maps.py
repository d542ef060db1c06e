import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

from shared.manifests import DEFAULT_CHECKPOINT, PACKAGED_MODELS_DIR
from tests.clips import astronaut, hopper
from worker.detection.faces import crop_face
from worker.model.checkpoint import load_checkpoint
from worker.training.evaluation.heat_map_report import format_tables, interval, summarise, write_report
from worker.training.evaluation.heat_maps import (
    SHARES,
    Sample,
    contenders,
    judge_heat_maps,
    locate,
    occlusion_map,
)

SIDE = 224
FACE = crop_face(astronaut(), (79.7, 63.2, 168.3, 173.9), size_px=SIDE, margin=0.0)
SPOT = (slice(40, 90), slice(130, 180))


def brightness_of_spot(crops):
    """A score that depends on one known part of the crop."""
    return [float(crop[SPOT].mean()) / 255.0 for crop in crops]


@pytest.fixture(scope="module")
def network():
    return load_checkpoint(PACKAGED_MODELS_DIR, DEFAULT_CHECKPOINT).network


@pytest.fixture(scope="module")
def judged(network):
    swapped = FACE.copy()
    swapped[100:180, 60:160] = crop_face(hopper(), (75.0, 81.0, 220.0, 265.0), size_px=SIDE, margin=0.0)[
        100:180, 60:160
    ]
    samples = [
        Sample("pairs", "one", swapped, FACE),
        Sample("crops", "two", swapped[:, ::-1].copy()),
    ]
    return judge_heat_maps(samples, network, brightness_of_spot)


def test_occlusion_finds_what_the_score_depends_on():
    crop = np.full((SIDE, SIDE, 3), 60, np.uint8)
    crop[SPOT] = 250
    values = occlusion_map(crop, brightness_of_spot)
    row, column = np.unravel_index(values.argmax(), values.shape)
    assert abs(row - 65) < 32
    assert abs(column - 155) < 32


def test_every_contender_makes_a_finite_map_of_the_crop(network):
    for name, make in contenders(network, brightness_of_spot).items():
        values = make(FACE)
        assert values.shape == (SIDE, SIDE), name
        assert np.isfinite(values).all(), name


def test_a_map_of_the_change_itself_is_located_perfectly_and_its_opposite_never():
    fake = FACE.copy()
    fake[SPOT] += 128  # Wraps around, so that every pixel changes by as much.
    truth = cv2.GaussianBlur(np.abs(fake.astype(np.float32) - FACE).mean(axis=2), (0, 0), 2.0)
    right, wrong = (locate("map", values, FACE, fake) for values in (truth, -truth))
    assert right.hit
    assert right.auc > 0.95
    assert right.iou > 0.8
    assert wrong.auc < 0.05
    assert not locate("map", np.roll(truth, SIDE // 2, 0), FACE, fake).hit


def test_where_nothing_changed_nothing_is_found():
    found = locate("map", np.zeros((SIDE, SIDE), np.float32), FACE, FACE)
    assert (found.changed, found.hit, found.iou, found.auc) == (0.0, False, 0.0, 0.5)


def test_the_middle_of_the_crop_is_a_control_that_does_not_depend_on_the_face(judged):
    falls = [fall for _, fall in judged.falls if fall.method == "middle of the crop" and fall.other is not None]
    assert falls
    assert all(fall.other == fall.hot for fall in falls)


def test_every_sample_is_measured_with_every_method_share_and_fill(judged, network):
    methods = contenders(network, brightness_of_spot)
    blurred = [fall for _, fall in judged.falls if fall.fill == "blur"]
    assert len(blurred) == 2 * len(methods) * len(SHARES)
    assert {fall.source for _, fall in judged.falls if fall.fill == "original"} == {"pairs"}
    assert len(judged.found) == len(methods)


def test_measurements_are_summarised_written_and_drawn(judged, tmp_path):
    write_report(judged, tmp_path)
    summary = json.loads((tmp_path / "report.json").read_text())
    assert summary["scores"]["crops"]["crops"] == 1
    assert "| occlusion |" in (tmp_path / "tables.md").read_text()
    assert (tmp_path / "tables.md").read_text() == format_tables(summarise(judged))
    drawn = (tmp_path / "deletion.svg").read_bytes()
    assert b"<svg" in drawn
    assert len(drawn) < 100_000


def test_a_deadline_that_has_passed_leaves_one_sample_measured(network):
    samples = [Sample("crops", str(number), FACE) for number in range(2)]
    assert len(judge_heat_maps(samples, network, brightness_of_spot, deadline_s=0.0).samples) == 1


def test_intervals_draw_whole_groups():
    mean, low, high = interval([0.0, 0.0, 1.0, 1.0], ["a", "a", "b", "b"])
    assert (mean, low, high) == (0.5, 0.0, 1.0)
    assert interval([0.3] * 5, list("abcde")) == pytest.approx((0.3, 0.3, 0.3))


def test_the_mean_fall_is_that_of_its_rows(judged):
    summary = summarise(replace(judged, found=()))
    row = next(row for row in summary["deletion"] if (row["source"], row["fill"]) == ("crops", "blur"))
    values = [
        fall.hot
        for _, fall in judged.falls
        if (fall.source, fall.fill, fall.share, fall.method) == ("crops", "blur", row["share"], row["method"])
    ]
    assert row["hot"][0] == pytest.approx(np.mean(values))
    assert summary["localisation"] == []
