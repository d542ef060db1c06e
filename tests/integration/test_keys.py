"""Creation of keys in a real database: valid owners and names."""

import uuid

import pytest
from click.testing import CliRunner
from sqlalchemy import select, update

from api.keys import InvalidKeyError, commands, create_key
from shared.models import APIKey

REFUSED = {
    "empty": ("", "is empty"),
    "blank": (" \t", "is empty"),
    "no-break space alone": ("\xa0", "is empty"),
    "leading blank": (" desk", "blank"),
    "trailing blank": ("desk ", "blank"),
    "line feed": ("a\nb", r"U\+000A"),
    "escape": ("a\x1b[2J", r"U\+001B"),
    "NUL": ("a\0", r"U\+0000"),
    "turned direction": ("a\u202eb", r"U\+202E"),
    "bytes that are no UTF-8": ("a\udcff", r"U\+DCFF"),
    "variation selector": ("alice\ufe0f", r"U\+FE0F"),
    "variation selector of a supplementary plane": ("alice\U000e0100", r"U\+E0100"),
    "grapheme joiner": ("alice\u034f", r"U\+034F"),
    "Hangul filler": ("\u3164", r"U\+3164"),
    "halfwidth Hangul filler": ("a\uffa0", r"U\+FFA0"),
    "Braille without a dot": ("\u2800", r"U\+2800"),
    "decomposed letter": ("Andre\u0301", "NFKC: write it as 'Andr\u00e9'"),
    "fullwidth letter": ("\uff41lice", "NFKC: write it as 'alice'"),
    "too long": ("x" * 201, "201 characters; the limit is 200"),
}


@pytest.fixture
def run(migrated_url, monkeypatch, tmp_path):
    given = {"DATABASE__URL": migrated_url, "BROKER__URL": "redis://x", "STORAGE__URL": f"file://{tmp_path}"}
    for name, value in given.items():
        monkeypatch.setenv(f"DEEPFAKESTREAM_{name}", value)
    return lambda *arguments: CliRunner().invoke(commands, arguments)


@pytest.fixture
def owner():
    return f"owner-{uuid.uuid4().hex}"


def keys_of(sessions, owner):
    with sessions.transaction() as session:
        return session.scalars(select(APIKey.name).where(APIKey.owner == owner)).all()


@pytest.mark.parametrize("field", ["owner", "name"])
@pytest.mark.parametrize(("value", "why"), REFUSED.values(), ids=REFUSED)
def test_labels_that_are_invisible_or_ambiguous_are_refused(sessions, run, owner, field, value, why):
    given = {"owner": owner, "name": "desk", field: value}
    with sessions.transaction() as session, pytest.raises(InvalidKeyError, match=f"the {field} .*{why}"):
        create_key(session, **given, scopes=["jobs:read"])
    if "\0" not in value:
        done = run("create", "--owner", given["owner"], "--name", given["name"])
        assert done.exit_code == 2
        assert f"Error: the {field} " in done.output
        assert value.strip() == "" or value not in done.output
    assert keys_of(sessions, owner) == []


def test_labels_of_any_script_are_accepted(sessions, run, owner):
    assert run("create", "--owner", owner, "--name", "Редакция 編集部 é", "--scope", "jobs:read").exit_code == 0
    assert run("create", "--owner", owner, "--name", "x" * 200).exit_code == 0
    assert sorted(keys_of(sessions, owner)) == sorted(["Редакция 編集部 é", "x" * 200])


def test_an_unknown_scope_is_refused(sessions, owner):
    with sessions.transaction() as session, pytest.raises(InvalidKeyError, match="unknown scope 'jobs:all'"):
        create_key(session, owner=owner, name="desk", scopes=["jobs:read", "jobs:all"])


def test_old_labels_are_escaped_for_the_terminal(sessions, run, owner):
    with sessions.transaction() as session:
        made = create_key(session, owner=owner, name="desk", scopes=[])
        session.execute(update(APIKey).where(APIKey.id == made.row.id).values(name="a\x1b]0;x\x07\u202e"))
    said = run("list").output
    assert "a\\x1b]0;x\\x07\\u202e" in said
    assert [character for character in said if not (character.isprintable() or character == "\n")] == []
