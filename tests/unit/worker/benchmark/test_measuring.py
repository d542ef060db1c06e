import json
import multiprocessing
import os
import re
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from shared.manifests import PACKAGED_MODELS_DIR
from tests.clips import make_clip
from worker.benchmark import __main__ as command
from worker.benchmark import measuring, running
from worker.benchmark.devices import (
    describe_device,
    find_device,
    read_driver_version,
    read_peak_memory_mb,
    reset_peak_memory,
)
from worker.benchmark.errors import BenchmarkError
from worker.benchmark.measuring import Bench, Measurement
from worker.benchmark.report import INDISPENSABLE, PIPELINES, draw, table
from worker.benchmark.run_setup import YUNET, Setup
from worker.benchmark.scenes import make_scene

SETUP = Setup(PACKAGED_MODELS_DIR, "swap-lite0", threads=1)
"""With the lighter checkpoint, which takes a third of the default one's time."""


def measurement(name, seconds, **given):
    values = {"rounds_s": (seconds,), "frames": 20, "faces": 40, "peak_mb": 100.0, "stages_s": {}, **given}
    return Measurement(name, seconds, **values)


ROWS = {
    name: measurement(name, seconds)
    for name, seconds in (
        ("straightforward", 8.0),
        ("ours", 2.0),
        ("floor", 1.6),
        ("detection, facenet-pytorch", 3.0),
        ("detection, ours", 0.5),
    )
}
STAGES = {"probe": 0.1, "decoding": 1.2, "detection": 0.4, "classification": 0.3}
ROWS["ours"] = measurement("ours", 2.0, gpu_peak_mb=2048.0)
ROWS["indispensable"] = measurement("indispensable", 2.0, stages_s=STAGES)
GROWTH = [{"seconds": value, "height_px": value, "faces": value} for value in (1, 2)]
RATES = running.compute_rates(ROWS, duration_s=10.0, ceiling=80.0, price_per_hour=0.5)
REPORT = {
    "model": "swap-lite2",
    "device": {"device": "cuda:0", "name": "A card", "memory_mb": 80000, "driver": "580.1", "cuda": "13.0"},
    "ceiling": {"faces_per_s": 80.0, "batch": 32, "seconds_per_face": {"32": 0.0125}},
    "clips": [{"clip": "a.mp4", **running.compute_ratios(ROWS), **RATES, "contenders": running.rows_to_json(ROWS)}],
    "growth": {
        name: [{**row, "contenders": running.rows_to_json({each: ROWS[each] for each in PIPELINES})} for row in GROWTH]
        for name in ("duration", "resolution", "faces")
    },
    **running.compute_ratios(ROWS),
}


@pytest.fixture(scope="module")
def bench():
    """Start the processes of all contenders once for all tests, since each takes seconds to start."""
    with closing(Bench(SETUP)) as bench:
        yield bench


def test_ratios_compare_with_the_baseline_and_the_floor():
    assert running.compute_ratios(ROWS) == {
        "ratio_vs_straightforward": 4.0,
        "ratio_vs_floor": 1.25,
        "detection_ratio": 6.0,
        "straightforward_vs_indispensable": 4.0,
        "indispensable_vs_floor": 1.25,
    }


def test_the_tables_list_the_measurements(tmp_path):
    lines = table(REPORT).splitlines()
    assert lines[2] == "| a.mp4 | 20 | 40 | 8.00 | 2.00 | 1.60 | 4.00 | 1.25 | 6.00 | 10.0 | 20.0 | 100 |"
    assert "| a.mp4 | 0.10 | 1.20 | 0.40 | 0.30 | 2.00 | 4.00 | 1.25 |" in lines
    assert "A card, driver 580.1, CUDA 13.0: swap-lite2 alone scores 80 faces a second, in batches of 32." in lines
    # 40 faces in 2 s are a quarter of 80 a second; 2 s of a machine at 0.5 an hour, for 10 s of video.
    assert "| a.mp4 | 10.0 | 7.5 | 30.0 | 37.5 | 25.0 % | – | 2048 | 0.1000 |" in lines
    assert sum(line.startswith("| 2 | 8.00 | 100 | 2.00 | 100 | 1.60 | 100 |") for line in lines) == 3
    assert len({line.count("|") for line in lines[:4]}) == 1
    draw(REPORT, tmp_path / "bench.png")
    assert (tmp_path / "bench.png").stat().st_size > 1000


@pytest.mark.merge
def test_all_contenders_scan_the_same_frames(bench, tmp_path):
    path = make_scene(tmp_path / "scene.mp4", width_px=640, height_px=480, seconds=4, faces=2)
    rows = bench.measure(path, [*PIPELINES, INDISPENSABLE, *running.DETECTIONS], rounds=1)
    scanning = ("straightforward", "ours", INDISPENSABLE, *running.DETECTIONS)
    assert [rows[name].frames for name in scanning] == [8] * 5
    assert all(rows[INDISPENSABLE].stages_s[stage] > 0 for stage in STAGES)
    assert rows["straightforward"].faces == rows["ours"].faces == rows["floor"].faces == 16
    assert rows[running.DETECTIONS[0]].faces == rows[running.DETECTIONS[1]].faces >= 16
    assert all(row.seconds > 0 for row in rows.values())


