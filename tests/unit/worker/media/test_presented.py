"""Times, tracks and sizes match what players show."""

import struct
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from shared.containers import MediaLimits
from shared.errors import UnsupportedCodecError
from tests.clips import make_broadcast, make_clip, run
from worker.media.frames import read_frames, read_segments
from worker.media.probe import probe
from worker.media.segments import plan_segments
from worker.media.showinfo import displayed_size

LIMITS = MediaLimits(max_bytes=2**31, max_duration_s=600.0, max_pixels=4096 * 4096, max_frame_rate=240.0)
FPS = 25.0


@pytest.fixture(scope="module")
def sounding(tmp_path_factory) -> Path:
    """Make a video of 16 s with audio and B-frames whose key frames are 10 s apart."""
    folder = tmp_path_factory.mktemp("sounding")
    clip = make_clip(folder / "a.mp4", fps=FPS, seconds=16.0, size=(64, 64), extra=("-g", "250", "-bf", "2"))
    path = folder / "sounding.mp4"
    run("-i", str(clip), "-f", "lavfi", "-i", "sine=duration=16", "-c:v", "copy", "-c:a", "aac", str(path))
    return path


def shown(path: Path) -> tuple[float, float, list[float]]:
    """Return where players begin, by the file's clock, and relative to it the end and the time of each frame."""
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        frames = [(frame.time, float((frame.duration or 0) * frame.time_base)) for frame in container.decode(stream)]
        start_s = (container.start_time or 0) / 1e6
    begins = sorted(time for time, _ in frames)
    end_s = max(time + lasting for time, lasting in frames)
    return start_s, end_s - start_s, [time - start_s for time in begins]


def cut(source: Path, path: Path, *options: str) -> Path:
    run(*options, "-i", str(source), "-c", "copy", str(path))
    return path


def _trimmed(source: Path, folder: Path) -> Path:
    # The key frame is 7 s before the displayed interval; an edit list hides the frames between.
    return cut(source, folder / "trimmed.mp4", "-ss", "7", "-t", "5.27")


def _trimmed_mov(source: Path, folder: Path) -> Path:
    return cut(source, folder / "trimmed.mov", "-ss", "12.5")


def _late(source: Path, folder: Path) -> Path:
    # The video begins 1.3 s after the audio.
    path = folder / "late.mp4"
    run(
        "-itsoffset", "1.3", "-i", str(source), "-i", str(source), "-map", "0:v", "-map", "1:a", "-c", "copy", str(path)
    )
    return path


def _late_mkv(source: Path, folder: Path) -> Path:
    return cut(_late(source, folder), folder / "late.mkv")


def _much_later(source: Path, folder: Path) -> Path:
    path = folder / "later.mkv"
    run(
        "-itsoffset", "7.9", "-i", str(source), "-i", str(source), "-map", "0:v", "-map", "1:a", "-c", "copy", str(path)
    )
    return path


def _long_sound(source: Path, folder: Path) -> Path:
    path = folder / "sound.mp4"
    run("-t", "4", "-i", str(source), "-i", str(source), "-map", "0:v", "-map", "1:a", "-c", "copy", str(path))
    return path


def _large_clock(source: Path, folder: Path) -> Path:
    path = folder / "large.mkv"
    run("-i", str(source), "-c", "copy", "-output_ts_offset", "95443.7", str(path))
    return path


def _negative_clock(source: Path, folder: Path) -> Path:
    path = folder / "negative.mp4"
    run(
        *("-itsoffset", "-1", "-i", str(source), "-c", "copy", "-avoid_negative_ts", "disabled"),
        *("-use_editlist", "0", "-movflags", "+negative_cts_offsets", str(path)),
    )
    return path


def _varying(source: Path, folder: Path) -> Path:
    path = folder / "varying.mp4"
    chosen = "select='lt(mod(n,7),3)+not(mod(n,11))',setpts=PTS-STARTPTS"
    run("-i", str(source), "-vf", chosen, "-fps_mode", "vfr", "-preset", "ultrafast", "-c:a", "copy", str(path))
    return path


def _fragmented(source: Path, folder: Path) -> Path:
    path = folder / "fragmented.mp4"
    run("-ss", "3", "-i", str(source), "-c", "copy", "-movflags", "+frag_keyframe+empty_moov", str(path))
    return path


