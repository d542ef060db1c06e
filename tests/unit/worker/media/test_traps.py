"""Malicious files, through the inspection of API and worker: they exhaust resources, mislead, or refer elsewhere."""

import io
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from shared.config import Limits
from shared.containers import check_limits, inspect_header
from shared.errors import DeepfakeStreamError
from tests.clips import astronaut, make_clip, run
from worker.detection.mtcnn import MTCNN
from worker.media.frames import read_frames
from worker.media.probe import probe
from worker.media.segments import plan_segments
from worker.pipeline.detector import MAX_FACES_PER_FRAME

LIMITS = Limits(max_pixels=4096 * 4096).for_media()
PATIENCE_S = 60.0
"""Far more than any of these files takes, and far less than a successful attack would."""


def answer(path):
    """Return ``frames`` and their number, or the error code of API or worker."""
    began = time.monotonic()
    try:
        with path.open("rb") as stream:
            check_limits(inspect_header(stream, path.stat().st_size), LIMITS)
        facts = probe(path, LIMITS, timeout_s=30)
        frames = 0
        for part in plan_segments(facts.duration_s, 5.0, first_s=facts.first_s)[:3]:
            read = read_frames(path, facts, start_s=part.start_s, end_s=part.end_s, sample_fps=2.0, timeout_s=30)
            frames += sum(1 for _ in read)
    except DeepfakeStreamError as error:
        return error.code
    finally:
        assert time.monotonic() - began < PATIENCE_S
    return f"frames: {frames}"


def png(width, height, rows):
    """Make a grey PNG that claims *width* × *height* pixels and contains *rows* rows."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    row = bytes(1 + width)
    data = b"".join(packer.compress(row) for _ in range(rows)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def tiff(width, height):
    picture = io.BytesIO()
    Image.new("L", (64, 64)).save(picture, "TIFF")
    content = bytearray(picture.getvalue())
    for tag, value in ((256, width), (257, height)):
        at = content.find(struct.pack("<HH", tag, 4))
        at = at if at >= 0 else content.find(struct.pack("<HH", tag, 3))
        content[at : at + 12] = struct.pack("<HHII", tag, 4, 1, value)
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (png(1, 1, 1), "frames: 1"),
        (png(65535, 1, 1), "frames: 1"),
        (png(1, 16384, 16384), "frames: 1"),
        (png(65535, 65535, 10), "too_many_pixels"),
        # A decompression bomb: 30 kB that unpack to 900 MB.
        (png(30000, 30000, 2000), "too_many_pixels"),
        (png(4096, 4096, 4096), "frames: 1"),
        # Pillow leaves missing pixels black.
        (png(4096, 4096, 3), "frames: 1"),
        (tiff(2**31 - 1, 2**31 - 1), "too_many_pixels"),
        (tiff(4000, 4000), "truncated"),
    ],
    ids=["1 px", "65535 wide", "16384 high", "65535 px", "bomb", "all allowed", "short", "tiff bomb", "short tiff"],
)
def test_pictures_of_all_sizes(tmp_path, content, wanted):
    path = tmp_path / "file"
    path.write_bytes(content)
    assert answer(path) == wanted


def test_an_absurd_frame_rate(tmp_path):
    assert answer(make_clip(tmp_path / "a.mp4", fps=1000.0, frames=60)) == "frame_rate_too_high"


def test_many_streams(tmp_path):
    clip = make_clip(tmp_path / "one.mp4", seconds=0.5)
    run("-i", str(clip), *["-map", "0:v"] * 120, "-c", "copy", str(tmp_path / "many.mkv"))
    assert answer(tmp_path / "many.mkv") == "frames: 1"


@pytest.mark.parametrize("duration", [float("nan"), float("inf"), -1.0, 1e300, 0.0])
def test_a_duration_that_is_not_a_number(tmp_path, duration):
    """Matroska stores the duration as a float; only the packets count."""
    path = make_clip(tmp_path / "a.mkv", seconds=1.0)
    content = bytearray(path.read_bytes())
    at = content.find(b"\x44\x89\x88")
    assert at > 0
    content[at + 3 : at + 11] = struct.pack(">d", duration)
    path.write_bytes(content)
    assert answer(path) in {"frames: 2", "too_long", "truncated"}


@pytest.mark.parametrize("value", [0, 1, 2**31 - 1, 2**32 - 1])
def test_a_header_with_a_false_duration(tmp_path, value):
    path = make_clip(tmp_path / "a.mp4", seconds=1.0)
    content = bytearray(path.read_bytes())
    for box in (b"mvhd", b"mdhd"):
        at = content.find(box)
        content[at + 20 : at + 24] = struct.pack(">I", value)
    path.write_bytes(content)
    assert answer(path) in {"frames: 2", "too_long", "frame_rate_too_high"}


def test_timestamps_that_jump(tmp_path):
    """Frames at 0 s, 0.1 s and then a day later."""
    clip = make_clip(tmp_path / "a.mp4", seconds=1.0)
    path = tmp_path / "b.mkv"
    run("-i", str(clip), "-c", "copy", "-bsf:v", "setts=ts=if(gt(N\\,4)\\,PTS+86400/TB\\,PTS)", str(path))
    assert answer(path) == "too_long"


def test_a_track_that_refers_to_another_file(tmp_path):
    """QuickTime may refer to another file with the samples; such references are not followed."""
    make_clip(tmp_path / "secret.mov", seconds=1.0)
    path = make_clip(tmp_path / "a.mov", seconds=1.0)
    content = path.read_bytes()
    at = content.find(b"dref")
    length = struct.unpack(">I", content[at - 4 : at])[0]
    address = f"file://{tmp_path}/secret.mov\0".encode()
    entry = struct.pack(">I4sI", 12 + len(address), b"url ", 0) + address
    # The lengths of the enclosing boxes are wrong now, which may go unnoticed; but no other file may be read.
    box = struct.pack(">I4sII", 16 + len(entry), b"dref", 0, 1) + entry
    path.write_bytes(content[: at - 4] + box + content[at - 4 + length :])
    (tmp_path / "secret.mov").unlink()
    first = answer(path)
    make_clip(tmp_path / "secret.mov", seconds=3.0)
    assert answer(path) == first


def test_thousands_of_faces_are_bounded():
    face = np.asarray(Image.fromarray(astronaut()[20:220, 60:260]).resize((64, 64)))
    frame = np.tile(face, (36, 36, 1))
    began = time.monotonic()
    (faces,) = MTCNN(min_face_px=40).detect([frame])
    assert time.monotonic() - began < PATIENCE_S
    assert len(faces) > 500
    assert MAX_FACES_PER_FRAME < 500
