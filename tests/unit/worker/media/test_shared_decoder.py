"""Segments that share a decoder have the same frames as with separate decoders."""

import math
import sys
import threading
from itertools import pairwise

import numpy as np
import pytest

from shared.containers import MediaLimits
from shared.errors import DecodeError, DecodeTimeoutError
from tests.clips import make_clip, run
from worker.media import decoding, frames
from worker.media.frames import MAX_SHARED_SEGMENTS, read_frames, read_segments
from worker.media.probe import probe
from worker.media.process import CancelToken
from worker.media.segments import Segment, plan_segments

LIMITS = MediaLimits(max_bytes=2**31, max_duration_s=600.0, max_pixels=4096 * 4096, max_frame_rate=240.0)


def alone(path, facts, part, sample_fps=2.0, **given):
    given = {"timeout_s": 60.0} | given
    frames = read_frames(path, facts, start_s=part.start_s, end_s=part.end_s, sample_fps=sample_fps, **given)
    return [(frame.time_s, frame.pixels) for frame in frames]


def together(path, facts, plan, sample_fps=2.0, **given):
    """Read the frames of each segment up to an error; return them and the error."""
    parts, error = [[]], None
    try:
        for frame in read_segments(path, facts, plan, sample_fps=sample_fps, **({"timeout_s": 60.0} | given)):
            if frame is None:
                parts.append([])
            else:
                parts[-1].append((frame.time_s, frame.pixels))
    except DecodeError as caught:
        error = caught
    else:
        assert parts.pop() == []
    return parts, error


def one_by_one(path, facts, plan, sample_fps=2.0):
    parts = []
    for part in plan:
        try:
            parts.append(alone(path, facts, part, sample_fps))
        except DecodeError as error:
            return [*parts, []], error
    return parts, None


def assert_same(path, *, segment_seconds=(2.5, 5.0), sample_fps=(2.0, 7.3), plan=None, is_sound=True):
    """Compare only times and errors of a damaged file: error concealment differs from one run to the next."""
    facts = probe(path, LIMITS)
    for seconds in segment_seconds:
        for fps in sample_fps:
            cut = plan or plan_segments(facts.duration_s, seconds)
            given, error = together(path, facts, cut, fps)
            wanted, wanted_error = one_by_one(path, facts, cut, fps)
            assert (type(error), str(error)) == (type(wanted_error), str(wanted_error))
            assert [[time_s for time_s, _ in part] for part in given] == [
                [time_s for time_s, _ in part] for part in wanted
            ]
            for part, wanted_part in zip(given, wanted, strict=True) if is_sound else ():
                assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(part, wanted_part, strict=True))


