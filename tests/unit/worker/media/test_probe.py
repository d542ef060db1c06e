import io
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from shared.containers import MediaLimits
from shared.errors import (
    DeepfakeStreamError,
    EmptyFileError,
    FrameRateTooHighError,
    NotMediaError,
    NoVideoStreamError,
    TooLargeError,
    TooLongError,
    TooManyPixelsError,
    TruncatedError,
    UnsupportedCodecError,
    UnsupportedMediaError,
)
from tests.clips import BROADCAST, astronaut, make_broadcast, make_clip, run, scene, truncate, without_frames
from tests.pictures import FORMS, make_picture
from worker.media import probe as module
from worker.media.ffmpeg import find_ffmpeg
from worker.media.frames import read_frames
from worker.media.probe import MediaFacts, probe

LIMITS = MediaLimits(
    max_bytes=2**31, max_duration_s=600.0, max_pixels=4096 * 4096, max_frame_rate=240.0, max_image_pixels=4096 * 4096
)


@pytest.mark.parametrize(
    ("name", "codec", "container"),
    [
        ("a.mp4", "h264", "mp4"),
        ("a.mp4", "hevc", "mp4"),
        ("a.mp4", "av1", "mp4"),
        ("a.mp4", "vp9", "mp4"),
        ("a.mp4", "mpeg4", "mp4"),
        ("a.mov", "h264", "mov"),
        ("a.mkv", "h264", "matroska"),
        ("a.mkv", "hevc", "matroska"),
        ("a.mkv", "mpeg4", "matroska"),
        ("a.webm", "vp8", "webm"),
        ("a.webm", "vp9", "webm"),
        ("a.webm", "av1", "webm"),
        ("a.avi", "mpeg4", "avi"),
        ("a.avi", "h264", "avi"),
    ],
)
def test_videos_of_every_container_and_codec_are_read(tmp_path, name, codec, container):
    facts = probe(make_clip(tmp_path / name, codec=codec), LIMITS)
    assert (facts.kind, facts.container, facts.codec) == ("video", container, codec)
    assert (facts.width_px, facts.height_px, facts.rotation_deg) == (320, 240, 0)
    assert facts.duration_s == pytest.approx(2.0, abs=0.11)
    assert facts.frame_rate == pytest.approx(10.0, rel=0.06)
    assert not facts.truncated
    # Earlier releases refuse unknown facts.
    assert not {"video_bytes", "first_s", "video_track", "dynamic_range"} & facts.to_json().keys()
    assert MediaFacts.from_json(facts.to_json(), facts.presentation()) == replace(facts, video_bytes=None)


@pytest.mark.parametrize(("codec", "sound"), [("h264", ()), ("h264", ("-f", "lavfi", "-i", "sine=duration=2"))])
def test_video_bytes_exclude_audio_and_container(tmp_path, codec, sound):
    path = make_clip(tmp_path / "plain.mp4", codec=codec)
    alone = probe(path, LIMITS).video_bytes
    assert 0.8 * path.stat().st_size < alone < path.stat().st_size
    if sound:
        mixed = tmp_path / "mixed.mp4"
        run("-i", str(path), *sound, "-c:v", "copy", "-c:a", "aac", "-b:a", "192k", str(mixed))
        assert mixed.stat().st_size > path.stat().st_size + 10_000
        assert probe(mixed, LIMITS).video_bytes == alone


@pytest.mark.parametrize("name", BROADCAST)
def test_broadcast_formats_are_read(tmp_path, name):
    codec, container, _ = BROADCAST[name]
    path = make_broadcast(tmp_path, name)
    facts = probe(path, LIMITS)
    assert (facts.kind, facts.container, facts.codec) == ("video", container, codec)
    # The 176 × 144 pixels of H.263 are wider than high, by 12 to 11.
    assert (facts.width_px, facts.height_px) == ((192, 144) if codec == "h263" else (256, 144))
    assert facts.duration_s == pytest.approx(1.0, abs=0.25)
    assert not facts.truncated
    frames = list(read_frames(path, facts, start_s=0.0, end_s=facts.duration_s, sample_fps=2.0, timeout_s=30))
    assert [frame.time_s for frame in frames] == pytest.approx([0.0, 0.5], abs=0.08)
    wanted = Image.fromarray(scene(0, size=(256, 144))).resize((facts.width_px, facts.height_px))
    assert np.abs(frames[0].pixels.astype(int) - np.asarray(wanted).astype(int)).mean() < 12


@pytest.mark.parametrize("container", FORMS)
def test_images_of_every_format_are_read(tmp_path, container):
    facts = probe(make_picture(tmp_path / "picture", container, astronaut()), LIMITS)
    assert (facts.kind, facts.container, facts.codec) == ("image", container, container)
    assert (facts.width_px, facts.height_px, facts.duration_s) == (280, 280, None)


def test_the_format_is_detected_by_content_and_not_by_name(tmp_path):
    disguised = make_clip(tmp_path / "a.mp4").rename(tmp_path / "holiday.jpg")
    assert probe(disguised, LIMITS).kind == "video"


