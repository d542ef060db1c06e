import subprocess
import sys

SIGNAL_AT_THE_WORST_MOMENT = """
import os, signal, sys, threading
from worker.config import WorkerSettings
from worker.live import process

wait = threading.Condition.wait


def wait_interrupted(self, timeout=None):
    # Whoever waits for an event holds its lock here.
    if threading.current_thread() is threading.main_thread():
        signal.raise_signal(signal.SIGTERM)
    return wait(self, timeout)


def claim(self):
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
    threading.Condition.wait = wait_interrupted


process.Readers.claim = claim
process.run_readers(
    WorkerSettings(
        database={"url": "postgresql+psycopg://nobody@127.0.0.1:1/none"},
        broker={"url": "redis://127.0.0.1:1/0"},
        storage={"url": f"file://{sys.argv[1]}"},
    )
)
"""


def test_a_signal_stops_the_readers_whatever_it_interrupts(tmp_path):
    """The handler of an event that is being waited for would wait for itself."""
    command = [sys.executable, "-c", SIGNAL_AT_THE_WORST_MOMENT, str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert ended.returncode == 0, ended.stderr