@pytest.fixture
def decoders(monkeypatch):
    """Record the command lines of all decoders that are started."""
    started = []
    build_command = decoding.build_command

    def noted(*arguments, **options):
        started.append(build_command(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(decoding, "build_command", noted)
    return started


@pytest.mark.parametrize(
    ("name", "codec", "extra"),
    [
        ("a.mp4", "h264", ("-g", "70", "-bf", "3")),
        ("a.mkv", "hevc", ("-g", "40")),
        ("a.webm", "vp9", ("-g", "50")),
        ("a.mp4", "av1", ()),
        ("a.avi", "mpeg4", ("-g", "30")),
    ],
)
def test_shared_and_separate_decoders_agree_in_every_container(tmp_path, name, codec, extra):
    assert_same(make_clip(tmp_path / name, codec=codec, seconds=13.0, size=(160, 120), extra=extra))


@pytest.mark.parametrize(
    ("fps", "segment_seconds"), [(30000 / 1001, (2.5, 5.0)), (25.0, (1 / 3,)), (7.0, (2.5,)), (1.0, (5.0, 0.7))]
)
def test_shared_and_separate_decoders_agree_at_every_frame_rate(tmp_path, fps, segment_seconds):
    seconds = 11.0 if max(segment_seconds) > 1.0 else 3.0
    path = make_clip(tmp_path / "a.mp4", fps=fps, seconds=seconds, size=(160, 120), extra=("-g", "45"))
    assert_same(path, segment_seconds=segment_seconds)


def test_frames_on_a_cut_are_in_the_later_segment(tmp_path):
    path = make_clip(tmp_path / "a.mp4", fps=10.0, seconds=2.8, size=(160, 120))
    facts = probe(path, LIMITS)
    parts, _ = together(path, facts, plan_segments(facts.duration_s, 0.7), 10.0)
    assert [part[0][0] for part in parts] == [0.0, 0.7, 1.4, 2.1]
    assert_same(path, segment_seconds=(0.7, 0.1))


def test_frames_on_a_cut_are_in_the_later_segment_however_their_times_are_rounded(tmp_path):
    """By the file's clock, 3.586 s is rounded to a little less than the sum of 1.086 s and 2.5 s."""
    source = make_clip(tmp_path / "a.mp4", fps=10.0, seconds=5.0, size=(64, 64))
    path = tmp_path / "late.mkv"
    run("-i", str(source), "-c", "copy", "-output_ts_offset", "1.086", str(path))
    facts = probe(path, LIMITS)
    parts, _ = together(path, facts, plan_segments(facts.duration_s, 2.5))
    assert [[time_s for time_s, _ in part] for part in parts] == [[0.0, 0.5, 1.0, 1.5, 2.0], [2.5, 3.0, 3.5, 4.0, 4.5]]
    assert_same(path, segment_seconds=(2.5,), sample_fps=(2.0,))


def varying(tmp_path, chosen, *extra):
    source = make_clip(tmp_path / "source.mp4", fps=20.0, seconds=20.0, size=(160, 120))
    path = tmp_path / "varying.mp4"
    run("-i", str(source), "-vf", f"select='{chosen}'", "-fps_mode", "vfr", *extra, str(path))
    return path


def test_variable_frame_rates(tmp_path):
    assert_same(varying(tmp_path, "lt(mod(n,7),3)+not(mod(n,11))", "-g", "50"))


def test_gaps_longer_than_segments(tmp_path, decoders):
    path = varying(tmp_path, "lt(t,3)+between(t,12,12.9)+gt(t,19.5)", "-g", "20")
    assert_same(path)
    facts = probe(path, LIMITS)
    decoders.clear()
    parts, _ = together(path, facts, plan_segments(facts.duration_s, 2.5))
    # The third, fourth and seventh segment have no new frame.
    assert [len(part) for part in parts] == [5, 1, 1, 1, 1, 1, 1, 1]
    assert [parts[place][0][0] for place in (2, 3, 6)] == [5.0, 7.5, 15.0]


def test_gaps_at_the_start_and_end_of_the_plan(tmp_path):
    path = varying(tmp_path, "lt(t,1)+between(t,4,5)+gt(t,19.9)", "-g", "20")
    plan = [Segment(number, number + 2.0, number + 3.0) for number in range(6)]
    assert_same(path, plan=plan, segment_seconds=(1.0,))


def test_segments_of_one_frame(tmp_path):
    path = make_clip(tmp_path / "a.mp4", fps=2.0, seconds=4.0, size=(160, 120))
    assert_same(path, segment_seconds=(0.5, 1.0))


@pytest.mark.parametrize("offset_s", ["7", "-0.35", "0.0000001"])
def test_files_whose_timestamps_do_not_start_at_zero(tmp_path, offset_s):
    source = make_clip(tmp_path / "a.mp4", fps=25.0, seconds=8.0, size=(160, 120), extra=("-g", "30"))
    run("-itsoffset", offset_s, "-i", str(source), "-c", "copy", str(tmp_path / "late.mkv"))
    assert_same(tmp_path / "late.mkv")


def test_a_plan_that_starts_later_and_has_a_gap(tmp_path, decoders):
    path = make_clip(tmp_path / "a.mp4", fps=25.0, seconds=16.0, size=(160, 120), extra=("-g", "60"))
    cuts = [(3.1, 5.0), (5.0, 6.25), (6.25, 6.3), (9.0, 11.0), (11.0, 12.5), (14.0, 15.0)]
    plan = [Segment(number, *cut) for number, cut in enumerate(cuts)]
    assert_same(path, plan=plan, segment_seconds=(1.0,))
    decoders.clear()
    together(path, probe(path, LIMITS), plan)
    assert len(decoders) == 3


def test_one_decoder_reads_all_segments(tmp_path, decoders):
    clip = make_clip(tmp_path / "a.mp4", seconds=13.0, size=(160, 120))
    # ffmpeg logs that there is no decoder for the audio.
    path = tmp_path / "sound.mp4"
    run("-i", str(clip), "-f", "lavfi", "-i", "sine=duration=13", "-c:v", "copy", "-c:a", "aac", str(path))
    together(path, probe(path, LIMITS), plan_segments(13.0, 2.5))
    assert len(decoders) == 1


def test_long_plans_use_several_decoders(tmp_path, decoders):
    path = make_clip(tmp_path / "a.mp4", fps=5.0, seconds=40.0, size=(64, 64), extra=("-g", "20"))
    facts = probe(path, LIMITS)
    plan = plan_segments(facts.duration_s, 0.5)
    decoders.clear()
    together(path, facts, plan)
    assert len(decoders) == math.ceil(len(plan) / MAX_SHARED_SEGMENTS) == 3


def test_a_size_that_changes(tmp_path):
    sizes = [(160, 120), (96, 128), (160, 120)]
    parts = [
        make_clip(tmp_path / f"{place}.h264", fps=10.0, seconds=3.3, size=size, extra=("-g", "10"))
        for place, size in enumerate(sizes)
    ]
    (tmp_path / "all.h264").write_bytes(b"".join(part.read_bytes() for part in parts))
    run("-f", "h264", "-r", "10", "-i", str(tmp_path / "all.h264"), "-c", "copy", str(tmp_path / "a.mkv"))
    assert len({len(part.read_bytes()) for part in parts}) == 2
    assert_same(tmp_path / "a.mkv", segment_seconds=(2.5,))


def damaged(path, begin, end, seed=5):
    content = bytearray(path.read_bytes())
    at = slice(int(begin * len(content)), int(end * len(content)))
    content[at] = np.random.default_rng(seed).integers(0, 256, at.stop - at.start, np.uint8).tobytes()
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "h264"), ("a.mkv", "h264"), ("a.mp4", "hevc"), ("a.webm", "vp9")]
)
def test_a_damaged_middle(tmp_path, name, codec):
    path = make_clip(tmp_path / name, codec=codec, seconds=18.0, size=(320, 240), extra=("-g", "10"))
    assert_same(damaged(path, 0.45, 0.52), segment_seconds=(2.5,), is_sound=False)