MADE = [
    *(_trimmed, _trimmed_mov, _late, _late_mkv, _much_later, _long_sound, _large_clock, _negative_clock),
    *(_varying, _fragmented),
]


@pytest.mark.parametrize("make", MADE, ids=[make.__name__.strip("_") for make in MADE])
def test_times_match_those_of_players(tmp_path, sounding, make):
    path = make(sounding, tmp_path)
    start_s, end_s, begins = shown(path)
    facts = probe(path, LIMITS)
    assert facts.start_s == pytest.approx(start_s, abs=0.002)
    assert facts.duration_s == pytest.approx(end_s, abs=0.002)
    assert facts.first_s == pytest.approx(begins[0], abs=0.002)
    assert facts.frame_count == len(begins)
    plan = plan_segments(facts.duration_s, 2.5, first_s=facts.first_s)
    parts: list[list[float]] = [[]]
    for frame in read_segments(path, facts, plan, sample_fps=60.0, timeout_s=60.0):
        if frame is None:
            parts.append([])
        else:
            parts[-1].append(frame.time_s)
    assert all(parts[:-1])
    # Not more than one in each of the cells; those of variable rates can be closer.
    assert [time for part in parts for time in part] == pytest.approx(begins, abs=0.002)


def test_a_lossless_trim_has_the_requested_duration(tmp_path, sounding):
    facts = probe(_trimmed(sounding, tmp_path), LIMITS)
    assert facts.duration_s == pytest.approx(5.27, abs=0.2)
    assert facts.first_s == 0.0


def test_a_lossless_trim_shows_the_frames_of_its_interval(tmp_path, sounding):
    facts, whole = probe(path := _trimmed(sounding, tmp_path), LIMITS), probe(sounding, LIMITS)
    given = {"sample_fps": 2.0, "timeout_s": 60.0}
    part = list(read_frames(path, facts, start_s=0.0, end_s=4.0, **given))
    wanted = list(read_frames(sounding, whole, start_s=7.0, end_s=11.0, **given))
    assert len(part) == len(wanted) == 8
    for one, other in zip(part, wanted, strict=True):
        assert one.time_s == pytest.approx(other.time_s - 7.0, abs=0.001)
        assert np.array_equal(one.pixels, other.pixels)


def test_hidden_frames_do_not_count_for_frame_rate_or_bytes(tmp_path, sounding):
    facts, whole = probe(_trimmed(sounding, tmp_path), LIMITS), probe(sounding, LIMITS)
    assert facts.frame_rate == pytest.approx(FPS, rel=0.03)
    assert facts.video_bytes < 0.6 * whole.video_bytes


def two_tracks(folder: Path, name: str, *options: str) -> Path:
    """Make a file with a video of noise, 64 × 64, and one of 96 × 96."""
    first = make_clip(folder / "first.mp4", size=(64, 64), faces=())
    second = make_clip(folder / "second.mp4", size=(96, 96), seconds=3.0)
    path = folder / name
    run("-i", str(first), "-i", str(second), "-map", "0:v", "-map", "1:v", "-c", "copy", *options, str(path))
    return path


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv"])
@pytest.mark.parametrize(("default", "side"), [(0, 64), (1, 96)])
def test_the_default_track_is_analysed_and_the_others_are_counted(tmp_path, name, default, side):
    path = two_tracks(tmp_path, name, "-disposition:v", "0", f"-disposition:v:{default}", "default")
    facts = probe(path, LIMITS)
    assert (facts.video_track, facts.other_video_tracks) == (default, 1)
    assert facts.width_px == side
    assert facts.duration_s == pytest.approx(2.0 + default, abs=0.11)
    frames = list(read_frames(path, facts, start_s=0.0, end_s=facts.duration_s, sample_fps=2.0, timeout_s=30))
    assert len(frames) == 4 + 2 * default
    assert frames[0].pixels.shape == (side, side, 3)


def test_the_first_of_several_default_tracks_is_analysed(tmp_path):
    path = two_tracks(tmp_path, "a.mkv", "-disposition:v:0", "default", "-disposition:v:1", "default")
    assert probe(path, LIMITS).video_track == 0


