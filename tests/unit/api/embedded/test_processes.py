import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SLOWLY_STARTED = """
import os, sys, time
from pathlib import Path
from api.embedded import processes

begin = processes._die_with_parent


def begin_late():
    Path("child").write_text(str(os.getpid()))
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(0.01)
    begin()


processes._die_with_parent = begin_late
here = Path.cwd()
processes.Service("any", ["sleep", "60"], environment=dict(os.environ), folder=here, log=here / "log").start()
"""


def is_running(pid):
    """Whether the process runs, and is not merely waiting for somebody to ask how it ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell children of their parent's end")
def test_a_process_does_not_outlive_a_supervisor_that_is_killed_while_it_starts_it(tmp_path):
    """Before it has asked the kernel to end it with the supervisor, the kernel does not."""
    here = Path(__file__).resolve().parents[4]
    environment = os.environ | {"PYTHONPATH": f"{here}:{here / 'client'}"}
    child = tmp_path / "child"
    with subprocess.Popen([sys.executable, "-c", SLOWLY_STARTED], cwd=tmp_path, env=environment) as supervisor:
        deadline = time.monotonic() + 20
        while not (child.exists() and child.read_text()):
            assert supervisor.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        supervisor.kill()
    pid = int(child.read_text())
    try:
        deadline = time.monotonic() + 20
        while is_running(pid):
            assert time.monotonic() < deadline, "it was left behind"
            time.sleep(0.02)
    finally:
        if is_running(pid):
            os.kill(pid, signal.SIGKILL)