def test_a_truncated_end(tmp_path):
    path = make_clip(tmp_path / "a.mkv", seconds=18.0, size=(160, 120), extra=("-g", "25"))
    content = path.read_bytes()
    facts = probe(path, LIMITS)
    path.write_bytes(content[: len(content) * 2 // 3])
    assert_same(path)
    # In the rest, the last frame stays on the screen.
    plan = plan_segments(facts.duration_s, 2.5)
    given, _ = together(path, facts, plan)
    wanted, _ = one_by_one(path, facts, plan)
    assert [[time_s for time_s, _ in part] for part in given] == [[time_s for time_s, _ in part] for part in wanted]


@pytest.mark.merge
@pytest.mark.shared_data
def test_real_clips(research_data):
    for path in sorted((research_data / "videos").glob("*.mp4")):
        assert_same(path, segment_seconds=(2.5,))


class Breaking:
    """
    Instead of decoders: those whose span holds *at_s* end there, in the way that *how* says, those of one segment
    only where *is_final*.
    """

    def __init__(self, monkeypatch, at_s, how, *, is_final=False):
        self.at_s, self.how, self.is_final = at_s, how, is_final
        self.spans = []
        self.real = frames.FrameDecoder
        monkeypatch.setattr(frames, "FrameDecoder", self.decoding)

    def decoding(self, path, facts, cuts_s, *arguments):
        self.spans.append((cuts_s[0], cuts_s[-1]))
        real = self.real(path, facts, cuts_s, *arguments)
        if cuts_s[0] <= self.at_s < cuts_s[-1] and (self.is_final or len(cuts_s) > 2):
            frames = real.frames

            def breaking(*timeouts):
                for place, frame in frames(*timeouts):
                    if frame.time_s >= self.at_s:
                        raise self.how
                    yield place, frame

            real.frames = breaking
        return real


@pytest.fixture
def clip(tmp_path):
    path = make_clip(tmp_path / "a.mp4", seconds=12.0, size=(160, 120))
    return path, probe(path, LIMITS)


@pytest.mark.parametrize("at_s", [0.0, 0.5, 4.0, 5.5, 11.5])
@pytest.mark.parametrize("how", [DecodeError("killed"), DecodeTimeoutError("too slow")])
def test_after_a_failure_segments_are_decoded_one_by_one(clip, monkeypatch, at_s, how):
    plan = plan_segments(12.0, 2.0)
    wanted, _ = one_by_one(*clip, plan)
    breaking = Breaking(monkeypatch, at_s, how)
    given, error = together(*clip, plan)
    assert error is None
    assert [[time_s for time_s, _ in part] for part in given] == [[time_s for time_s, _ in part] for part in wanted]
    failing = max(0, math.ceil(at_s / 2.0) - 1)
    assert breaking.spans == [(0.0, 12.0), *((part.start_s, part.end_s) for part in plan[failing:])]


@pytest.mark.parametrize("at_s", [0.0, 5.5, 11.5])
def test_an_error_is_raised_in_its_segment(clip, monkeypatch, at_s):
    plan = plan_segments(12.0, 2.0)
    wanted, _ = one_by_one(*clip, plan)
    Breaking(monkeypatch, at_s, DecodeError("killed"), is_final=True)
    given, error = together(*clip, plan)
    assert str(error) == "killed"
    times = [time_s for part in wanted for time_s, _ in part if time_s < at_s]
    assert [time_s for part in given for time_s, _ in part] == times
    assert len(given) == int(at_s / 2.0) + 1


def test_frames_out_of_order_are_decoded_segment_by_segment(tmp_path, decoders):
    source = make_clip(tmp_path / "a.mp4", seconds=9.0, size=(160, 120), extra=("-g", "1"))
    path = tmp_path / "b.mkv"
    # The frame at 4.5 s and the next one are swapped.
    swap = "setts=pts=if(eq(N\\,45)\\,PTS+0.1/TB\\,if(eq(N\\,46)\\,PTS-0.1/TB\\,PTS)):dts=DTS"
    run("-i", str(source), "-c", "copy", "-bsf:v", swap, str(path))
    assert_same(path, segment_seconds=(3.0,))
    decoders.clear()
    together(path, probe(path, LIMITS), plan_segments(9.0, 3.0))
    # The shared decoder failed in the second segment, so that segment and the last one are decoded separately.
    assert len(decoders) == 3


def test_a_cancelled_token_ends_it_at_once(clip, decoders):
    cancel_token = CancelToken()
    frames = read_segments(*clip, plan_segments(12.0, 2.0), sample_fps=2.0, timeout_s=60.0, cancel_token=cancel_token)
    next(frames)
    cancel_token.cancel()
    with pytest.raises(DecodeError, match="signal 9"):
        list(frames)
    assert len(decoders) == 1


def test_closing_early_ends_the_decoder(clip):
    frames = read_segments(*clip, plan_segments(12.0, 2.0), sample_fps=2.0, timeout_s=60.0)
    next(frames)
    frames.close()
    assert "decoder-log" not in {thread.name for thread in threading.enumerate()}


def test_each_segment_has_the_full_time_limit(clip, monkeypatch):
    """The decoder takes a second for each segment; the limit is less than the sum."""
    path, facts = clip
    size = facts.width_px * facts.height_px * 3
    script = (
        "import sys, time\n"
        "print('\\x1b[32m[Parsed_showinfo_1 @ 0] \\x1b[0mconfig in time_base: 1/10', file=sys.stderr)\n"
        "print('\\x1b[32m[Parsed_showinfo_4 @ 0] \\x1b[0mconfig in time_base: 1/10', file=sys.stderr)\n"
        "for number in range(6):\n"
        "    time.sleep(1)\n"
        "    for name in '14':\n"
        "        print(f'\\x1b[32m[Parsed_showinfo_{name} @ 0] \\x1b[0mn: {number} pts: {number * 20} pts_time:0"
        f" sar:1/1 s:{facts.width_px}x{facts.height_px} i:P', file=sys.stderr, flush=True)\n"
        f"    sys.stdout.buffer.write(bytes({size}))\n"
        "    sys.stdout.buffer.flush()\n"
    )
    monkeypatch.setattr(decoding, "build_command", lambda _, **_options: [sys.executable, "-I", "-c", script])
    parts, error = together(path, facts, plan_segments(12.0, 2.0), timeout_s=3.0)
    assert error is None
    assert [[time_s for time_s, _ in part] for part in parts] == [[2.0 * number] for number in range(6)]


def test_the_selection_expression_of_one_segment_is_the_simple_case():
    assert decoding.build_selection_expression((0.0, 5.0), 2.0).count("gte(t,0.0)*lt(t,5.0)") == 2
    cuts = [number * 5.0 for number in range(MAX_SHARED_SEGMENTS + 1)]
    assert all(
        f"gte(t,{start!r})*lt(t,{end!r})" in decoding.build_selection_expression(cuts, 2.0)
        for start, end in pairwise(cuts)
    )
