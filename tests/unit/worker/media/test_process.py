import fcntl
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from shared.errors import DecodeTimeoutError
from worker.cores import available_cores
from worker.media.process import BoundedProcess, CancelToken, read_exactly


def python(code):
    return [sys.executable, "-c", code]


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"


def test_output_and_log_are_both_read():
    code = "import sys; print('out'); print('log', file=sys.stderr); sys.exit(4)"
    lines = []
    with BoundedProcess(python(code), timeout_s=20, on_line=lines.append) as child:
        assert child.stdout.read() == b"out\n"
        assert child.wait() == 4
    assert lines == ["log"]


def test_a_hanging_child_and_its_children_are_killed_at_the_limit():
    code = "import subprocess, time; p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True); time.sleep(60)"
    with BoundedProcess(python(code), timeout_s=1.5) as child:
        grandchild = int(child.stdout.readline())
        began = time.monotonic()
        with pytest.raises(DecodeTimeoutError):
            child.wait()
        assert time.monotonic() - began < 30, "of the 60 that it would sleep"
    deadline = time.monotonic() + 30
    while alive(grandchild) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(grandchild)


def test_a_crash_only_ends_the_child():
    with BoundedProcess(python("import os; os.kill(os.getpid(), 11)"), timeout_s=20) as child:
        assert child.wait() == -signal.SIGSEGV


def test_memory_is_limited():
    with BoundedProcess(python("import time; time.sleep(0.3); x = bytearray(6 * 1024**3)"), timeout_s=20) as child:
        assert child.wait() == 1
    assert "MemoryError" in child.lines[-1]


def test_the_environment_is_not_handed_on(monkeypatch):
    monkeypatch.setenv("DEEPFAKESTREAM_DATABASE__URL", "secret")
    with BoundedProcess(python("import os; print(sorted(os.environ))"), timeout_s=20) as child:
        assert b"DEEPFAKESTREAM" not in child.stdout.read()


def test_a_flood_of_log_lines_stays_bounded():
    code = "import sys\nfor i in range(5000): print('x' * 200, i, file=sys.stderr)"
    with BoundedProcess(python(code), timeout_s=30) as child:
        child.wait()
    assert len(child.lines) == 200


def test_short_reads_are_joined(tmp_path):
    (tmp_path / "data").write_bytes(b"abcdef")
    with (tmp_path / "data").open("rb", buffering=0) as stream:
        assert read_exactly(stream, 4) == b"abcd"
        assert read_exactly(stream, 4) == b"ef"
        assert read_exactly(stream, 4) == b""


def test_time_in_a_pause_does_not_count():
    with BoundedProcess(python("import time; time.sleep(4); print('late')"), timeout_s=3.0) as child:
        with child.paused():
            time.sleep(3.5)
        assert child.stdout.read() == b"late\n"
        assert child.wait() == 0


def test_the_clock_continues_after_a_pause():
    began = time.monotonic()
    with BoundedProcess(python("import time; time.sleep(60)"), timeout_s=2.0) as child:
        with child.paused():
            time.sleep(1.0)
        with pytest.raises(DecodeTimeoutError):
            child.wait()
    assert 2.5 < time.monotonic() - began < 30


def test_many_pauses_share_one_thread():
    with BoundedProcess(python("import time; time.sleep(60)"), timeout_s=2.0) as child:
        clocks = {thread for thread in threading.enumerate() if thread.name == "decoder-clock"}
        began = time.monotonic()
        for _ in range(200):
            with child.paused():
                time.sleep(0.005)
            assert {thread for thread in threading.enumerate() if thread.name == "decoder-clock"} == clocks
        assert not child.timed_out
        with pytest.raises(DecodeTimeoutError):
            child.wait()
    assert time.monotonic() - began > 2.5
    assert not any(thread.is_alive() for thread in clocks)


@pytest.mark.skipif(not hasattr(fcntl, "F_SETPIPE_SZ"), reason="the size of a pipe cannot be chosen here")
def test_the_pipe_buffers_much_output():
    with BoundedProcess(python("print('x' * 500_000)"), timeout_s=20.0) as child:
        assert child.wait() == 0
        assert len(child.stdout.read()) == 500_001


def test_the_time_limit_can_be_extended_in_a_pause():
    began = time.monotonic()
    with BoundedProcess(python("import time; time.sleep(60)"), timeout_s=2.0) as child:
        for _ in range(3):
            time.sleep(1.0)
            with child.paused():
                child.extend(1.5)
        with pytest.raises(DecodeTimeoutError, match=r"limit of 1\.5 s"):
            child.wait()
    assert 4.0 < time.monotonic() - began < 30


def test_cpu_time_is_limited_by_the_maximal_timeout():
    code = "import resource; print(resource.getrlimit(resource.RLIMIT_CPU)[0])"
    for options, wanted_s in (({}, 20.0), ({"max_timeout_s": 100.0}, 100.0)):
        with BoundedProcess(python("import time; time.sleep(0.3); " + code), timeout_s=20.0, **options) as child:
            assert int(child.stdout.read()) == int(wanted_s * available_cores()) + 1


def test_a_cancelled_token_ends_the_child_and_the_next_one():
    cancel_token = CancelToken()
    with BoundedProcess(python("import time; time.sleep(60)"), timeout_s=60, cancel_token=cancel_token) as child:
        cancel_token.cancel()
        assert child.wait() == -signal.SIGKILL
    with BoundedProcess(python("import time; time.sleep(60)"), timeout_s=60, cancel_token=cancel_token) as child:
        assert child.wait() == -signal.SIGKILL


def test_cancelling_after_the_child_has_ended_is_harmless():
    cancel_token = CancelToken()
    with BoundedProcess(python("print(1)"), timeout_s=60, cancel_token=cancel_token) as child:
        assert child.wait() == 0
    cancel_token.cancel()


def test_a_child_that_ends_before_it_is_killed_is_not_an_error(monkeypatch):
    def refuse(pid, number):
        # macOS answers so for a process group in which nothing runs any more.
        os.kill(pid, number)
        raise PermissionError

    monkeypatch.setattr(os, "killpg", refuse)
    with BoundedProcess(python("import time; time.sleep(60)"), timeout_s=20) as child:
        child.end()
        assert child.wait() == -signal.SIGKILL
