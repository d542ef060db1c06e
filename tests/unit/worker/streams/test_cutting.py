"""Pieces, decoded one by one, are the stream: no picture is missing, none is there twice."""

import random
import subprocess
from itertools import chain, pairwise

import pytest

from shared.errors import DeepfakeStreamError, TooManyPixelsError, UnsupportedMediaError
from worker.media.ffmpeg import find_ffmpeg
from worker.streams.commands import read_from_pipe
from worker.streams.cutting import Cutter
from worker.streams.matroska import Packet, Parser, Track, write_file
from worker.streams.values import StreamLimits

TRACK = Track(codec="vp8", codec_id="V_VP8", private=b"", width_px=64, height_px=48)


def make_stream(seconds=6, size="160x96", gop=25, extra=("-bf", "3"), codec="libx264"):
    """A transport stream of numbered pictures, 25 a second."""
    command = [find_ffmpeg(), "-v", "error", "-f", "lavfi", "-i", f"testsrc2=s={size}:r=25:d={seconds}", "-c:v", codec]
    quick = ["-preset", "ultrafast"] if codec.startswith("libx26") else []
    command += [*quick, "-g", str(gop), *extra, "-f", "mpegts", "pipe:1"]
    return subprocess.run(command, capture_output=True, check=True).stdout


def remux(stream):
    return subprocess.run(read_from_pipe("mpegts"), input=stream, capture_output=True, check=True).stdout


def decode(data, container="matroska"):
    """Time in ms and digest of each picture of *data*."""
    command = [find_ffmpeg(), "-v", "error", "-f", container, "-i", "pipe:0", "-fps_mode", "passthrough"]
    command += ["-enc_time_base", "1/1000", "-f", "framemd5", "pipe:1"]
    done = subprocess.run(command, input=data, capture_output=True, check=True)
    rows = [row.split(",") for row in done.stdout.decode().splitlines() if not row.startswith("#")]
    return [(int(row[2]), row[-1].strip()) for row in rows]


def own_pictures(piece):
    begin, end = piece.lead_s * 1000 - 0.5, (piece.lead_s + piece.end_s - piece.start_s) * 1000 - 0.5
    return [digest for time_ms, digest in decode(piece.data) if begin <= time_ms < end]


def cut(data, segment_s=1.5, limits=StreamLimits(), block=997):  # noqa: B008 - it is frozen
    parser, cutter, pieces = Parser(limits.max_picture_bytes), Cutter(segment_s, limits), []
    for start in range(0, len(data), block):
        for event in parser.feed(data[start : start + block]):
            pieces += cutter.start(event) if isinstance(event, Track) else cutter.add(event)
    return [*pieces, *cutter.finish()], cutter


@pytest.mark.parametrize(
    ("codec", "extra"),
    [
        pytest.param("libx264", ("-bf", "0"), id="no-b-frames"),
        pytest.param("libx264", ("-bf", "3"), id="b-frames"),
        pytest.param("libx264", ("-bf", "3", "-x264-params", "open-gop=1:b-pyramid=normal"), id="open-gop"),
        pytest.param("libx265", ("-x265-params", "log-level=error:bframes=3"), id="hevc"),
        pytest.param("mpeg2video", ("-bf", "2", "-q:v", "3"), id="mpeg2"),
    ],
)
def test_pieces_join_without_loss_or_overlap(codec, extra):
    stream = make_stream(codec=codec, extra=extra)
    pieces, cutter = cut(remux(stream))
    assert [digest for piece in pieces for digest in own_pictures(piece)] == [d for _, d in decode(stream, "mpegts")]
    assert len(pieces) == 4
    assert cutter.left_out == 0
    assert all(before.end_s == after.start_s for before, after in pairwise(pieces))
    assert pieces[0].start_s == 0.0
    assert pieces[-1].end_s == pytest.approx(6.0, abs=0.01)
    assert not any(piece.is_discontinuous for piece in pieces)


def test_a_change_of_size_begins_a_discontinuous_piece_of_that_size():
    pieces, _ = cut(remux(make_stream(2) + make_stream(2, size="192x112")), segment_s=10)
    assert [(piece.width_px, piece.height_px, piece.is_discontinuous) for piece in pieces] == [
        (160, 96, False),
        (192, 112, True),
    ]
    assert [len(own_pictures(piece)) for piece in pieces] == [50, 50]