def test_a_file_that_cannot_be_scanned_is_named(tmp_path, monkeypatch):
    # A process that takes longer than this to end, as on a busy machine, is killed.
    monkeypatch.setattr(measuring, "JOIN_S", 0.0)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    before = set(multiprocessing.active_children())
    with (
        closing(Bench(SETUP)) as bench,
        pytest.raises(BenchmarkError, match=r"ours could not scan .*broken\.mp4"),
    ):
        bench.measure(tmp_path / "broken.mp4", ["ours"], rounds=1)
    assert set(multiprocessing.active_children()) <= before, "its process has ended"


@pytest.mark.parametrize("device", ["cuda:99", "gpu"])
def test_a_device_that_does_not_exist_is_an_error(device, tmp_path, capsys):
    assert command.main(["--data", str(tmp_path), "--device", device, "--out", str(tmp_path / "bench.json")]) == 2
    assert repr(device) in capsys.readouterr().err


def test_the_processor_has_neither_a_driver_nor_memory_of_its_own():
    processor = find_device("cpu")
    reset_peak_memory(processor)
    assert read_peak_memory_mb(processor) is None
    assert describe_device(processor)["cores"] >= 1


@pytest.mark.parametrize("answer", ["580.65.06\n580.65.06\n", "NVIDIA-SMI has failed", None])
def test_the_driver_is_named_if_its_tool_is_there(answer, tmp_path, monkeypatch):
    if answer is not None:
        tool = tmp_path / "nvidia-smi"
        tool.write_text(f"#!/bin/sh\nprintf '{answer}'\n")
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin" if answer else str(tmp_path))
    assert read_driver_version() == ("580.65.06" if answer and answer.startswith("580") else None)


def test_a_cost_needs_a_price():
    assert running.compute_rates(ROWS, duration_s=10.0, ceiling=80.0, price_per_hour=None) == {
        **RATES,
        "cost_per_hour_of_video": None,
    }


@pytest.mark.merge
def test_the_ceiling_is_that_of_the_best_batch(bench, tmp_path):
    found = running.measure_ceiling(bench, tmp_path)
    best = min(found["seconds_per_face"].values())
    assert found["seconds_per_face"][str(found["batch"])] == best
    assert found["faces_per_s"] == pytest.approx(1 / best, abs=0.06)


@pytest.mark.merge
def test_yunet_is_measured_where_its_file_is_given(tmp_path):
    file = os.environ.get("YUNET_MODEL")
    if not file:
        pytest.skip("YUNET_MODEL names no file of YuNet")
    path = make_scene(tmp_path / "scene.mp4", width_px=640, height_px=480, seconds=2, faces=2)
    with closing(Bench(replace(SETUP, yunet=Path(file)))) as bench:
        row = bench.measure(path, [YUNET], rounds=1)[YUNET]
    assert (row.frames, row.faces) == (4, 8)


def test_a_folder_without_a_video_is_an_error(tmp_path, capsys):
    assert command.main(["--data", str(tmp_path), "--out", str(tmp_path / "bench.json")]) == 2
    assert "no video found in" in capsys.readouterr().err


@pytest.mark.merge
def test_the_command_writes_ratios_of_each_clip_and_their_medians(bench, tmp_path, capsys, monkeypatch):
    for name in ("one", "two"):
        make_clip(tmp_path / f"{name}.mp4", seconds=1.0)
    monkeypatch.setattr(running, "Bench", lambda *_, **__: bench)
    monkeypatch.setattr(bench, "close", lambda: None)
    monkeypatch.setattr(running, "DURATIONS_S", (1,))
    monkeypatch.setattr(running, "SCENE_DURATION_S", 1)
    monkeypatch.setattr(running, "SIZES", ((640, 360),))
    monkeypatch.setattr(running, "FACES", (1,))
    out, scenes = tmp_path / "bench.json", tmp_path / "scenes"
    given = ["--data", str(tmp_path), "--out", str(out), "--scenes", str(scenes), "--rounds", "1", "--threads", "1"]
    assert command.main(given) == 0
    report = json.loads(out.read_text())
    assert [clip["clip"] for clip in report["clips"]] == ["one.mp4", "two.mp4"]
    for name in ("ratio_vs_straightforward", "ratio_vs_floor", "detection_ratio"):
        both = sorted(clip[name] for clip in report["clips"])
        assert both[0] <= report[name] <= both[1]
    printed = capsys.readouterr()
    assert table(report) in printed.out
    assert re.search(r"one\.mp4: straightforward \d+\.\d\d s, ours .*; straightforward / ours \d", printed.err)
    assert set(report["growth"]) == {"duration", "resolution", "faces"}
    assert out.with_suffix(".png").exists()
    monkeypatch.setattr(running, "measure_ceiling", lambda *_: report["ceiling"])
    assert command.main([*given, "--no-growth"]) == 0
    assert json.loads(out.read_text())["growth"] == {}
    assert not out.with_suffix(".png").exists()
