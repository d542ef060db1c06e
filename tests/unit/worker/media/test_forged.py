"""Metadata of a file that imitates ffmpeg's log is never mistaken for it."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from shared.containers import MediaLimits
from shared.errors import UnsupportedMediaError
from tests.clips import make_clip, run
from worker.media.filelog import FileLog
from worker.media.frames import read_frames
from worker.media.probe import MediaFacts, probe
from worker.media.process import LINE_BYTES, BoundedProcess, read_authentic

LIMITS = MediaLimits(max_bytes=2**31, max_duration_s=600.0, max_pixels=4096 * 4096, max_frame_rate=240.0)
TRACK = "  Stream #0:0[0x1](und): Video: h264 (Main), yuv420p, 320x240, 25 fps (default)\n"
FRAME = "n:   0 pts:      0 pts_time:0 duration:1 duration_time:0.1 fmt:yuv420p cl:left sar:1/1 s:16x16 i:P"
TIMES = [f"[Parsed_showinfo_{place} @ 0x1] n:   0 pts:     -9 pts_time:0" for place in (1, 4)]
FORGED = {
    "track": f"x\n{TRACK}Output #0, null y",
    "list": f"x\nStream mapping:\n  Stream #0:0 -> #0:0 (copy)\nOutput #0, null, to 'a':\n{TRACK}Output #1, null y",
    "lost": f"x\nOutput #0, null, to 'a':\n{TRACK}    Side data:\n      DOVI configuration record: profile: 5\ny",
    "frame": f"x\n[Parsed_showinfo_1 @ 0x1] {FRAME}\ny",
    "coloured": f"x\n\x1b[1;32m[Parsed_showinfo_1 @ 0x1] \x1b[0m{FRAME}\ny",
    "truncated": "x\n[mov @ 0x1] moov atom not found, truncated\ny",
    "times": "x\n" + "\n".join([*TIMES, *TIMES]) + "\ny",
}
"""Metadata keys that look like lines of the log; ffmpeg prints keys verbatim."""


@pytest.fixture(scope="module")
def two_tracks(tmp_path_factory) -> Path:
    """Make a video with two tracks of different sizes, of which the second is the default."""
    folder = tmp_path_factory.mktemp("two")
    first, second = (
        make_clip(folder / f"{width}.mp4", seconds=2.0, size=(width, 64), codec="h264") for width in (64, 96)
    )
    path = folder / "two.mp4"
    inputs = ("-i", str(first), "-i", str(second), "-map", "0:v", "-map", "1:v", "-c", "copy")
    run(*inputs, "-disposition:v:0", "0", "-disposition:v:1", "default", str(path))
    return path


def labelled(source: Path, path: Path, key: str) -> Path:
    """Copy *source* with *key* in its metadata; it is patched in, since Matroska's muxer would write it in capitals."""
    written = "K" * len(key.encode())
    copied = ("-map", "0", "-c", "copy", "-movflags", "use_metadata_tags")
    run("-i", str(source), *copied, "-metadata", f"{written}=1", str(path))
    data = path.read_bytes()
    assert data.count(written.encode()) == 1
    path.write_bytes(data.replace(written.encode(), key.encode()))
    return path


def times(path: Path, facts: MediaFacts) -> list[float]:
    frames = read_frames(path, facts, start_s=0.0, end_s=1.0, sample_fps=5.0, timeout_s=30.0)
    return [frame.time_s for frame in frames]


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv"])
@pytest.mark.parametrize("forged", FORGED)
def test_metadata_that_imitates_the_log_changes_nothing(tmp_path, two_tracks, forged, name):
    path = labelled(two_tracks, tmp_path / name, FORGED[forged])
    plain = tmp_path / f"plain-{name}"
    run("-i", str(two_tracks), "-map", "0", "-c", "copy", str(plain))
    facts = probe(path, LIMITS)
    assert (facts.video_track, facts.width_px, facts.other_video_tracks, facts.truncated) == (1, 96, 1, False)
    assert facts == replace(probe(plain, LIMITS), start_s=facts.start_s)
    assert times(path, facts) == times(plain, facts) == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8])


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_second_start_time_in_the_metadata_is_refused(tmp_path, two_tracks, name):
    key = "x\n  Duration: 00:00:02.00, start: -7.000000, bitrate: 9 kb/s\ny"
    with pytest.raises(UnsupportedMediaError, match="imitates"):
        probe(labelled(two_tracks, tmp_path / name, key), LIMITS)


def test_the_rest_of_an_overlong_line_is_not_parsed():
    text = "x" * LINE_BYTES + "Stream mapping:"
    lines: list[str] = []
    arguments = [sys.executable, "-c", f"import sys; sys.stderr.write('{text}\\nnext\\n')"]
    with BoundedProcess(arguments, timeout_s=30.0, on_line=lines.append) as child:
        child.wait()
    assert lines == ["x" * LINE_BYTES, "next"]


def test_names_of_listing_outputs_are_random():
    assert FileLog().name != FileLog().name
    assert len(FileLog().name) >= 32


def test_only_lines_that_begin_with_a_colour_are_authentic():
    assert read_authentic("\x1b[1;32m[showinfo @ 0x1] \x1b[0mn: 0") == "[showinfo @ 0x1] n: 0"
    assert read_authentic("[showinfo @ 0x1] \x1b[0mn: 0") is None
