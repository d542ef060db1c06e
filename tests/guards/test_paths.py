"""Every file and folder that the documents name or link to exists, also after it is renamed or moved."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# The change log names files as they were called in a release.
PATTERNS = ("*.md", "client/*.md", "docs/**/*.md")
DOCUMENTS = sorted({path for pattern in PATTERNS for path in ROOT.glob(pattern)} - {ROOT / "CHANGELOG.md"})
FOLDERS = "api|client|configs|docker|docs|helm|migrations|shared|tests|worker"
NAMED = re.compile(rf"`((?:{FOLDERS})/[\w./-]*[\w/])`")
LINKED = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")
MADE_LATER = re.compile(r"docker/secrets(/\w+)?|migrations/versions/NNNN_name\.py")
"""Files that a person creates by the instructions that name them."""


def test_documents_with_paths_and_links_are_found():
    texts = [path.read_text() for path in DOCUMENTS]
    assert sum(bool(NAMED.search(text)) for text in texts) >= 5
    assert sum(bool(LINKED.search(text)) for text in texts) >= 5


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_named_or_linked_path_exists(document):
    text = document.read_text()
    named = [path for path in NAMED.findall(text) if not MADE_LATER.fullmatch(path.rstrip("/"))]
    assert [path for path in named if not (ROOT / path).exists()] == []
    assert [path for path in LINKED.findall(text) if not (document.parent / path).exists()] == []
