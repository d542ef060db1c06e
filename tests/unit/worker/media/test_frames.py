import subprocess

import numpy as np
import pytest
from PIL import Image

from shared.containers import MediaLimits
from shared.errors import DecodeError, DecodeTimeoutError, TruncatedError
from tests.clips import astronaut, make_clip, run, truncate
from worker.media import decoding as module
from worker.media.frames import read_frames, read_segments
from worker.media.probe import probe
from worker.media.segments import plan_segments

LIMITS = MediaLimits(max_bytes=2**31, max_duration_s=600.0, max_pixels=4096 * 4096, max_frame_rate=240.0)


def frames_of(path, start_s=0.0, end_s=1e9, sample_fps=2.0):
    facts = probe(path, LIMITS)
    end_s = min(end_s, facts.duration_s or 0.0)
    return list(read_frames(path, facts, start_s=start_s, end_s=end_s, sample_fps=sample_fps, timeout_s=30))


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "h264"), ("a.mkv", "h264"), ("a.mov", "hevc"), ("a.webm", "vp9"), ("a.mp4", "av1"), ("a.avi", "mpeg4")],
)
def test_consecutive_segments_yield_every_frame_once(tmp_path, name, codec):
    path = make_clip(tmp_path / name, codec=codec, seconds=12.0, size=(160, 120), extra=("-g", "40"))
    facts = probe(path, LIMITS)
    times = []
    for segment in plan_segments(facts.duration_s, 2.5):
        part = [
            frame.time_s
            for frame in read_frames(
                path, facts, start_s=segment.start_s, end_s=segment.end_s, sample_fps=30.0, timeout_s=30
            )
        ]
        assert all(segment.start_s <= time_s < segment.end_s for time_s in part)
        times += part
    assert times == pytest.approx([number / 10 for number in range(120)], abs=0.002)


def test_each_sampling_cell_yields_its_first_frame(tmp_path):
    path = make_clip(tmp_path / "a.mp4", fps=25.0, seconds=4.0)
    assert [frame.time_s for frame in frames_of(path)] == pytest.approx([0.0, 0.52, 1.0, 1.52, 2.0, 2.52, 3.0, 3.52])


def test_a_segment_decodes_to_the_same_frames_as_the_whole_video(tmp_path):
    path = make_clip(tmp_path / "a.mp4", seconds=10.0, extra=("-g", "70", "-bf", "3"))
    whole = {frame.time_s: frame.pixels for frame in frames_of(path)}
    part = frames_of(path, start_s=5.0, end_s=7.5)
    assert len(part) == 5
    for frame in part:
        assert np.array_equal(frame.pixels, whole[frame.time_s])


def test_variable_frame_rates_are_sampled_by_time(tmp_path):
    source = make_clip(tmp_path / "a.mp4", fps=20.0, seconds=6.0)
    # No frames between 1 s and 4 s, as in a screen recording where nothing moves.
    run("-i", str(source), "-vf", "select='lt(t,1)+gt(t,4)'", "-fps_mode", "vfr", str(tmp_path / "vfr.mp4"))
    frames = frames_of(tmp_path / "vfr.mp4")
    assert [round(frame.time_s, 2) for frame in frames] == [0.0, 0.5, 4.05, 4.5, 5.0, 5.5]


def test_a_segment_without_a_new_frame_yields_the_displayed_one(tmp_path):
    source = make_clip(tmp_path / "a.mp4", fps=20.0, seconds=6.0)
    run("-i", str(source), "-vf", "select='lt(t,1)+gt(t,4)'", "-fps_mode", "vfr", str(tmp_path / "vfr.mp4"))
    (frame,) = frames_of(tmp_path / "vfr.mp4", start_s=2.0, end_s=3.0)
    assert frame.time_s == 2.0


