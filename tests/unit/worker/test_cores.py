"""Features that only Linux has: the service also runs on macOS, without them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from worker import cores
from worker.config import Worker
from worker.cores import available_cores

ROOT = Path(__file__).resolve().parents[3]
HIDE = """
import fcntl, os, resource, runpy, signal, socket, sys
for module, names in {
    os: "sched_getaffinity sched_setaffinity eventfd memfd_create pidfd_open pipe2 posix_fadvise fdatasync splice"
    " copy_file_range O_TMPFILE O_PATH O_DIRECT O_NOATIME setresuid getrandom".split(),
    fcntl: "F_SETPIPE_SZ F_GETPIPE_SZ F_ADD_SEALS".split(),
    resource: "prlimit RLIMIT_NPROC RLIMIT_SIGPENDING".split(),
    signal: "SIGRTMIN SIGPWR SIGPOLL sigtimedwait sigwaitinfo".split(),
    socket: "SO_PEERCRED SOCK_CLOEXEC SOCK_NONBLOCK TCP_USER_TIMEOUT".split(),
}.items():
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
"""


def without_what_linux_alone_has(code):
    command = [sys.executable, "-W", "ignore", "-c", HIDE + code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_without_cpu_affinity_all_cores_are_available(monkeypatch, tmp_path):
    monkeypatch.setattr(cores, "OWN_GROUPS", tmp_path / "nothing")
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert available_cores() == 6
    assert (Worker().processes("gpu"), Worker().threads()) == (4, 1)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_cores() == 1


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system tells no process its share")
def test_a_process_bound_to_one_core_has_one_available():
    code = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
    code += "from worker.cores import available_cores\nprint(available_cores())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Control groups on a machine with 64 cores: what a file of them says, by its path, and in which ones we are."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(64)), raising=False)
    monkeypatch.setattr(cores, "CONTROL_GROUPS", tmp_path / "groups")
    monkeypatch.setattr(cores, "OWN_GROUPS", tmp_path / "own")

    def make(own, **files):
        (tmp_path / "own").write_text(own, errors="surrogateescape")
        for name, text in files.items():
            file = tmp_path / "groups" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)

    return make


VERSION_1 = "5:memory:/a\n2:cpuacct,cpu:/a/b\n1:name=systemd:/a\n"


@pytest.mark.parametrize(
    ("own", "files", "count"),
    [
        ("0::/\n", {}, 64),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 64),
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "10000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "12800000 100000\n"}, 64),
        ("0::/a/b\n", {"a/cpu.max": "300000 100000\n", "a/b/cpu.max": "max 100000\n"}, 3),
        ("0::/not/seen/here\n", {"cpu.max": "400000 100000\n"}, 4),
        ("0::/\n", {"cpu.max": "no number\n"}, 64),
        ("of no known form\n0::/\udcff\n", {"cpu.max": "400000 100000\n"}, 4),
        (VERSION_1, {"cpu/a/b/cpu.cfs_quota_us": "-1\n", "cpu/a/b/cpu.cfs_period_us": "100000\n"}, 64),
        (VERSION_1, {"cpu/a/b/cpu.cfs_quota_us": "250000\n", "cpu/a/b/cpu.cfs_period_us": "100000\n"}, 3),
        (VERSION_1, {"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "50000\n"}, 1),
        (VERSION_1, {"cpu.max": "100000 100000\n"}, 64),
    ],
)
def test_a_limit_of_processor_time_is_one_of_cores(groups, own, files, count):
    groups(own, **files)
    assert available_cores() == count
    worker = Worker()
    assert worker.processes("gpu") * worker.threads() <= count


def test_the_client_command_line_runs_without_linux_features():
    shown = without_what_linux_alone_has("""
import api.embedded.commands, deepfakestream.local
from click.testing import CliRunner
from deepfakestream.cli import main
for command in ([], ["up"], ["demo"], ["scan"], ["keys"]):
    done = CliRunner().invoke(main, [*command, "--help"])
    assert done.exit_code == 0, done.output
    print(done.output)
""")
    assert "Run the whole service on this machine" in shown


def test_the_service_runs_without_linux_features():
    shown = without_what_linux_alone_has("""
import sys
import migrations.schema, api.app, worker.celery, worker.local, worker.tasks.ingest
from worker.config import Worker
from worker.media.process import BoundedProcess
Worker().threads()
with BoundedProcess([sys.executable, "-c", "print(7)"], timeout_s=20.0) as child:
    assert child.wait() == 0
    print(child.stdout.read().decode(), end="")
""")
    assert shown == "7\n"
