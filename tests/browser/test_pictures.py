"""The steps of the tutorial, taken as it says: every picture that the documents show can be made anew."""

import re

from tests.browser.tutorial import ROOT, TUTORIAL, make_pictures

MAX_BYTES = 150_000


def test_every_picture_of_the_tutorial_is_made_by_its_steps(browser, tmp_path):
    made = {path.relative_to(tmp_path).as_posix(): path.stat().st_size for path in make_pictures(browser, tmp_path)}
    shown = set(re.findall(r"!\[[^\]]*\]\(([^)]+)\)", TUTORIAL.read_text()))
    assert shown == made.keys()
    assert all((ROOT / "docs" / name).is_file() for name in shown)
    assert max(made.values()) < MAX_BYTES
