import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from shared.containers import (
    HEAD_BYTES,
    HeaderFacts,
    MediaLimits,
    check_head,
    check_limits,
    check_size,
    inspect_header,
)
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
from tests.clips import BROADCAST, astronaut, make_broadcast, make_clip, run
from tests.pictures import ANIMATIONS, FORMS, make_animation, make_motion_photo, make_picture, plain

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


def test_an_index_at_the_end_of_the_file_is_found(tmp_path):
    content = make_clip(tmp_path / "a.mp4").read_bytes()
    assert content.index(b"mdat") < content.index(b"moov")
    assert inspect(content).codec == "h264"


def test_a_fragmented_file_has_no_duration_in_its_header(tmp_path):
    source = make_clip(tmp_path / "a.mp4")
    run("-i", str(source), "-c", "copy", "-movflags", "frag_keyframe+empty_moov", str(tmp_path / "f.mp4"))
    facts = inspect((tmp_path / "f.mp4").read_bytes())
    assert (facts.codec, facts.duration_s) == ("h264", None)


def make_any(path):
    """Make a file of the format that the extension of *path* names."""
    container = path.suffix[1:]
    if path.name in BROADCAST:
        return make_broadcast(path.parent, path.name, seconds=0.5)
    if container in FORMS:
        return make_picture(path, container, astronaut()[:200])
    if container.startswith("moving-"):
        return make_animation(path, container[7:], plain(20, 90, 160))
    return make_clip(path, codec="vp8" if path.name == "a.webm" else "mpeg4", frames=5)


@pytest.mark.parametrize("name", BROADCAST)
def test_headers_of_broadcast_formats_are_read(tmp_path, name):
    codec, container, _ = BROADCAST[name]
    content = make_any(tmp_path / name).read_bytes()
    check_head(content[:HEAD_BYTES])
    facts = inspect(content)
    assert (facts.kind, facts.container) == ("video", container)
    assert facts.codec == (None if container in ("mpegps", "mxf") else codec)
    if container not in ("mpegps", "mpegts", "mxf"):
        assert (facts.width_px, facts.height_px) == ((176, 144) if codec == "h263" else (256, 144))
        assert facts.duration_s is None or facts.duration_s == pytest.approx(0.5, abs=0.31)


@pytest.mark.parametrize("container", FORMS)
def test_headers_of_images_are_read(tmp_path, container):
    content = make_any(tmp_path / f"a.{container}").read_bytes()
    check_head(content[:HEAD_BYTES])
    codec = {"heic": "hevc", "avif": "av1"}.get(container, container)
    assert inspect(content) == HeaderFacts("image", container, codec, 280, 200)


@pytest.mark.parametrize("container", ANIMATIONS)
def test_an_animation_is_recognised_by_its_header(tmp_path, container):
    facts = inspect(make_any(tmp_path / f"a.moving-{container}").read_bytes())
    assert (facts.kind, facts.container, facts.width_px, facts.height_px) == ("video", container, 64, 48)


@pytest.mark.parametrize("major", [b"avif", b"mif1"])
def test_an_avif_file_with_image_and_sequence_is_refused(tmp_path, major):
    content = make_animation(tmp_path / "a", "avif", plain(20, 90)).read_bytes()
    changed = content[:8] + major + content[12:]
    for other in (changed, changed.replace(b"avis", b"avif")):
        with pytest.raises(UnsupportedMediaError, match="both an AVIF image and a sequence"):
            inspect(other)


@pytest.mark.parametrize("container", ["jpeg", "heic"])
def test_a_motion_photo_is_an_image_to_the_api(tmp_path, container):
    assert inspect(make_motion_photo(tmp_path / "a", container, astronaut()).read_bytes()).kind == "image"


def test_encrypted_windows_media_is_refused(tmp_path):
    content = bytearray(make_any(tmp_path / "wmv2.wmv").read_bytes())
    # Rename the object of the codec list to that of content encryption.
    at = content.index(bytes.fromhex("4052d1861d31d011a3a400a0c90348f6"))
    content[at : at + 16] = bytes.fromhex("fbb3112223bdd211b4b700a0c955fc6e")
    with pytest.raises(UnsupportedCodecError, match="encrypted"):
        inspect(content)


def test_a_raw_image_is_not_mistaken_for_its_thumbnail():
    stream = io.BytesIO()
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[50706] = b"\1\4\0\0"
    Image.fromarray(astronaut()).save(stream, "TIFF", tiffinfo=tags)
    with pytest.raises(UnsupportedMediaError, match="raw image"):
        inspect(stream.getvalue())


