"""A short run of the faults; ``make faults`` is the long one."""

import json
import subprocess
import sys


def test_nothing_is_lost_or_doubled_while_parts_are_killed(tmp_path):
    command = [sys.executable, "-m", "tests.faults", "--minutes", "0.8", "--seed", "5", "--every", "2.5", "--away", "4"]
    done = subprocess.run([*command, "--logs", str(tmp_path)], capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    report = json.loads(done.stdout)
    assert report["accepted"] == report["ended"] > 5
    assert sum(report["faults"].values()) > 5
    assert report["receiver"]["good"] > 0
