"""Tests of each protection with a real child process; those that this system does not support are skipped."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from worker.media import sandbox as module
from worker.media.process import BoundedProcess
from worker.media.sandbox import Sandbox, find_sandbox, sandbox

ROOT = Path(__file__).resolve().parents[4]


def said(script):
    """Run *script* in a child process with a decoder's limits; return its output."""
    with BoundedProcess([sys.executable, "-I", "-c", script], timeout_s=30.0) as child:
        return child.stdout.read().decode().strip()


@pytest.mark.skipif(not sandbox().has_no_network, reason="this system allows no namespace of networks")
def test_a_decoder_has_no_network():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        script = f"import socket; socket.create_connection(('127.0.0.1', {port}), 5); print('reached')"
        socket.create_connection(("127.0.0.1", port), 5).close()
        assert said(script) == ""


@pytest.mark.skipif(not sandbox().dies_with_parent, reason="this system has no setpriv")
def test_a_decoder_ends_with_its_worker_that_is_killed():
    # The worker is killed only after the decoder has written: if a worker dies in the milliseconds before setpriv takes
    # effect, the decoder is left behind and only ends at its first write to the pipe that nobody reads.
    decoder = "import time; print(flush=True); time.sleep(120)"
    script = (
        "import sys, time\n"
        "from worker.media.process import BoundedProcess\n"
        f"with BoundedProcess([sys.executable, '-I', '-c', {decoder!r}], timeout_s=100) as child:\n"
        "    child.stdout.readline()\n"
        "    print(child._process.pid, flush=True)\n"
        "    time.sleep(100)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True) as worker:
        pid = int(worker.stdout.readline())
        os.kill(pid, 0)
        worker.kill()
    deadline = time.monotonic() + 60
    while is_running(pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_running(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"  # A zombie has ended, but was not waited for yet.


@pytest.mark.skipif(not sandbox().dies_with_parent, reason="this system has no setpriv")
def test_a_decoder_gains_no_privileges():
    assert said("print(open('/proc/self/status').read())").count("NoNewPrivs:\t1") == 1


def test_a_decoder_writes_no_file(tmp_path):
    path = tmp_path / "file"
    script = f"file = open({str(path)!r}, 'w'); file.write('x' * 10); file.flush(); print('written')"
    assert said(script) == ""
    assert not path.exists() or path.stat().st_size == 0


def test_without_system_support_only_limits_apply(monkeypatch):
    monkeypatch.setattr(module.shutil, "which", lambda _name: None)
    assert find_sandbox() == Sandbox()
    assert Sandbox().describe() == "limits alone"


def test_unsupported_protections_are_left_out(monkeypatch):
    real = subprocess.run

    def run(command, **given):
        return subprocess.CompletedProcess(command, 1) if "--net" in command else real(command, **given)

    monkeypatch.setattr(module.subprocess, "run", run)
    assert not find_sandbox().has_no_network


def test_the_signal_of_a_crashed_decoder_is_reported():
    """The prefix of the sandbox does not hide how the decoder ended."""
    with BoundedProcess(["/bin/sh", "-c", f"kill -{int(signal.SIGSEGV)} $$"], timeout_s=10) as child:
        assert child.wait() == -signal.SIGSEGV
