"""Both clients find the service and the key as the command line does."""

import os
import time
from pathlib import Path

import pytest
from deepfakestream import AddressError, MissingKeyError, MissingPartError, embedded_state

from tests.unit.client.services import OWN_KEY, answer, running_state

NO_JOBS = answer({"items": [], "next_cursor": None})


def key_sent(server, connect, *arguments, **named):
    """Return the key with which a client that is made with these arguments lists jobs."""
    server.answers = [NO_JOBS]
    with connect(*arguments, **named) as client:
        assert list(client.list()) == []
    (request,) = server.requests
    return request.headers["Authorization"].removeprefix("Bearer ")


def test_the_environment_names_the_service_and_the_key(server, connect, monkeypatch):
    monkeypatch.setenv("DEEPFAKESTREAM_URL", server.url)
    monkeypatch.setenv("DEEPFAKESTREAM_API_KEY", "dfs_environment")
    assert key_sent(server, connect) == "dfs_environment"


def test_arguments_come_before_the_environment(server, connect, monkeypatch):
    monkeypatch.setenv("DEEPFAKESTREAM_URL", "https://deepfakes.example")
    monkeypatch.setenv("DEEPFAKESTREAM_API_KEY", "dfs_environment")
    assert key_sent(server, connect, server.url, "dfs_argument") == "dfs_argument"


@pytest.mark.parametrize("way", ["found", "argument", "environment"])
def test_the_stack_on_this_machine_is_used_if_nothing_is_named(server, connect, monkeypatch, tmp_path, way):
    with running_state(tmp_path / "state", server.url) as state, embedded_state.announce_stack(state):
        if way == "environment":
            monkeypatch.setenv("DEEPFAKESTREAM_STATE", str(state))
        assert key_sent(server, connect, state=str(state) if way == "argument" else None) == OWN_KEY


def test_without_any_the_error_is_that_of_the_command_line(command, connect):
    with pytest.raises(MissingPartError) as raised:
        connect()
    assert "set DEEPFAKESTREAM_URL and DEEPFAKESTREAM_API_KEY" in str(raised.value)
    assert str(raised.value) in command("jobs").output


@pytest.mark.parametrize(
    ("arguments", "environment", "kind", "why"),
    [
        pytest.param(["https://a.example"], {}, MissingKeyError, "with api_key or DEEPFAKESTREAM_API_KEY", id="no key"),
        pytest.param(
            ["https://a.example"],
            {"DEEPFAKESTREAM_URL": "https://b.example", "DEEPFAKESTREAM_API_KEY": "dfs_b"},
            MissingKeyError,
            "DEEPFAKESTREAM_API_KEY is for DEEPFAKESTREAM_URL",
            id="key of another service",
        ),
        pytest.param([None, ""], {}, MissingKeyError, "the key that api_key gives is empty", id="empty key"),
        pytest.param(
            [""], {"DEEPFAKESTREAM_URL": "https://b.example"}, AddressError, "address of a service", id="empty address"
        ),
    ],
)
def test_what_is_missing_is_said_in_the_words_of_the_sdk(connect, monkeypatch, arguments, environment, kind, why):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(kind, match=why):
        connect(*arguments)


def test_of_several_stacks_one_has_to_be_chosen(connect, tmp_path):
    with (
        running_state(tmp_path / "one", "http://127.0.0.1:9") as one,
        running_state(tmp_path / "two", "http://127.0.0.1:9") as two,
        embedded_state.announce_stack(one),
        embedded_state.announce_stack(two),
        pytest.raises(MissingPartError, match="choose one with state, of"),
    ):
        connect()


def test_an_entry_that_another_stack_removes_meanwhile_hides_no_stack(monkeypatch, tmp_path):
    """Both remove the entry of a stack that was killed, the other one between the look into the folder and the read."""
    folder = embedded_state.default_state_folder() / embedded_state.RUNNING_FOLDER
    folder.mkdir(parents=True)
    killed, read_bytes = folder / "0", Path.read_bytes
    killed.write_bytes(os.fsencode(tmp_path / "killed"))

    def read_late(path):
        if path == killed:
            path.unlink(missing_ok=True)
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", read_late)
    with (
        running_state(tmp_path / "state", "http://127.0.0.1:9") as state,
        embedded_state.announce_stack(state) as is_found,
    ):
        assert is_found
        killed.write_bytes(b"as before")
        assert embedded_state.running_state_folders() == [state]


def test_what_a_stack_left_that_was_killed_while_it_announced_itself_is_removed(tmp_path):
    folder = embedded_state.default_state_folder() / embedded_state.RUNNING_FOLDER
    folder.mkdir(parents=True)
    left, being_written = folder / ".left", folder / ".new"
    for part in (left, being_written):
        part.write_bytes(b"")
    long_ago = time.time() - 3600
    os.utime(left, (long_ago, long_ago))
    with (
        running_state(tmp_path / "state", "http://127.0.0.1:9") as state,
        embedded_state.announce_stack(state) as is_found,
    ):
        assert is_found
        assert embedded_state.running_state_folders() == [state]
    assert list(folder.iterdir()) == [being_written]
