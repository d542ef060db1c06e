"""The documents link only to pages and headings that exist, and name only paths of this repository that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
FOLDERS = "api|client|configs|docker|docs|helm|migrations|shared|tests|worker"
IGNORED_BY_GIT = ("docker/secrets/",)


def prose(page):
    """The text of *page* without its code blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def headings(page):
    """Anchors of the headings of *page*, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    titles = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title) for title in titles]
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def broken_links(page):
    """Relative links of *page* to a file or heading that does not exist."""
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not re.match(r"\w+:", link) and not (target.exists() and (not anchor or anchor in headings(target))):
            yield link


def missing_paths(page):
    """Paths in backticks below a folder of this repository that do not exist; patterns and placeholders are skipped."""
    for path in re.findall(rf"`((?:{FOLDERS})/[\w./-]+)(?:::\w+)?`", page.read_text()):
        if not (ROOT / path).exists() and "NNNN" not in path and not path.startswith(IGNORED_BY_GIT):
            yield path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_and_path_exists(page):
    assert [*broken_links(page), *missing_paths(page)] == []


def test_broken_links_and_paths_are_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A `title`\n[a](#a-title) [b](#none) [c](none.md) [d](https://a.example)\n`api/none.py` `api/`\n")
    assert list(broken_links(page)) == ["#none", "none.md"]
    assert list(missing_paths(page)) == ["api/none.py"]
