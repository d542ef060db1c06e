"""What scanning and installing cost is told in one way, and before it is paid."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_documents_agree_on_what_a_minute_costs():
    found = [
        re.findall(r"a minute of 360p video costs ([\d.]+ to [\d.]+ s)", (ROOT / "docs" / name).read_text())
        for name in ("operations.md", "performance.md")
    ]
    assert found[0] == found[1]
    assert len(found[0]) == 1


def test_installing_says_beforehand_how_much_it_takes():
    recipe = (ROOT / "Makefile").read_text().partition(".venv/.torch:")[2].partition("touch")[0]
    for branch in recipe.split("else"):
        assert "GB" in branch
        assert "minutes" in branch
        assert branch.index("echo") < branch.find("$(INSTALL)") or "$(INSTALL)" not in branch