def test_names_that_look_like_options_or_protocols_are_only_names(tmp_path):
    for name in ("-version", "concat:a|b", "%03d.mp4"):
        path = tmp_path / name
        path.write_bytes(make_clip(tmp_path / "a.mp4").read_bytes())
        assert probe(path, LIMITS).codec == "h264"


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_rotation_is_applied(tmp_path, rotation):
    facts = probe(make_clip(tmp_path / "a.mp4", rotation=rotation), LIMITS)
    assert facts.rotation_deg == rotation
    upright = (320, 240) if rotation in (0, 180) else (240, 320)
    assert (facts.width_px, facts.height_px) == upright


def test_a_single_frame_is_a_video(tmp_path):
    facts = probe(make_clip(tmp_path / "a.mp4", frames=1), LIMITS)
    assert (facts.kind, facts.frame_count, facts.frame_rate) == ("video", 1, None)
    assert facts.duration_s is not None
    assert facts.duration_s > 0


def test_times_start_with_the_first_frame(tmp_path):
    source = make_clip(tmp_path / "a.mp4")
    run("-itsoffset", "7", "-i", str(source), "-c", "copy", str(tmp_path / "late.mkv"))
    facts = probe(tmp_path / "late.mkv", LIMITS)
    assert facts.start_s == pytest.approx(7.0, abs=0.01)
    assert facts.duration_s == pytest.approx(2.0, abs=0.11)


def test_a_truncated_file_has_the_duration_that_is_left(tmp_path):
    path = make_clip(tmp_path / "a.mp4", seconds=4.0, extra=("-movflags", "+faststart", "-g", "5"))
    facts = probe(truncate(path, 0.6), LIMITS)
    assert facts.truncated
    assert facts.duration_s is not None
    assert 1.0 < facts.duration_s < 3.5


@pytest.fixture
def runs(monkeypatch):
    """Record how many outputs each run of ffmpeg has, without the one that lists tracks."""
    counts = []
    build_command = module.build_command

    def counted(*outputs, **options):
        counts.append(len(outputs))
        return build_command(*outputs, **options)

    monkeypatch.setattr(module, "build_command", counted)
    return counts


def test_an_undamaged_file_is_opened_once(tmp_path, runs):
    probe(make_clip(tmp_path / "a.mp4"), LIMITS)
    assert runs == [2]


def test_a_faulty_file_is_scanned_in_two_passes(tmp_path, runs):
    path = make_clip(tmp_path / "a.mp4", seconds=4.0, extra=("-movflags", "+faststart", "-g", "5"))
    probe(truncate(path, 0.6), LIMITS)
    assert runs == [2, 1, 1]


def test_a_video_without_a_decodable_frame_is_truncated_unless_it_is_too_long(tmp_path, runs):
    path = without_frames(make_clip(tmp_path / "a.mp4", extra=("-movflags", "+faststart")))
    with pytest.raises(TruncatedError, match="no frame of the video can be decoded"):
        probe(path, LIMITS)
    assert runs == [2, 1, 1]
    values = {name: getattr(LIMITS, name) for name in LIMITS.__dataclass_fields__} | {"max_duration_s": 1.0}
    with pytest.raises(TooLongError):
        probe(path, MediaLimits(**values))


@pytest.mark.parametrize("arguments", [["/bin/sh", "-c", "kill -11 $$"], ["/bin/sh", "-c", "exit 1"]])
def test_two_passes_follow_a_crash_of_the_first_scan(tmp_path, monkeypatch, arguments):
    path = make_clip(tmp_path / "a.mp4")
    wanted = probe(path, LIMITS)
    build_command = module.build_command
    monkeypatch.setattr(
        module,
        "build_command",
        lambda *outputs, **options: build_command(*outputs, **options) if outputs[1:] == () else arguments,
    )
    assert probe(path, LIMITS) == wanted


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "h264", {"rotation": 90}),
        ("a.mkv", "hevc", {"extra": ("-g", "7")}),
        ("a.webm", "vp9", {}),
        ("a.avi", "mpeg4", {}),
        ("a.mp4", "h264", {"frames": 1}),
    ],
)
def test_one_pass_finds_the_same_facts_as_two(tmp_path, monkeypatch, name, codec, options):
    path = make_clip(tmp_path / name, codec=codec, **options)
    found = probe(path, LIMITS)
    monkeypatch.setattr(module, "_scan_in_one_pass", lambda *_: None)
    assert probe(path, LIMITS) == found


def _text(path):
    path.write_text("This is no picture. " * 50)


def _sound(path):
    run("-f", "lavfi", "-i", "sine=duration=1", "-c:a", "aac", "-f", "mp4", str(path))


def _cover_art(path):
    cover = path.with_name("cover.jpg")
    Image.fromarray(astronaut()).save(cover)
    run(
        *("-f", "lavfi", "-i", "sine=duration=1", "-i", str(cover), "-map", "0", "-map", "1", "-c:a", "aac"),
        *("-c:v", "mjpeg", "-disposition:v", "attached_pic", "-f", "mp4", str(path)),
    )