@pytest.mark.parametrize("offsets", [(100, 5), (5, 4000), (5, 5)], ids=["backwards", "forwards", "repeated"])
def test_after_a_jump_of_the_clock_time_goes_on(offsets):
    parts = [make_stream(2, extra=("-bf", "2", "-output_ts_offset", str(offset))) for offset in offsets]
    pieces, _ = cut(remux(b"".join(parts)), segment_s=10)
    assert [piece.is_discontinuous for piece in pieces] == [False, True]
    assert pieces[1].start_s == pytest.approx(2.0, abs=0.1)
    assert pieces[1].end_s == pytest.approx(4.0, abs=0.1)
    assert [len(own_pictures(piece)) for piece in pieces] == [50, 50]


@pytest.mark.parametrize(
    ("first", "second"),
    [("libx264", "libx265"), ("libx264", "mpeg2video"), ("libx265", "libx264"), ("mpeg2video", "libx264")],
)
def test_a_change_of_the_codec_under_the_same_number_is_noticed(first, second):
    """ffmpeg goes on with the new codec, under the header of the old one: nobody could decode the pieces."""
    quiet = {"libx265": ("-x265-params", "log-level=error")}
    # ffmpeg looks at the first two seconds before it writes a header.
    parts = [
        make_stream(seconds, codec=codec, extra=quiet.get(codec, ("-bf", "0")))
        for codec, seconds in ((first, 4), (second, 3))
    ]
    parser, cutter, pieces = Parser(1 << 20), Cutter(10.0, StreamLimits()), []

    def read():
        for event in parser.feed(remux(b"".join(parts))):
            pieces.extend(cutter.start(event) if isinstance(event, Track) else cutter.add(event))

    with pytest.raises(UnsupportedMediaError, match="changed its codec"):
        read()
    [piece] = [*pieces, *cutter.finish()]
    assert 98 <= len(own_pictures(piece)) <= 100


@pytest.mark.parametrize(
    ("pause_ms", "is_missed"), [(2500, False), (5000, True), (9500, True)], ids=["short", "long", "longest"]
)
def test_a_long_pause_is_in_no_piece(pause_ms, is_missed):
    cutter = Cutter(2.0, StreamLimits())
    pieces = list(cutter.start(TRACK))
    late = [
        Packet(one.time_ms + (pause_ms if one.time_ms >= 3000 else 0), one.is_key, one.data) for one in packets(150, 50)
    ]
    pieces += [piece for packet in late for piece in cutter.add(packet)]
    pieces += cutter.finish()
    missed_s = sum(after.start_s - before.end_s for before, after in pairwise(pieces))
    assert missed_s == pytest.approx(pause_ms / 1000 if is_missed else 0.0, abs=0.05)
    assert pieces[-1].end_s == pytest.approx(6.0 + pause_ms / 1000)
    assert max(piece.end_s - piece.start_s for piece in pieces) < 2.1 + (0 if is_missed else pause_ms / 1000)
    assert all(piece.data.count(b"x" * 100) for piece in pieces)


def test_a_source_whose_pictures_come_seldom_has_no_pauses():
    cutter = Cutter(10.0, StreamLimits())
    pieces = list(cutter.start(TRACK))
    pieces += [piece for packet in packets(40, 1, step_ms=5000) for piece in cutter.add(packet)]
    assert all(before.end_s == after.start_s for before, after in pairwise(pieces))


@pytest.mark.parametrize(("silent_s", "missed_s"), [(0.0, 0.0), (8.0, 8.0)], ids=["at once", "after silence"])
def test_what_passes_while_the_clock_of_a_source_jumps_is_missed(silent_s, missed_s):
    cutter = Cutter(2.0, StreamLimits())
    pieces = list(cutter.start(TRACK))
    for number, packet in enumerate(packets(100, 25) + packets(100, 25)):
        pieces += cutter.add(packet, silent_s if number == 100 else 0.0)
    pieces += cutter.finish()
    assert [piece.is_discontinuous for piece in pieces] == [False, False, True, False]
    assert pieces[2].start_s - pieces[1].end_s == pytest.approx(missed_s)


