import io

import numpy as np
import pytest
from PIL import Image

from shared.containers import HeaderFacts, MediaLimits, check_limits, check_size, inspect_header
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
from tests.clips import astronaut, make_clip, run

LIMITS = MediaLimits(max_bytes=1000, max_duration_s=10.0, max_pixels=100, max_frame_rate=30.0)


def inspect(content):
    return inspect_header(io.BytesIO(content), len(content))


@pytest.mark.parametrize(
    ("name", "codec", "container"),
    [
        ("a.mp4", "h264", "mp4"),
        ("a.mp4", "hevc", "mp4"),
        ("a.mp4", "vp9", "mp4"),
        ("a.mp4", "av1", "mp4"),
        ("a.mp4", "mpeg4", "mp4"),
        ("a.mov", "h264", "mov"),
        ("a.mkv", "h264", "matroska"),
        ("a.mkv", "mpeg4", "matroska"),
        ("a.webm", "vp8", "webm"),
        ("a.webm", "av1", "webm"),
        ("a.avi", "mpeg4", "avi"),
    ],
)
def test_headers_of_videos_are_read(tmp_path, name, codec, container):
    facts = inspect(make_clip(tmp_path / name, codec=codec).read_bytes())
    assert (facts.kind, facts.container, facts.codec) == ("video", container, codec)
    assert (facts.width_px, facts.height_px) == (320, 240)
    assert facts.duration_s == pytest.approx(2.0, abs=0.11)
    assert facts.frame_rate is None or facts.frame_rate == pytest.approx(10.0, rel=0.06)


def test_an_index_at_the_end_is_found(tmp_path):
    content = make_clip(tmp_path / "a.mp4").read_bytes()
    assert content.index(b"mdat") < content.index(b"moov")
    assert inspect(content).codec == "h264"


def test_a_fragmented_file_has_no_length_in_its_header(tmp_path):
    source = make_clip(tmp_path / "a.mp4")
    run("-i", str(source), "-c", "copy", "-movflags", "frag_keyframe+empty_moov", str(tmp_path / "f.mp4"))
    facts = inspect((tmp_path / "f.mp4").read_bytes())
    assert (facts.codec, facts.duration_s) == ("h264", None)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_headers_of_images_are_read(form):
    stream = io.BytesIO()
    Image.fromarray(astronaut()[:200]).save(stream, form)
    assert inspect(stream.getvalue()) == HeaderFacts("image", form.lower(), form.lower(), 280, 200)


@pytest.mark.parametrize(
    "options", [{"lossless": True}, {"quality": 50}, {"quality": 50, "exif": b"Exif\0\0II*\0"}], ids=str
)
def test_every_form_of_webp_has_a_size(options):
    stream = io.BytesIO()
    Image.fromarray(astronaut()[:200]).save(stream, "WEBP", **options)
    facts = inspect(stream.getvalue())
    assert (facts.width_px, facts.height_px) == (280, 200)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", EmptyFileError),
        (b"hello, world", NotMediaError),
        (b"\0" * 4096, NotMediaError),
        (b"GIF89a" + bytes(100), UnsupportedMediaError),
        (b"%PDF-1.7" + bytes(100), UnsupportedMediaError),
        (b"ID3\x04" + bytes(100), UnsupportedMediaError),
        (b"RIFF\x24\0\0\0WAVEfmt " + bytes(100), UnsupportedMediaError),
        (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf", UnsupportedMediaError),
        (b"\0\0\0\x18ftypM4A \0\0\0\0isomM4A ", NoVideoStreamError),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp41", TruncatedError),
        (b"\xff\xd8\xff\xe0", TruncatedError),
        (b"\x89PNG\r\n\x1a\n", TruncatedError),
        (b"RIFF\0\0\0\0AVI ", TruncatedError),
        (b"\x1a\x45\xdf\xa3\x80", TruncatedError),
    ],
)
def test_what_cannot_be_taken_is_told_apart(content, error):
    with pytest.raises(error):
        inspect(content)