def _no_index(path):
    truncate(make_clip(path.with_name("a.mp4")).rename(path), 0.5)


def _torn_picture(path):
    Image.fromarray(astronaut()).save(path, "JPEG")
    truncate(path, 0.5)


def _no_size(path):
    """Blank the H.264 configuration record, which has the frame size, in its tag."""
    content = bytearray(make_clip(path.with_name("a.flv")).read_bytes())
    at = content.index(bytes.fromhex("1700000000")) + 5
    content[at:] = bytes(len(content) - at)
    path.write_bytes(content)


def _nothing_recorded(path):
    """Make a transport stream of which only the tables are left."""
    data = make_clip(path.with_name("a.ts")).read_bytes()
    packets = (data[at : at + 188] for at in range(0, len(data), 188))
    path.write_bytes(
        b"".join(packet for packet in packets if packet[1:3] != b"\x01\x00" and packet[1:3] != b"\x41\x00")
    )


def _ogg(path):
    run("-f", "lavfi", "-i", "testsrc2=duration=1", "-f", "lavfi", "-i", "sine=duration=1", "-f", "ogg", str(path))


def _big(path):
    Image.new("L", (5000, 5000)).save(path, "PNG")


@pytest.mark.parametrize(
    ("make", "error"),
    [
        pytest.param(lambda path: path.write_bytes(b""), EmptyFileError, id="empty"),
        pytest.param(_text, NotMediaError, id="text"),
        pytest.param(_sound, NoVideoStreamError, id="sound"),
        pytest.param(_cover_art, NoVideoStreamError, id="cover art"),
        pytest.param(_no_index, TruncatedError, id="no index"),
        pytest.param(_no_size, TruncatedError, id="no size"),
        pytest.param(_nothing_recorded, TruncatedError, id="nothing recorded"),
        pytest.param(_torn_picture, TruncatedError, id="torn picture"),
        pytest.param(_ogg, UnsupportedMediaError, id="ogg"),
        pytest.param(_big, TooManyPixelsError, id="too many pixels"),
        pytest.param(
            lambda path: make_clip(path.with_name("m.avi"), codec="ffv1").rename(path),
            UnsupportedCodecError,
            id="codec",
        ),
        pytest.param(
            lambda path: make_clip(path.with_name("m.mkv"), codec="ffv1").rename(path),
            UnsupportedCodecError,
            id="mkv codec",
        ),
    ],
)
def test_bad_files_are_refused_with_the_right_error(tmp_path, make, error):
    path = tmp_path / "file"
    make(path)
    with pytest.raises(error) as raised:
        probe(path, LIMITS)
    assert str(tmp_path) not in str(raised.value)


@pytest.mark.parametrize(
    ("limits", "error", "named"),
    [
        ({"max_bytes": 100}, TooLargeError, "max_upload_bytes is 100"),
        ({"max_duration_s": 1.0}, TooLongError, "max_duration_s is 1"),
        ({"max_pixels": 320 * 240 - 1}, TooManyPixelsError, "max_pixels is 76799"),
        ({"max_frame_rate": 5.0}, FrameRateTooHighError, "max_frame_rate is 5"),
    ],
)
def test_a_limit_error_names_the_limit(tmp_path, limits, error, named):
    values = {name: getattr(LIMITS, name) for name in LIMITS.__dataclass_fields__} | limits
    with pytest.raises(error, match=named):
        probe(make_clip(tmp_path / "a.mp4"), MediaLimits(**values))


def test_a_playlist_that_names_other_files_is_no_video(tmp_path):
    make_clip(tmp_path / "secret.mp4")
    for text in (
        f"#EXTM3U\n#EXTINF:1,\n{tmp_path}/secret.mp4\n",
        f"ffconcat version 1.0\nfile {tmp_path}/secret.mp4\n",
    ):
        path = tmp_path / "list.mp4"
        path.write_text(text)
        with pytest.raises((NotMediaError, UnsupportedMediaError)):
            probe(path, LIMITS)


def test_damaged_files_give_facts_or_an_error_code(tmp_path):
    generator = np.random.default_rng(11)
    originals = [make_clip(tmp_path / name).read_bytes() for name in ("a.mp4", "a.mkv")]
    picture = io.BytesIO()
    Image.fromarray(astronaut()).save(picture, "JPEG")
    originals.append(picture.getvalue())
    path = tmp_path / "mutant"
    outcomes = set()
    for number in range(36):
        content = bytearray(originals[number % len(originals)])
        for _ in range(int(generator.integers(1, 30))):
            content[int(generator.integers(len(content)))] = int(generator.integers(256))
        path.write_bytes(content)
        try:
            outcomes.add(probe(path, LIMITS, timeout_s=20).kind)
        except DeepfakeStreamError as error:
            outcomes.add(error.code)
    assert outcomes - {"image", "video"}
    assert outcomes & {"image", "video"}


def test_the_tests_use_a_real_ffmpeg():
    banner = subprocess.run([find_ffmpeg(), "-version"], capture_output=True, text=True, check=True).stdout
    assert banner.startswith("ffmpeg version")