def test_damage_does_not_change_the_track(tmp_path):
    given = ("-disposition:v", "0", "-disposition:v:1", "default", "-movflags", "+faststart")
    path = two_tracks(tmp_path, "a.mp4", *given)
    path.write_bytes(path.read_bytes()[:-2000])
    facts = probe(path, LIMITS)
    assert facts.truncated
    assert (facts.video_track, facts.other_video_tracks, facts.width_px) == (1, 1, 96)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_cover_art_does_not_count_as_a_track(tmp_path, name):
    clip = make_clip(tmp_path / "clip.mp4")
    run("-i", str(clip), "-frames:v", "1", str(tmp_path / "cover.png"))
    if name.endswith("mkv"):
        cover = ("-attach", str(tmp_path / "cover.png"), "-metadata:s:t", "mimetype=image/png")
        run("-i", str(clip), *cover, "-c", "copy", str(tmp_path / name))
    else:
        cover = ("-map", "1", "-map", "0", "-c", "copy", "-disposition:v:0", "attached_pic")
        run("-i", str(clip), "-i", str(tmp_path / "cover.png"), *cover, str(tmp_path / name))
    facts = probe(tmp_path / name, LIMITS)
    assert (facts.codec, facts.other_video_tracks) == ("h264", 0)
    assert facts.frame_count == 20


def test_an_audio_track_does_not_count_as_another_video(tmp_path, sounding):
    path = tmp_path / "a.mp4"
    run("-i", str(sounding), "-map", "0:a", "-map", "0:v", "-c", "copy", str(path))
    facts = probe(path, LIMITS)
    assert (facts.video_track, facts.other_video_tracks) == (1, 0)
    assert list(read_frames(path, facts, start_s=0.0, end_s=2.0, sample_fps=2.0, timeout_s=30))


@pytest.mark.parametrize(
    ("ratio", "size"), [("4/3", (256, 96)), ("1/2", (192, 192)), ("16/11", (279, 96)), ("1/1", (192, 96))]
)
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_frames_have_square_pixels(tmp_path, name, ratio, size):
    path = make_clip(tmp_path / name, size=(192, 96), frames=3, extra=("-vf", f"setsar={ratio}"))
    facts = probe(path, LIMITS)
    assert (facts.width_px, facts.height_px) == size
    (frame, *_) = read_frames(path, facts, start_s=0.0, end_s=1.0, sample_fps=1.0, timeout_s=30)
    assert frame.pixels.shape == (size[1], size[0], 3)


def test_pixel_aspect_ratios_are_rotated_with_the_picture(tmp_path):
    path = make_clip(tmp_path / "a.mp4", size=(192, 96), frames=3, rotation=90, extra=("-vf", "setsar=4/3"))
    facts = probe(path, LIMITS)
    assert (facts.width_px, facts.height_px, facts.rotation_deg) == (96, 256, 90)


@pytest.mark.parametrize("ratio", [(0, 1), (1, 0), (1, 1000), (900, 100)])
def test_absurd_pixel_aspect_ratios_are_ignored(ratio):
    assert displayed_size(192, 96, *ratio) == (192, 96)


# Rows of the display matrix of an MP4 track, and what they make of a picture.
TURNS = {
    "upright": ((1, 0, 0, 1), lambda picture: picture),
    "90": ((0, 1, -1, 0), lambda picture: np.rot90(picture, -1)),
    "180": ((-1, 0, 0, -1), lambda picture: np.rot90(picture, 2)),
    "270": ((0, -1, 1, 0), lambda picture: np.rot90(picture, 1)),
    "mirrored": ((-1, 0, 0, 1), lambda picture: picture[:, ::-1]),
    "upside down": ((1, 0, 0, -1), lambda picture: picture[::-1]),
    "transposed": ((0, 1, 1, 0), lambda picture: picture.transpose(1, 0, 2)),
    "mirrored and 270": ((0, -1, -1, 0), lambda picture: np.rot90(picture[::-1], 1)),
}