@pytest.mark.parametrize("name", ["a.avi", "a.mkv", "a.mov"])
def test_an_unsupported_codec_is_named(tmp_path, name):
    with pytest.raises(UnsupportedCodecError, match=r"(?i)jpe?g"):
        inspect(make_clip(tmp_path / name, codec="mjpeg").read_bytes())


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "aac"), ("a.mkv", "aac"), ("a.avi", "pcm_s16le")])
def test_sound_alone_is_no_video(tmp_path, name, codec):
    run("-f", "lavfi", "-i", "sine=duration=1", "-c:a", codec, str(tmp_path / name))
    with pytest.raises(NoVideoStreamError):
        inspect((tmp_path / name).read_bytes())


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm", "a.avi", "a.jpg", "a.png", "a.tiff", "a.webp", "a.bmp"])
def test_hostile_bytes_give_facts_or_a_named_error_in_bounded_time(tmp_path, name):
    path = tmp_path / name
    if name.endswith((".mp4", ".mkv", ".webm", ".avi")):
        make_clip(path, codec="vp8" if name == "a.webm" else "mpeg4", frames=5)
    else:
        Image.fromarray(astronaut()).save(path)
    original = path.read_bytes()
    generator = np.random.default_rng(5)
    outcomes = set()
    for _ in range(300):
        content = bytearray(original[: int(generator.integers(1, len(original) + 1))])
        for _ in range(int(generator.integers(0, 40))):
            # Headers stand at the beginning, and there a change matters most.
            content[int(generator.integers(min(len(content), 1000)))] = int(generator.integers(256))
        try:
            facts = inspect(bytes(content))
        except DeepfakeStreamError as error:
            outcome = error.code
        else:
            outcome = facts.kind
        outcomes.add(outcome)
    assert "internal_error" not in outcomes
    assert len(outcomes) > 1


def test_boxes_that_never_end_are_given_up():
    with pytest.raises(TruncatedError):
        inspect(b"\0\0\0\x08ftyp" + b"\0\0\0\x08free" * 100_000)


@pytest.mark.parametrize(
    ("facts", "error", "named"),
    [
        ({"duration_s": 10.1}, TooLongError, "max_duration_s is 10"),
        ({"width_px": 11, "height_px": 10}, TooManyPixelsError, "max_pixels is 100"),
        ({"frame_rate": 31.0}, FrameRateTooHighError, "max_frame_rate is 30"),
    ],
)
def test_limits_are_named(facts, error, named):
    with pytest.raises(error, match=named):
        check_limits(HeaderFacts("video", "mp4", **facts), LIMITS)


def test_what_is_within_the_limits_or_unknown_passes():
    check_limits(HeaderFacts("video", "mp4"), LIMITS)
    check_limits(HeaderFacts("video", "mp4", "h264", 10, 10, 10.0, 30.0), LIMITS)
    check_size(1000, LIMITS)
    with pytest.raises(TooLargeError, match="max_upload_bytes is 1000"):
        check_size(1001, LIMITS)


def test_the_track_that_players_show_is_the_one_that_counts(tmp_path):
    for side in (64, 96):
        make_clip(tmp_path / f"{side}.mp4", size=(side, side))
    for name in ("a.mp4", "a.mkv"):
        two = ("-i", str(tmp_path / "64.mp4"), "-i", str(tmp_path / "96.mp4"), "-map", "0", "-map", "1")
        run(*two, "-c", "copy", "-disposition:v:0", "0", "-disposition:v:1", "default", str(tmp_path / name))
        assert inspect((tmp_path / name).read_bytes()).width_px == 96


def test_what_an_edit_list_hides_is_not_counted(tmp_path):
    whole = make_clip(tmp_path / "a.mp4", seconds=8.0, extra=("-g", "100"))
    run("-ss", "5", "-i", str(whole), "-c", "copy", str(tmp_path / "part.mp4"))
    facts = inspect((tmp_path / "part.mp4").read_bytes())
    assert facts.duration_s == pytest.approx(3.0, abs=0.2)
    assert facts.frame_rate == pytest.approx(10.0, rel=0.05)


@pytest.mark.parametrize(
    ("name", "options", "called"),
    [
        ("a.avi", ("-c:v", "rawvideo", "-pix_fmt", "bgr24"), "uncompressed video"),
        ("a.mkv", ("-c:v", "rawvideo", "-pix_fmt", "yuv420p", "-allow_raw_vfw", "1"), "uncompressed video"),
        ("a.mov", ("-c:v", "qtrle"), "'rle'"),
    ],
)
def test_codecs_that_are_not_accepted_are_called_by_their_names(tmp_path, name, options, called):
    source = ("-f", "lavfi", "-i", "testsrc2=size=64x64:rate=5:duration=0.4")
    run(*source, "-pix_fmt", "yuvj420p", *options, str(tmp_path / name))
    with pytest.raises(UnsupportedCodecError) as raised:
        inspect((tmp_path / name).read_bytes())
    assert str(raised.value).startswith(f"the video codec {called} is not supported; supported are H.264")
