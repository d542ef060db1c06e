"""Every picture of a file is analysed, in all formats, or the file is not judged real."""

import ast
import io
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from shared.config import Limits
from shared.containers import HeaderFacts
from shared.containers.iso import iso_boxes
from shared.containers.reader import HeaderReader
from shared.errors import (
    DecodeError,
    DecodeTimeoutError,
    FrameRateTooHighError,
    TooLargeError,
    TooLongError,
    TooManyPixelsError,
    TruncatedError,
    UnsupportedMediaError,
)
from tests.clips import make_clip, run, scene
from tests.pictures import (
    ANIMATIONS,
    FORMS,
    encoded,
    make_animation,
    make_motion_photo,
    make_pages,
    make_picture,
    plain,
)
from worker.media import images, jxl, picture
from worker.media.frames import read_frames, read_segments
from worker.media.probe import probe
from worker.media.segments import plan_segments

LIMITS = Limits().for_media()


def look(path, *, sample_fps=2.0, segment_seconds=5.0):
    """Return the facts of a file, and (time, mean grey) of each frame of each segment."""
    facts = probe(path, LIMITS)
    plan = plan_segments(facts.duration_s, segment_seconds, first_s=facts.first_s, pictures=facts.frame_count)
    segments, frames = [], []
    for frame in read_segments(path, facts, plan, sample_fps=sample_fps, timeout_s=30):
        if frame is None:
            segments.append(frames)
            frames = []
        else:
            frames.append((frame.time_s, round(float(frame.pixels.mean()))))
    return facts, segments


def near(segments, wanted):
    """Compare times exactly, and greys as closely as lossy formats keep them."""
    assert [[time for time, _ in part] for part in segments] == [[time for time, _ in part] for part in wanted]
    for got, meant in zip(segments, wanted, strict=True):
        assert [grey for _, grey in got] == pytest.approx([grey for _, grey in meant], abs=3)


@pytest.mark.parametrize("container", ANIMATIONS)
def test_an_animation_is_a_video_of_which_every_picture_is_decoded(tmp_path, container):
    path = make_animation(tmp_path / "a", container, plain(20, 90, 160, 230), [500, 1000, 250, 250])
    facts, segments = look(path)
    assert (facts.kind, facts.container, facts.frame_count) == ("video", container, 4)
    assert (facts.width_px, facts.height_px, facts.duration_s, facts.truncated) == (64, 48, 2.0, False)
    assert facts.frame_rate == 2.0
    near(segments, [[(0.0, 20), (0.5, 90), (1.5, 160), (1.75, 230)]])


@pytest.mark.parametrize("container", ANIMATIONS)
def test_a_single_picture_in_an_animation_format_is_an_image(tmp_path, container):
    facts, segments = look(make_picture(tmp_path / "a", container, plain(90)[0]))
    assert (facts.kind, facts.frame_count, facts.duration_s) == ("image", 1, None)
    near(segments, [[(0.0, 90)]])


@pytest.mark.parametrize("container", ["gif", "png", "webp"])
def test_pictures_without_duration_last_as_long_as_in_browsers(tmp_path, container):
    path = make_animation(tmp_path / "a", container, plain(20, 90, 160), [0, 10, 0])
    facts, segments = look(path)
    assert facts.duration_s == 0.3
    near(segments, [[(0.0, 20), (0.1, 90), (0.2, 160)]])


@pytest.mark.parametrize("container", ["gif", "webp"])
def test_a_long_animation_is_sampled_like_a_video(tmp_path, container):
    """60 pictures of 0.2 s, two a second, in segments of 5 s."""
    path = make_animation(tmp_path / "a", container, plain(*range(0, 240, 4)), 200)
    facts, segments = look(path)
    assert (facts.duration_s, len(segments)) == (12.0, 2)
    assert [time for time, _ in segments[0]] == [0.0, 0.6, 1.0, 1.6, 2.0, 2.6, 3.0, 3.6, 4.0, 4.6]
    assert segments[1][0] == (5.0, 100)
    assert sum(map(len, segments)) == 24


def test_a_picture_that_outlasts_a_segment_is_decoded_in_the_next_one_too(tmp_path):
    path = make_animation(tmp_path / "a", "gif", plain(20, 90, 160), [11_000, 2_000, 1_000])
    near(look(path)[1], [[(0.0, 20)], [(5.0, 20)], [(11.0, 90), (13.0, 160)]])