def boxes(content: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    while start + 8 <= end:
        (size,) = struct.unpack(">I", content[start : start + 4])
        yield content[start + 4 : start + 8], start + 8, start + size
        start += size


def find(content: bytes, *path: bytes) -> int:
    """Return where the content of the first box at *path* begins."""
    start, end = 0, len(content)
    for name in path:
        start, end = next((begin, stop) for kind, begin, stop in boxes(content, start, end) if kind == name)
    return start


@pytest.mark.parametrize("turn", TURNS)
def test_frames_are_turned_and_mirrored_by_the_display_matrix(tmp_path, turn):
    matrix, apply = TURNS[turn]
    stored = make_clip(tmp_path / "stored.mp4", size=(96, 64), frames=2)
    content = bytearray(stored.read_bytes())
    a, b, c, d = (value * 65536 for value in matrix)
    at = find(content, b"moov", b"trak", b"tkhd") + 40
    content[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 2**30)
    path = tmp_path / "turned.mp4"
    path.write_bytes(content)
    pictures = []
    for each in (stored, path):
        facts = probe(each, LIMITS)
        (frame, *_) = read_frames(each, facts, start_s=0.0, end_s=1.0, sample_fps=1.0, timeout_s=30)
        assert frame.pixels.shape == (facts.height_px, facts.width_px, 3)
        pictures.append(frame.pixels.astype(int))
    wanted = apply(pictures[0])
    assert pictures[1].shape == wanted.shape
    # Chroma is stored at half size, so turning before or after converting differs a little at edges.
    assert np.abs(pictures[1] - wanted).mean() < 3.0


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv", "a.avi"])
def test_motion_jpeg_is_accepted_in_every_container(tmp_path, name):
    assert probe(make_clip(tmp_path / name, codec="mjpeg", frames=3), LIMITS).codec == "mjpeg"


def test_dolby_vision_with_proprietary_colours_is_refused_with_advice(tmp_path):
    path = make_clip(tmp_path / "a.mp4", codec="hevc", frames=2)
    content = bytearray(path.read_bytes())
    # A configuration of profile 5, level 1, with metadata and a base layer that resembles no other format.
    record = struct.pack(">BBHI", 1, 0, 5 << 9 | 1 << 3 | 0b101, 0) + bytes(16)
    box = struct.pack(">I4s", 8 + len(record), b"dvcC") + record
    for depth in range(7, 0, -1):
        names = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd")[:depth]
        if depth == 7:
            entry = find(content, *names[:6]) + 8
            (size,) = struct.unpack(">I", content[entry : entry + 4])
            content[entry + size : entry + size] = box
            content[entry : entry + 4] = struct.pack(">I", size + len(box))
            continue
        at = find(content, *names) - 8
        (size,) = struct.unpack(">I", content[at : at + 4])
        content[at : at + 4] = struct.pack(">I", size + len(box))
    path.write_bytes(content)
    with pytest.raises(UnsupportedCodecError, match=r"profile 5.*HDR10, HLG or SDR"):
        probe(path, LIMITS)


def test_an_empty_broadcast_track_does_not_count(tmp_path):
    clip = make_clip(tmp_path / "a.mp4", seconds=2.0, size=(64, 64))
    both = tmp_path / "both.ts"
    run("-i", str(clip), "-map", "0:v", "-map", "0:v", "-c", "copy", str(both))
    data = both.read_bytes()
    packets = [data[at : at + 188] for at in range(0, len(data), 188)]
    path = tmp_path / "one.ts"
    # ffmpeg gives its tracks the packet identifiers 0x100, 0x101 and so on.
    path.write_bytes(b"".join(packet for packet in packets if packet[1] & 31 != 1 or packet[2] != 1))
    assert probe(both, LIMITS).other_video_tracks == 1
    facts = probe(path, LIMITS)
    assert (facts.video_track, facts.other_video_tracks, facts.width_px) == (0, 0, 64)


def test_a_program_stream_ends_after_its_last_frame(tmp_path):
    """Only some of its packets have presentation times, and the last one has none."""
    path = make_broadcast(tmp_path, "mpeg2.mpg")
    facts = probe(path, LIMITS)
    assert (facts.frame_count, facts.frame_rate) == (25, pytest.approx(25.0))
    assert facts.duration_s == pytest.approx(1.0)
    frames = list(read_frames(path, facts, start_s=0.0, end_s=facts.duration_s, sample_fps=50.0, timeout_s=30))
    assert [frame.time_s for frame in frames] == pytest.approx([number / 25 for number in range(25)])
