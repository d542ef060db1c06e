import sys
import threading
import time

import numpy as np
import pytest

from shared.errors import DecodeError
from worker.media.ahead import MAX_FRAMES_AHEAD, ReadAhead
from worker.media.frames import Frame
from worker.media.probe import MediaFacts
from worker.media.process import BoundedProcess, read_exactly

SMALL = np.zeros((4, 4, 3), np.uint8)


def facts(width_px=4, height_px=4):
    return MediaFacts(
        kind="video",
        container="mp4",
        codec="h264",
        width_px=width_px,
        height_px=height_px,
        rotation_deg=0,
        duration_s=1.0,
        start_s=0.0,
        frame_count=4,
        frame_rate=4.0,
        truncated=False,
    )


class Source:
    """A source of frames that counts how many were read."""

    def __init__(self, count, error=None):
        self.count, self.error = count, error
        self.given = 0

    def frames(self, _cancel_token):
        for number in range(self.count):
            self.given += 1
            yield Frame(float(number), SMALL)
        if self.error is not None:
            raise self.error


def wait_until(condition, seconds=5.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def test_all_frames_come_in_order():
    with ReadAhead(Source(100).frames, facts()) as reader:
        assert [frame.time_s for frame in reader] == list(range(100))


def test_markers_between_frames_are_passed_on():
    items = [Frame(0.0, SMALL), None, Frame(1.0, SMALL), None]
    with ReadAhead(lambda _cancel_token: iter(items), facts()) as reader:
        assert list(reader) == items


def test_frames_are_read_ahead_up_to_a_limit():
    source = Source(10_000)
    with ReadAhead(source.frames, facts()):
        # The thread holds one more.
        assert wait_until(lambda: source.given == MAX_FRAMES_AHEAD + 1)
        time.sleep(0.05)
        assert source.given == MAX_FRAMES_AHEAD + 1


def test_few_large_frames_are_held():
    source = Source(10_000)
    with ReadAhead(source.frames, facts(7680, 4320)):
        # One is in the queue, and the thread holds another.
        assert wait_until(lambda: source.given == 2)
        time.sleep(0.05)
        assert source.given == 2


def test_closing_early_stops_reading():
    source = Source(10_000)
    with ReadAhead(source.frames, facts()) as reader:
        next(iter(reader))
    assert source.given < 10_000


def test_closing_does_not_wait_for_a_silent_decoder():
    reading = threading.Event()

    def read(cancel_token):
        arguments = [sys.executable, "-c", "import time; time.sleep(60)"]
        with BoundedProcess(arguments, timeout_s=60, cancel_token=cancel_token) as child:
            reading.set()
            read_exactly(child.stdout, 10)
            yield Frame(0.0, SMALL)

    with ReadAhead(read, facts()):
        assert reading.wait(10)
        began = time.monotonic()
    assert time.monotonic() - began < 10


def test_an_error_is_raised_after_the_frames_before_it():
    with ReadAhead(Source(3, DecodeError("damaged")).frames, facts()) as reader:
        frames = iter(reader)
        assert [next(frames).time_s for _ in range(3)] == [0.0, 1.0, 2.0]
        with pytest.raises(DecodeError, match="damaged"):
            next(frames)


def test_closing_ends_the_thread():
    with ReadAhead(Source(10_000).frames, facts()):
        assert "read-ahead" in {thread.name for thread in threading.enumerate()}
    assert "read-ahead" not in {thread.name for thread in threading.enumerate()}