def test_the_fallback_picture_of_an_animation_is_decoded(tmp_path):
    first, *others = [Image.fromarray(pixels) for pixels in plain(20, 90, 160)]
    path = tmp_path / "a"
    path.write_bytes(encoded(first, "PNG", save_all=True, append_images=others, default_image=True, duration=500))
    facts, segments = look(path)
    assert facts.frame_count == 3
    assert [grey for _, grey in segments[0]] == [20, 90, 160]


@pytest.mark.parametrize(("container", "share"), [("gif", 0.6), ("png", 0.6), ("gif", 0.999)])
def test_an_animation_without_its_end_is_truncated(tmp_path, container, share):
    path = make_animation(tmp_path / "a", container, [scene(number, size=(160, 120)) for number in range(6)])
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    facts, segments = look(path)
    assert facts.truncated
    assert 0 < len(segments[0]) <= 6


def test_an_animation_is_held_to_the_limits_of_videos(tmp_path):
    path = make_animation(tmp_path / "a", "gif", plain(20, 90), [400_000, 400_000])
    with pytest.raises(TooLongError, match="max_duration_s is 600"):
        probe(path, replace(LIMITS, max_duration_s=600.0))
    with pytest.raises(TooManyPixelsError, match="the limit max_pixels is 3071"):
        probe(path, replace(LIMITS, max_pixels=64 * 48 - 1))
    quick = make_animation(tmp_path / "b", "webp", plain(20, 90, 160), 20)
    with pytest.raises(FrameRateTooHighError):
        probe(quick, replace(LIMITS, max_frame_rate=30.0))


@pytest.mark.parametrize("container", ["tiff", "heic"])
def test_each_page_is_a_segment_whose_time_is_its_number(tmp_path, container):
    path = make_pages(tmp_path / "a", container, plain(20, 90, 160))
    facts, segments = look(path)
    assert (facts.kind, facts.frame_count, facts.duration_s) == ("image", 3, None)
    near(segments, [[(0.0, 20)], [(1.0, 90)], [(2.0, 160)]])


def test_pages_may_differ_in_size_and_each_is_limited(tmp_path):
    path = make_pages(tmp_path / "a", "tiff", [*plain(20), *plain(90, size=(100, 200))])
    facts = probe(path, LIMITS)
    [frame] = read_frames(path, facts, start_s=1.0, end_s=1.0, sample_fps=1.0, timeout_s=30)
    assert frame.pixels.shape == (200, 100, 3)
    with pytest.raises(TooManyPixelsError, match="100 × 200 = 20000 pixels; the limit max_image_pixels is 5000"):
        probe(path, replace(LIMITS, max_image_pixels=5000))


def test_too_many_pages_are_refused(tmp_path):
    path = make_pages(tmp_path / "a", "tiff", plain(*[7] * 1001, size=(2, 2)))
    with pytest.raises(TooLongError, match="more than 1000 pictures"):
        probe(path, LIMITS)


def test_a_page_is_read_without_later_pages(tmp_path, monkeypatch):
    path = make_pages(tmp_path / "a", "tiff", plain(*[7] * 40, size=(2, 2)))
    set_up, pages = TiffImagePlugin.TiffImageFile._setup, []
    monkeypatch.setattr(TiffImagePlugin.TiffImageFile, "_setup", lambda page: [pages.append(0), set_up(page)][1])
    [(line, _)] = picture.picture(str(path), 2, images.WORK_PIXELS)
    assert (line["width_px"], len(pages)) == (2, 2)
    with pytest.raises(picture.PictureError, match="no picture 40"):
        list(picture.picture(str(path), 40, images.WORK_PIXELS))


def mpo(second, kind=0x020002):
    """Make a JPEG file with two pictures, the second of that *kind*."""
    first = Image.fromarray(plain(20)[0])
    content = bytearray(encoded(first, "MPO", save_all=True, append_images=[first]))
    at = content.rindex(b"\xff\xd8\xff")
    entry = content.index(struct.pack("<I", 0x030000), content.index(b"0100")) + 16
    content[entry : entry + 4] = struct.pack("<I", kind)
    return bytes(content[:at]) + second


