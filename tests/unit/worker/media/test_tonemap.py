"""HDR frames are converted to what an SDR display shows."""

import tempfile

import numpy as np
import pytest

from shared.containers import MediaLimits
from tests.clips import make_clip
from tests.hdr import as_hdr, hdr_of
from worker.media import tonemap
from worker.media.frames import read_frames
from worker.media.probe import probe
from worker.media.tonemap import to_sdr

LIMITS = MediaLimits(max_bytes=2**31, max_duration_s=600.0, max_pixels=4096 * 4096, max_frame_rate=240.0)


def read_all(path):
    facts = probe(path, LIMITS)
    frames = read_frames(path, facts, start_s=0.0, end_s=facts.duration_s, sample_fps=30.0, timeout_s=60)
    return [frame.pixels for frame in frames]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return make_clip(tmp_path_factory.mktemp("sdr") / "a.mp4", fps=2.0, seconds=1.0, size=(320, 240))


@pytest.mark.parametrize("dynamic_range", ["pq", "hlg"])
def test_one_scene_looks_the_same_in_sdr_and_hdr(tmp_path, clip, dynamic_range):
    path = as_hdr(tmp_path / "hdr.mp4", clip, dynamic_range)
    assert probe(path, LIMITS).dynamic_range == dynamic_range
    shown, wanted = read_all(path)[0].astype(float), read_all(clip)[0].astype(float)
    # Highlights of the portrait are rolled off, up to 18 of 255 levels of white itself.
    usual = wanted.max(axis=2) < 200
    assert usual.mean() > 0.8
    assert np.abs(shown - wanted)[usual].mean() < 2.0
    assert np.abs(shown - wanted).mean() < 3.0
    # Interpreted as SDR, the colours are far off.
    assert np.abs(hdr_of(wanted / 255.0, dynamic_range) * 255 - wanted)[usual].mean() > 10.0


@pytest.mark.parametrize("dynamic_range", ["pq", "hlg"])
def test_sdr_colours_are_kept_up_to_the_knee_and_highlights_become_white(dynamic_range):
    colours = np.random.default_rng(1).random((500, 3)) * tonemap.KNEE
    assert to_sdr(hdr_of(colours, dynamic_range), dynamic_range) == pytest.approx(colours, abs=1e-3)
    grey = np.linspace(0.0, 1.0, 200)[:, None].repeat(3, axis=1)
    mapped = to_sdr(grey, dynamic_range)[:, 1]
    assert (np.diff(mapped) > -1e-9).all()
    assert mapped[-1] == pytest.approx(1.0)
    white = to_sdr(hdr_of([[1.0, 1.0, 1.0]], dynamic_range), dynamic_range)
    assert 0.9 < white[0, 0] < 0.96


def test_reference_values_of_the_standard():
    # BT.2408: diffuse white, 203 cd/m², is 58 % PQ and 75 % HLG.
    assert tonemap.decode_pq(np.array([0.5807]))[0] == pytest.approx(203.0, rel=0.005)
    assert tonemap.decode_hlg(np.full((1, 3), 0.75))[0] == pytest.approx(203.0, rel=0.005)
    assert tonemap.decode_pq(np.array([1.0]))[0] == pytest.approx(10_000.0)
    assert tonemap.decode_hlg(np.ones((1, 3)))[0] == pytest.approx(1000.0, rel=0.001)


def test_files_without_hdr_tags_are_sdr(tmp_path, clip):
    facts = probe(clip, LIMITS)
    assert facts.dynamic_range == "sdr"
    wide = as_hdr(tmp_path / "untagged.mp4", clip, "pq", tags=False)
    assert probe(wide, LIMITS).dynamic_range == "sdr"


def test_wide_primaries_and_a_mastering_display_without_a_transfer_function_are_pq(tmp_path, clip):
    display = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)"
    given = f"log-level=error:lossless=1:colorprim=9:colormatrix=9:master-display={display}:max-cll=1000,400"
    path = as_hdr(tmp_path / "a.mp4", clip, "pq", tags=False, extra=("-x265-params", given))
    assert probe(path, LIMITS).dynamic_range == "pq"


def test_the_table_file_exists_while_frames_are_read(tmp_path, clip, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    path = as_hdr(tmp_path / "hdr.mp4", clip, "pq")
    frames = read_frames(path, probe(path, LIMITS), start_s=0.0, end_s=1.0, sample_fps=2.0, timeout_s=60)
    next(frames)
    assert len(list(tmp_path.glob("*.cube"))) == 1
    frames.close()
    assert not list(tmp_path.glob("*.cube"))