@pytest.mark.parametrize("content", [bytes(HEAD_BYTES), b"%PDF-1.7", b"hello, world", b"PK\x03\x04" + bytes(60)])
def test_unknown_first_bytes_are_refused(content):
    with pytest.raises((NotMediaError, UnsupportedMediaError), match="accepted are JPEG"):
        check_head(content)


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
        (b".RMF\0\0\0\x12" + bytes(100), UnsupportedMediaError),
        (b"OggS" + bytes(100), UnsupportedMediaError),
        (b"PK\x03\x04" + bytes(100), UnsupportedMediaError),
        (b"GIF89a", TruncatedError),
        (b"%PDF-1.7" + bytes(100), UnsupportedMediaError),
        (b"ID3\x04" + bytes(100), UnsupportedMediaError),
        (b"RIFF\x24\0\0\0WAVEfmt " + bytes(100), UnsupportedMediaError),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1miaf", UnsupportedMediaError),
        (b"\0\0\0\x18ftypM4A \0\0\0\0isomM4A ", NoVideoStreamError),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp41", TruncatedError),
        (b"\xff\xd8\xff\xe0", TruncatedError),
        (b"\x89PNG\r\n\x1a\n", TruncatedError),
        (b"RIFF\0\0\0\0AVI ", TruncatedError),
        (b"\x1a\x45\xdf\xa3\x80", TruncatedError),
    ],
)
def test_files_that_are_not_accepted_get_distinct_errors(content, error):
    with pytest.raises(error):
        inspect(content)


@pytest.mark.parametrize("name", ["a.avi", "a.mkv", "a.mov"])
def test_an_unsupported_codec_is_named(tmp_path, name):
    with pytest.raises(UnsupportedCodecError, match="FFV1"):
        inspect(make_clip(tmp_path / name, codec="ffv1").read_bytes())


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "aac"), ("a.mkv", "aac"), ("a.avi", "pcm_s16le")])
def test_a_file_with_only_sound_is_refused(tmp_path, name, codec):
    run("-f", "lavfi", "-i", "sine=duration=1", "-c:a", codec, str(tmp_path / name))
    with pytest.raises(NoVideoStreamError):
        inspect((tmp_path / name).read_bytes())


@pytest.mark.parametrize(
    "name",
    [
        *("a.mp4", "a.mkv", "a.webm", "a.avi", "h264.ts", "h264.flv", "wmv2.wmv"),
        *(f"a.{name}" for name in FORMS),
        *(f"a.moving-{name}" for name in ANIMATIONS),
    ],
)
def test_hostile_bytes_give_facts_or_a_documented_error_in_bounded_time(tmp_path, name):
    path = make_any(tmp_path / name)
    original = path.read_bytes()
    generator = np.random.default_rng(5)
    outcomes = set()
    for _ in range(300):
        content = bytearray(original[: int(generator.integers(1, len(original) + 1))])
        for _ in range(int(generator.integers(0, 40))):
            # Changes matter most at the beginning, where headers are.
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


def test_endless_boxes_are_refused():
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
def test_errors_name_the_limit(facts, error, named):
    with pytest.raises(error, match=named):
        check_limits(HeaderFacts("video", "mp4", **facts), LIMITS)


def test_still_images_have_a_separate_pixel_limit():
    limits = replace(LIMITS, max_image_pixels=200)
    check_limits(HeaderFacts("image", "png", "png", 20, 10), limits)
    with pytest.raises(TooManyPixelsError, match="max_image_pixels is 200"):
        check_limits(HeaderFacts("image", "png", "png", 21, 10), limits)


def test_values_within_limits_and_unknown_values_pass():
    check_limits(HeaderFacts("video", "mp4"), LIMITS)
    check_limits(HeaderFacts("video", "mp4", "h264", 10, 10, 10.0, 30.0), LIMITS)
    check_size(1000, LIMITS)
    with pytest.raises(TooLargeError, match="max_upload_bytes is 1000"):
        check_size(1001, LIMITS)


def test_the_default_video_track_is_inspected(tmp_path):
    for side in (64, 96):
        make_clip(tmp_path / f"{side}.mp4", size=(side, side))
    for name in ("a.mp4", "a.mkv"):
        two = ("-i", str(tmp_path / "64.mp4"), "-i", str(tmp_path / "96.mp4"), "-map", "0", "-map", "1")
        run(*two, "-c", "copy", "-disposition:v:0", "0", "-disposition:v:1", "default", str(tmp_path / name))
        assert inspect((tmp_path / name).read_bytes()).width_px == 96


def test_the_duration_excludes_what_an_edit_list_hides(tmp_path):
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
def test_errors_name_codecs_that_are_not_accepted(tmp_path, name, options, called):
    source = ("-f", "lavfi", "-i", "testsrc2=size=64x64:rate=5:duration=0.4")
    run(*source, "-pix_fmt", "yuvj420p", *options, str(tmp_path / name))
    with pytest.raises(UnsupportedCodecError) as raised:
        inspect((tmp_path / name).read_bytes())
    assert str(raised.value).startswith(f"the video codec {called} is not supported; supported are H.264")