def test_the_second_picture_of_a_jpeg_is_decoded(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(mpo(encoded(Image.fromarray(plain(160)[0]), "JPEG")))
    near(look(path)[1], [[(0.0, 20)], [(1.0, 160)]])


@pytest.mark.parametrize("mark", [b"hdrgm:Version", b"urn:iso:std:iso:ts:21496:-1\0"])
def test_a_gain_map_is_not_decoded(tmp_path, mark):
    path = tmp_path / "a"
    path.write_bytes(mpo(encoded(Image.fromarray(plain(160)[0]), "JPEG", comment=mark), 0))
    near(look(path)[1], [[(0.0, 20)]])


def test_previews_and_truncated_pictures_are_not_decoded(tmp_path):
    preview, cut = tmp_path / "preview", tmp_path / "cut"
    preview.write_bytes(mpo(encoded(Image.fromarray(plain(160)[0]), "JPEG"), 0x010002))
    cut.write_bytes(mpo(b""))
    for path in (preview, cut):
        near(look(path)[1], [[(0.0, 20)]])


@pytest.mark.parametrize(("container", "codec"), [("jpeg", "h264"), ("heic", "hevc")])
def test_the_video_of_a_motion_photo_is_decoded(tmp_path, container, codec):
    facts, segments = look(make_motion_photo(tmp_path / "a", container, plain(20)[0], codec))
    assert (facts.kind, facts.frame_count) == ("image", 2)
    near(segments[:1], [[(0.0, 20)]])
    assert [time for time, _ in segments[1]] == [1.0, 1.5]
    assert segments[1][0][1] == pytest.approx(scene(0, size=(160, 120)).mean(), abs=5)


@pytest.mark.parametrize("damage", ["end", "frames"])
def test_a_damaged_video_of_a_motion_photo_fails_its_segment(tmp_path, damage):
    path = make_motion_photo(tmp_path / "a", "jpeg", plain(20)[0])
    content = bytearray(path.read_bytes())
    if damage == "end":
        del content[-len(content) // 4 :]
    else:
        at = content.index(b"mdat") + 4
        content[at : at + 3000] = bytes(3000)
    path.write_bytes(content)
    facts = probe(path, LIMITS)
    assert facts.frame_count == 2
    with pytest.raises(TruncatedError):
        list(read_frames(path, facts, start_s=1.0, end_s=1.0, sample_fps=2.0, timeout_s=30))


@pytest.mark.parametrize("kind", [b"pdin", b"prft", b"beam", b" \x7e0A"])
def test_the_video_of_a_motion_photo_is_found_in_any_box(tmp_path, kind):
    path = make_motion_photo(tmp_path / "a", "jpeg", plain(20)[0])
    content = path.read_bytes()
    at = content.index(b"\0\0\0\x08free", content.index(b"ftyp")) + 4
    path.write_bytes(content[:at] + kind + content[at + 4 :])
    facts, segments = look(path)
    assert facts.frame_count == 2
    assert [time for time, _ in segments[1]] == [1.0, 1.5]


@pytest.mark.parametrize("is_within", [False, True])
def test_every_video_of_a_motion_photo_is_decoded(tmp_path, is_within):
    path = make_motion_photo(tmp_path / "a", "jpeg", plain(20)[0])
    photo = path.read_bytes()
    second = make_clip(tmp_path / "second.mp4", size=(64, 48), seconds=0.5).read_bytes()
    path.write_bytes(photo + (box(b"free", second) if is_within else b"\0XXXX" + second))
    facts, segments = look(path)
    assert facts.frame_count == 3
    assert [[time for time, _ in part] for part in segments] == [[0.0], [1.0, 1.5], [2.0]]
    assert segments[2][0][1] == pytest.approx(scene(0, size=(64, 48)).mean(), abs=5)


def test_a_motion_photo_with_too_many_videos_is_refused(tmp_path):
    path = make_picture(tmp_path / "a", "jpeg", plain(20)[0])
    path.write_bytes(path.read_bytes() + 1000 * (box(b"ftyp", b"isom\0\0\0\0") + box(b"moov")))
    with pytest.raises(TooLongError, match="more than 1000 pictures"):
        probe(path, LIMITS)


def test_a_second_track_in_the_video_of_a_motion_photo_fails_its_segment(tmp_path):
    path = make_picture(tmp_path / "a", "jpeg", plain(20)[0])
    clip, two = make_clip(tmp_path / "clip.mp4", size=(64, 48), seconds=0.5), tmp_path / "two.mp4"
    run("-i", str(clip), "-i", str(clip), "-map", "0:v", "-map", "1:v", "-c", "copy", str(two))
    path.write_bytes(path.read_bytes() + two.read_bytes())
    facts = probe(path, LIMITS)
    with pytest.raises(UnsupportedMediaError, match="has 2 video tracks"):
        list(read_frames(path, facts, start_s=1.0, end_s=1.0, sample_fps=2.0, timeout_s=30))


def test_a_video_larger_than_a_motion_photo_s_is_not_copied(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MAX_CLIP_BYTES", 1000)
    path = make_motion_photo(tmp_path / "a", "jpeg", plain(20)[0])
    facts = probe(path, LIMITS)
    with pytest.raises(TooLargeError, match="at most 1000 are read"):
        list(read_frames(path, facts, start_s=1.0, end_s=1.0, sample_fps=2.0, timeout_s=30))


def test_the_video_of_a_motion_photo_is_held_to_the_limits(tmp_path):
    path = make_motion_photo(tmp_path / "a", "jpeg", plain(20)[0])
    facts = probe(path, LIMITS)
    plan = plan_segments(None, 5.0, pictures=facts.frame_count)
    limits = replace(LIMITS, max_pixels=160 * 120 - 1)
    with pytest.raises(TooManyPixelsError, match="the limit max_pixels is 19199"):
        list(read_segments(path, facts, plan, sample_fps=2.0, timeout_s=30, limits=limits))


@pytest.mark.parametrize("container", ["heic", "avif"])
def test_a_picture_in_place_of_a_motion_photo_s_video_is_decoded(tmp_path, container):
    path = make_picture(tmp_path / "a", "jpeg", plain(20)[0])
    photo = path.read_bytes()
    path.write_bytes(photo + make_picture(tmp_path / "b", container, plain(160)[0]).read_bytes())
    near(look(path)[1], [[(0.0, 20)], [(1.0, 160)]])
    if container == "avif":
        moving = make_animation(tmp_path / "b", container, plain(20, 90), 500)
        path.write_bytes(photo + moving.read_bytes())
        near(look(path)[1], [[(0.0, 20)], [(1.0, 20), (1.5, 90)]])
    else:
        path.write_bytes(photo + make_pages(tmp_path / "b", container, plain(20, 90)).read_bytes())
        facts = probe(path, LIMITS)
        with pytest.raises(UnsupportedMediaError, match="another file with 2 pictures"):
            list(read_frames(path, facts, start_s=1.0, end_s=1.0, sample_fps=2.0, timeout_s=30))


def test_the_letters_of_a_file_type_alone_are_not_a_video(tmp_path):
    path = make_picture(tmp_path / "a", "jpeg", plain(20)[0])
    path.write_bytes(path.read_bytes() + b"\0\0\0\x18ftypisom" + bytes(200))
    assert probe(path, LIMITS).frame_count == 1


@pytest.mark.parametrize("container", FORMS)
def test_large_pictures_are_scaled_down_and_their_full_size_is_kept(tmp_path, container, monkeypatch):
    monkeypatch.setattr(images, "WORK_PIXELS", 61 * 41)
    path = make_picture(tmp_path / "a", container, np.asarray(Image.fromarray(scene(0)).resize((121, 81))))
    facts = probe(path, LIMITS)
    assert (facts.width_px, facts.height_px) == (121, 81)
    [frame] = read_frames(path, facts, start_s=0.0, end_s=0.0, sample_fps=1.0, timeout_s=30)
    assert frame.pixels.shape in {(41, 61, 3), (40, 60, 3)}
    assert frame.scale == (121 / frame.pixels.shape[1], 81 / frame.pixels.shape[0])
    alike = Image.fromarray(scene(0)).resize(frame.pixels.shape[1::-1], Image.Resampling.BOX)
    assert np.abs(frame.pixels.astype(int) - np.asarray(alike).astype(int)).mean() < 12


@pytest.mark.parametrize("container", ["jpeg", "png", "webp", "tiff", "avif"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 7])
def test_a_large_picture_is_turned_upright(tmp_path, container, orientation, monkeypatch):
    monkeypatch.setattr(images, "WORK_PIXELS", 2000)
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[:32, :48] = 250  # The position of this quarter shows how the picture was turned.
    marks = Image.Exif()
    marks[0x0112] = orientation
    path = tmp_path / "a"
    path.write_bytes(encoded(Image.fromarray(pixels), FORMS[container], exif=marks))
    facts = probe(path, LIMITS)
    [frame] = read_frames(path, facts, start_s=0.0, end_s=0.0, sample_fps=1.0, timeout_s=30)
    turned = orientation > 4
    assert (facts.width_px, facts.height_px) == ((64, 96) if turned else (96, 64))
    assert frame.pixels.shape[:2] == ((48, 32) if turned else (32, 48))
    quarters = frame.pixels[:: frame.pixels.shape[0] - 1, :: frame.pixels.shape[1] - 1, 0] > 125
    [[row, column]] = np.argwhere(quarters)
    assert (row, column) == {1: (0, 0), 3: (1, 1), 6: (0, 1), 7: (1, 1)}[orientation]


def test_100_megapixels_are_accepted_and_200_are_refused(tmp_path):
    path = tmp_path / "a"
    Image.new("RGB", (12000, 9000), (90, 120, 150)).save(path, "JPEG")
    facts = probe(path, LIMITS)
    assert (facts.width_px, facts.height_px) == (12000, 9000)
    [frame] = read_frames(path, facts, start_s=0.0, end_s=0.0, sample_fps=1.0, timeout_s=30)
    assert (frame.pixels.shape, frame.scale) == ((4500, 6000, 3), (2.0, 2.0))
    content = bytearray(path.read_bytes())
    at = content.index(b"\xff\xc0")
    content[at + 5 : at + 9] = struct.pack(">HH", 12240, 16320)
    path.write_bytes(content)
    with pytest.raises(TooManyPixelsError, match="max_image_pixels is 110000000"):
        probe(path, LIMITS)


def floats(**options):
    return encoded(Image.fromarray(np.linspace(0, 1, 64 * 48, dtype=np.float32).reshape(48, 64)), "TIFF", **options)


def test_a_floating_point_tiff_is_refused_as_such(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(floats())
    with pytest.raises(UnsupportedMediaError, match="floating-point numbers"):
        probe(path, LIMITS)
    one = Image.fromarray(plain(20)[0])
    path.write_bytes(encoded(one, "TIFF", save_all=True, append_images=[Image.open(io.BytesIO(floats()))]))
    facts = probe(path, LIMITS)
    with pytest.raises(UnsupportedMediaError, match="floating-point samples"):
        list(read_frames(path, facts, start_s=1.0, end_s=1.0, sample_fps=1.0, timeout_s=30))


def test_an_unsupported_tiff_is_not_reported_as_damaged(tmp_path):
    content = bytearray(encoded(Image.fromarray(plain(20)[0]), "TIFF"))
    at = content.index(struct.pack("<HH", 262, 3)) + 8
    content[at : at + 2] = struct.pack("<H", 32845)  # LogLuv
    path = tmp_path / "a"
    path.write_bytes(content)
    with pytest.raises(UnsupportedMediaError, match=r"64 × 48, samples of 8/8/8 bits, .* interpretation 32845"):
        probe(path, LIMITS)


def test_transparency_is_blended_onto_white(tmp_path):
    pixels = np.zeros((48, 64, 4), np.uint8)
    pixels[:24, :, 3] = 255
    for container in ("png", "webp", "tiff", "jxl"):
        path = make_picture(tmp_path / container, container, pixels)
        facts = probe(path, LIMITS)
        [frame] = read_frames(path, facts, start_s=0.0, end_s=0.0, sample_fps=1.0, timeout_s=30)
        assert (frame.pixels[10, 10].max(), frame.pixels[40, 10].min()) == (0, 255), container


def test_damaged_and_animated_jpeg_xl_is_refused(tmp_path):
    path = make_picture(tmp_path / "a", "jxl")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 3])
    with pytest.raises(TruncatedError):
        probe(path, LIMITS)
    make_clip(tmp_path / "b.mp4", frames=3)
    run("-i", str(tmp_path / "b.mp4"), "-f", "image2pipe", "-c:v", "libjxl_anim", str(tmp_path / "b"))
    with pytest.raises(UnsupportedMediaError, match="animated JPEG XL"):
        probe(tmp_path / "b", LIMITS)
    codestream = codestream_of((tmp_path / "b").read_bytes())
    for first in (0, 1, 2, 3, 4, 20):
        (tmp_path / "c").write_bytes(in_parts(codestream, first))
        with pytest.raises(UnsupportedMediaError, match="animated JPEG XL"):
            probe(tmp_path / "c", LIMITS)


def test_a_slow_jpeg_xl_decoder_times_out(tmp_path):
    path = make_picture(tmp_path / "a", "jxl")
    with pytest.raises(DecodeTimeoutError):
        jxl.read(path, images.WORK_PIXELS, timeout_s=0.001)


def box(kind, content=b""):
    return struct.pack(">I4s", 8 + len(content), kind) + content


def codestream_of(content):
    """Return the codestream of a JPEG XL file, with or without boxes."""
    if content.startswith(b"\xff\x0a"):
        return content
    stream = io.BytesIO(content)
    found = {
        kind: content[start:end] for kind, start, end in iso_boxes(HeaderReader(stream, len(content)), 0, len(content))
    }
    return found[b"jxlc"] if b"jxlc" in found else found[b"jxlp"][4:]


def in_parts(codestream, first):
    """Make a JPEG XL file whose codestream is split into two boxes, the first with its *first* bytes."""
    begin = b"\0\0\0\x0cJXL \r\n\x87\n" + box(b"ftyp", b"jxl \0\0\0\0jxl ")
    parts = ((0, codestream[:first]), (0x80000001, codestream[first:]))
    return begin + b"".join(box(b"jxlp", struct.pack(">I", number) + part) for number, part in parts)


@pytest.mark.parametrize("first", [2, 3, 11])
def test_a_jpeg_xl_in_parts_is_read(tmp_path, first):
    path = make_picture(tmp_path / "a", "jxl", plain(90)[0])
    path.write_bytes(in_parts(codestream_of(path.read_bytes()), first))
    facts, segments = look(path)
    assert (facts.width_px, facts.height_px) == (64, 48)
    near(segments, [[(0.0, 90)]])


def test_a_jpeg_xl_with_a_wrong_size_in_its_header_is_not_read(tmp_path, monkeypatch):
    path = make_picture(tmp_path / "a", "jxl", plain(90)[0])
    monkeypatch.setattr(jxl, "inspect_header", lambda *_: HeaderFacts("image", "jxl", "jxl", 32, 48))
    with pytest.raises(TruncatedError, match="announces 32 × 48 pixels, and 64 × 48 are decoded"):
        jxl.read(path, images.WORK_PIXELS, timeout_s=20)


def test_an_ffmpeg_without_jpeg_xl_is_reported(tmp_path, monkeypatch):
    path = make_picture(tmp_path / "a", "jxl")
    monkeypatch.setattr("worker.media.ffmpeg.DECODERS", "h264")
    monkeypatch.setitem(jxl.open_input.__globals__["DEMUXERS"], "jxl", "no_such_demuxer")
    with pytest.raises(UnsupportedMediaError, match="built without libjxl"):
        probe(path, LIMITS)


def test_a_heic_sequence_is_refused(tmp_path):
    clip = make_clip(tmp_path / "a.mp4", codec="hevc", frames=3).read_bytes()
    path = tmp_path / "a"
    path.write_bytes(clip.replace(b"ftypisom", b"ftyphevc", 1))
    with pytest.raises(UnsupportedMediaError, match="HEIC sequence"):
        probe(path, LIMITS)


def test_a_crashed_image_decoder_is_reported(tmp_path, monkeypatch):
    script = tmp_path / "script.py"
    script.write_text("import os; os.abort()")
    monkeypatch.setattr(images, "SCRIPT", script)
    with pytest.raises(DecodeError, match="ended with status -6"):
        probe(make_picture(tmp_path / "a", "png"), LIMITS)


def test_every_code_that_the_decoder_reports_has_an_error():
    folder = Path(images.__file__).parent
    calls = [
        (node.func.id, node)
        for path in folder.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]
    reported = [call.args[0] for name, call in calls if name == "PictureError"]
    reported += [call.args[1] for name, call in calls if name == "write_error"]
    codes = {code.value for code in reported if isinstance(code, ast.Constant)}
    assert codes == set(images._ERRORS_BY_CODE) - {"not_media"}


def test_an_unknown_code_of_the_decoder_is_a_decode_error(tmp_path, monkeypatch):
    script = tmp_path / "picture.py"
    script.write_text("""print('{"error": "odd", "detail": "a sentence"}')""")
    monkeypatch.setattr(images, "SCRIPT", script)
    with pytest.raises(DecodeError, match="unknown code 'odd'"):
        images.probe_image(script, "png", LIMITS, timeout_s=20.0)