def test_the_wrap_of_the_clock_of_a_transport_stream_is_no_jump():
    # 33 bits of ticks of 1/90,000 s.
    stream = make_stream(6, extra=("-bf", "2", "-output_ts_offset", str(2**33 / 90_000 - 3.0)))
    pieces, _ = cut(remux(stream), segment_s=2.0)
    assert [(round(piece.start_s, 1), piece.is_discontinuous) for piece in pieces] == [
        (0, False),
        (2, False),
        (4, False),
    ]
    assert sum(len(own_pictures(piece)) for piece in pieces) == 150


def test_garbage_within_a_stream_costs_no_more_than_its_time():
    stream, chance = make_stream(6, extra=("-bf", "0")), random.Random(7)
    first, second = len(stream) // 188 // 3 * 188, len(stream) // 188 * 2 // 3 * 188
    pieces, _ = cut(remux(stream[:first] + chance.randbytes(second - first) + stream[second:]), segment_s=2.0)
    assert pieces[-1].end_s == pytest.approx(6.0, abs=0.1)
    assert not any(piece.is_discontinuous for piece in pieces)
    assert 75 < sum(len(own_pictures(piece)) for piece in pieces) < 125


def packets(count, key_every, step_ms=40):
    return [Packet(index * step_ms, index % key_every == 0, b"x" * 100) for index in range(count)]


def test_pictures_too_far_from_their_key_frame_are_left_out():
    cutter = Cutter(1.0, StreamLimits(max_lead_s=2.0))
    pieces = list(cutter.start(TRACK))
    for packet in packets(500, 250):
        pieces += cutter.add(packet)
    assert [piece.start_s for piece in pieces[:4]] == [0.0, 1.0, 2.0, 10.0]
    assert max(piece.lead_s for piece in pieces) <= 2.0
    assert cutter.left_out > 0


def test_a_stream_without_key_frames_is_given_up():
    cutter = Cutter(1.0, StreamLimits())
    list(cutter.start(TRACK))
    with pytest.raises(UnsupportedMediaError, match="key-frame interval"):
        list(chain.from_iterable(map(cutter.add, packets(5000, 5000))))
    assert len(cutter._packets) < 1000


def test_pictures_before_the_first_key_frame_do_not_count():
    cutter = Cutter(1.0, StreamLimits())
    list(cutter.start(TRACK))
    pieces = [piece for packet in packets(60, 25)[10:] for piece in cutter.add(packet)]
    assert pieces[0].start_s == 0.0
    assert cutter.left_out == 15


def test_memory_stays_flat_over_hours():
    cutter = Cutter(5.0, StreamLimits())
    list(cutter.start(TRACK))
    for packet in packets(90_000, 50):
        list(cutter.add(packet))
        assert len(cutter._packets) < 250


def test_too_large_pictures_are_refused():
    with pytest.raises(TooManyPixelsError):
        list(Cutter(1.0, StreamLimits(max_pixels=100)).start(TRACK))


def test_damaged_streams_raise_only_our_errors():
    good = write_file(TRACK, packets(100, 25), duration_ms=4000)
    remuxed = remux(make_stream(1))
    seen = set()
    for seed in range(600):
        chance = random.Random(seed)
        data = bytearray((good, remuxed)[seed % 2])
        for _ in range(chance.choice([1, 3, 30])):
            position = chance.randrange(min(len(data), chance.choice([60, 600, len(data)])))
            data[position] = chance.randrange(256)
        try:
            cut(bytes(data), block=4096)
            seen.add("read")
        except DeepfakeStreamError as error:
            seen.add(error.code)
    assert "read" in seen
    assert len(seen) > 2


def test_an_announced_size_takes_no_memory():
    parser = Parser(1000)
    list(parser.feed(b"\x1a\x45\xdf\xa3\x80\x18\x53\x80\x67\x01\xff\xff\xff\xff\xff\xff\xff"))
    with pytest.raises(DeepfakeStreamError):
        list(parser.feed(b"\xa3\x01\x00\x00\x10\x00\x00\x00\x00" + b"x" * 64))
    assert parser.buffered_bytes < 100
