"""The documents agree on what scanning costs, and installing says beforehand what it costs."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_documents_state_the_same_scan_time_per_minute_of_video():
    found = [
        re.findall(
            r"a minute of 360p video costs ([\d.]+ to [\d.]+ s)", " ".join((ROOT / "docs" / name).read_text().split())
        )
        for name in ("operations.md", "performance.md")
    ]
    assert found[0] == found[1]
    assert len(found[0]) == 1


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("index", ["", "https://index.example/cpu"], ids=["gpu", "cpu"])
def test_installing_announces_its_download_size_and_time(index):
    command = ["make", "--dry-run", "--always-make", f"TORCH_INDEX={index}", ".venv/.installed"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    before_downloads, _, _ = done.stdout.partition("pip install")
    assert re.search(r"echo .*\bGB\b.*\bminutes\b", before_downloads)