def test_a_late_gap_is_read_by_seeking(tmp_path, monkeypatch):
    source = make_clip(tmp_path / "a.mp4", fps=10.0, seconds=30.0)
    run("-i", str(source), "-vf", "select='lt(t,20)+gt(t,27)'", "-fps_mode", "vfr", "-g", "20", str(tmp_path / "v.mp4"))
    runs = []
    decode = module.build_command
    monkeypatch.setattr(module, "build_command", lambda output, **log: runs.append(decode(output, **log)) or runs[-1])
    (frame,) = frames_of(tmp_path / "v.mp4", start_s=22.0, end_s=25.0)
    assert frame.time_s == 22.0
    late = frames_of(tmp_path / "v.mp4", start_s=25.0, end_s=28.0)
    assert late[0].time_s == pytest.approx(27.1, abs=0.11)
    assert len(runs) <= 5
    assert all("-ss" in arguments for arguments in runs)


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_frames_are_turned_upright(tmp_path, rotation):
    stored = make_clip(tmp_path / "stored.mp4", frames=3)
    path = make_clip(tmp_path / "a.mp4", frames=3, rotation=rotation)
    reference = frames_of(stored)[0].pixels
    upright = np.rot90(reference, -rotation // 90)
    difference = np.abs(frames_of(path)[0].pixels.astype(int) - upright.astype(int))
    # Chroma is stored at half size, so turning before or after converting differs a little at edges.
    assert difference.mean() < 2.0


def test_odd_sizes_are_kept(tmp_path):
    path = tmp_path / "odd.mkv"
    run(
        "-f",
        "lavfi",
        "-i",
        "testsrc=size=321x243:duration=1:rate=5",
        "-pix_fmt",
        "yuv444p",
        "-c:v",
        "libx264",
        str(path),
    )
    assert frames_of(path)[0].pixels.shape == (243, 321, 3)


def test_a_video_of_one_frame_yields_it(tmp_path):
    (frame,) = frames_of(make_clip(tmp_path / "a.mp4", frames=1))
    assert frame.time_s == 0.0


def test_a_truncated_file_yields_the_frames_before_the_end(tmp_path):
    path = truncate(make_clip(tmp_path / "a.mkv", seconds=6.0), 0.6)
    assert len(frames_of(path)) >= 5


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    turned = {
        1: lambda p: p,
        2: lambda p: p[:, ::-1],
        3: lambda p: p[::-1, ::-1],
        4: lambda p: p[::-1],
        5: lambda p: p.transpose(1, 0, 2),
        6: lambda p: np.rot90(p, -1),
        7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
        8: lambda p: np.rot90(p, 1),
    }
    picture = Image.fromarray(astronaut()[:200])
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(tmp_path / "a.png", exif=exif)
    (frame,) = frames_of(tmp_path / "a.png")
    assert np.array_equal(frame.pixels, turned[orientation](astronaut()[:200]))


@pytest.mark.parametrize("mode", ["L", "RGBA", "LA", "P", "CMYK", "I;16", "1"])
def test_every_mode_is_converted_to_8_bit_rgb(tmp_path, mode):
    grey = Image.fromarray(astronaut()).convert("L")
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(grey).astype(np.uint16) * 256)
    else:
        picture = Image.fromarray(astronaut()).convert(mode)
    picture.save(tmp_path / "a.tiff")
    (frame,) = frames_of(tmp_path / "a.tiff")
    assert frame.pixels.dtype == np.uint8
    difference = np.abs(frame.pixels.mean(axis=2) - np.asarray(grey)).mean()
    # One bit dithers, and CMYK bends colours; neither may turn the picture white or black.
    assert difference < (130 if mode == "1" else 12)


def test_a_damaged_image_is_not_reported_as_a_crash(tmp_path):
    Image.fromarray(astronaut()).save(tmp_path / "a.png")
    facts = probe(tmp_path / "a.png", LIMITS)
    truncate(tmp_path / "a.png", 0.5)
    with pytest.raises(TruncatedError):
        list(read_frames(tmp_path / "a.png", facts, start_s=0, end_s=0, sample_fps=1, timeout_s=10))


def test_a_video_with_blanked_data_fails_to_decode(tmp_path):
    path = make_clip(tmp_path / "a.mp4", extra=("-movflags", "+faststart"))
    facts = probe(path, LIMITS)
    content = bytearray(path.read_bytes())
    begin = content.index(b"mdat") + 4
    content[begin:] = bytes(len(content) - begin)
    path.write_bytes(content)
    with pytest.raises(DecodeError):
        list(read_frames(path, facts, start_s=0, end_s=2, sample_fps=2, timeout_s=30))


def test_a_slow_decoder_times_out(tmp_path, monkeypatch):
    path = make_clip(tmp_path / "a.mp4")
    facts = probe(path, LIMITS)
    monkeypatch.setattr(module, "build_command", lambda _, **_log: ["sleep", "60"])
    with pytest.raises(DecodeTimeoutError, match=r"limit of 0\.\d+ s"):
        list(read_frames(path, facts, start_s=0, end_s=2, sample_fps=2, timeout_s=0.3))


def test_closing_early_ends_the_decoder(tmp_path):
    path = make_clip(tmp_path / "a.mp4", seconds=8.0)
    facts = probe(path, LIMITS)
    frames = read_frames(path, facts, start_s=0, end_s=8, sample_fps=10, timeout_s=30)
    next(frames)
    frames.close()
    assert list(frames) == []


@pytest.mark.parametrize(("large_from", "is_bound"), [(320 * 240, True), (320 * 240 + 1, False)])
def test_the_queue_of_large_frames_is_short(tmp_path, monkeypatch, large_from, is_bound):
    path = make_clip(tmp_path / "a.mp4", frames=12)
    monkeypatch.setattr(module, "LARGE_PIXELS", large_from)
    runs = []
    decode = module.build_command
    monkeypatch.setattr(module, "build_command", lambda output, **log: runs.append(decode(output, **log)) or runs[-1])
    assert len(frames_of(path, sample_fps=30.0)) == 12
    assert ["-thread_queue_size" in arguments for arguments in runs] == [is_bound]


@pytest.mark.parametrize("name", ["a.mkv", "a.ts"])
def test_much_larger_later_frames_keep_their_size(tmp_path, name):
    parts = [
        make_clip(tmp_path / f"{width}.ts", fps=10.0, seconds=seconds, size=(width, height), extra=("-g", "5"))
        for width, height, seconds in ((64, 64, 0.1), (160, 120, 1.0), (320, 240, 3.0))
    ]
    joined = "concat:" + "|".join(str(part) for part in parts)
    path = tmp_path / name
    run("-i", joined, "-c", "copy", "-bsf:v", "setts=pts=N/10/TB:dts=N/10/TB", str(path))
    facts = probe(path, LIMITS)
    assert (facts.width_px, facts.height_px) == (64, 64)
    plan = plan_segments(facts.duration_s, 2.0)
    frames = [frame for frame in read_segments(path, facts, plan, sample_fps=10.0, timeout_s=30.0) if frame]
    sizes = [frame.pixels.shape[:2] for frame in frames]
    assert sizes == sorted(sizes)
    assert [sizes.count(size) for size in ((64, 64), (120, 160), (240, 320))] == [1, 10, 30]
    assert all(frame.pixels.shape[1] * frame.scale[0] == 64 for frame in frames)
    assert all(frame.pixels.shape[0] * frame.scale[1] == 64 for frame in frames)
    times = [frame.time_s for frame in frames]
    assert times == sorted(set(times))


def test_texts_that_encoders_attach_to_frames_are_not_logged(tmp_path, monkeypatch):
    """x265 attaches its settings, about 2,000 bytes, which ffmpeg would log byte by byte."""
    path = make_clip(tmp_path / "a.mp4", codec="hevc", frames=5)
    runs = []
    decode = module.build_command
    monkeypatch.setattr(module, "build_command", lambda output, **log: runs.append(decode(output, **log)) or runs[-1])
    assert frames_of(path)
    log = subprocess.run(runs[0], capture_output=True, check=True).stderr
    assert log.count(b"pts_time:") == 6
    assert b"User Data" not in log
    assert len(log) < 10_000
