"""Options and arguments that cannot be used are refused in one sentence."""

import subprocess
import sys

import click
import deepfakestream
import pytest
from deepfakestream import errors
from deepfakestream.cli import OWN_COMMANDS, main
from deepfakestream.verification import Check, Verification, describe_verification

from tests.unit.client.services import running_state


def test_a_command_imports_its_own_module_alone():
    code = """
import sys
from deepfakestream.cli import main
try:
    main(["scan", "--help"])
except SystemExit as end:
    names = sorted(name for name in sys.modules if name.startswith("deepfakestream.commands."))
    print(end.code, *(name.rpartition(".")[2] for name in names))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 context scanning submitting"


@pytest.mark.parametrize("name", OWN_COMMANDS)
def test_a_command_is_found_by_its_own_name(name):
    found = main.get_command(click.Context(main), name)
    assert found is not None
    assert found.name == name


@pytest.mark.parametrize("hours", ["nan", "inf", "-1", "0", "8761"])
def test_hours_of_a_link_outside_their_range_are_a_usage_error(command, hours):
    done = command("share", "0198", f"--hours={hours}")
    assert done.exit_code == 2, done.output
    assert "Invalid value for '--hours'" in done.output
    assert ("finite" if hours == "nan" else "1 minute to 365 days") in done.output


@pytest.mark.parametrize("option", ["--url", "--api-key", "--state"])
def test_an_option_that_stands_before_the_command_is_said_to(command, option):
    done = command("scan", option, "x", "a.mp4")
    assert done.exit_code == 2
    assert f"stands before the command: deepfakestream {option} … scan" in done.output
    assert "--all" not in done.output


@pytest.mark.parametrize("option", [None, "--media"])
def test_a_path_that_cannot_be_read_says_nothing_about_a_bundle(command, tmp_path, option):
    (tmp_path / "bundle.zip").write_bytes(b"PK")
    missing = tmp_path / "missing"
    done = command("verify", *([missing] if option is None else [tmp_path / "bundle.zip", option, missing]))
    assert done.exit_code == 2
    assert f"{missing} cannot be read (No such file or directory)" in done.output
    assert "acceptable" not in done.output


@pytest.mark.parametrize("key", ["missing.pem", "12ab", "."])
def test_a_key_that_cannot_be_read_says_nothing_about_a_bundle(command, tmp_path, key):
    (tmp_path / "bundle.zip").write_bytes(b"PK")
    done = command("verify", tmp_path / "bundle.zip", "--key", key)
    assert done.exit_code == 2, done.output
    assert "neither a key id" in done.output
    assert "acceptable" not in done.output


def test_an_empty_key_is_not_replaced_by_another_one(command, server, tmp_path):
    with running_state(tmp_path / "state", server.url) as state:
        done = command("--state", state, "--api-key", "", "jobs")
    assert done.exit_code == 1
    assert "the key that --api-key gives is empty" in done.output
    assert server.requests == []


def test_other_media_leaves_the_bundle_intact():
    found = Verification([Check("signature", True, "Signed."), Check("media", False, "b is not the media of the job")])
    assert "The bundle itself is intact, but the file that you gave is NOT its media." in describe_verification(found)
    found.checks[0] = Check("signature", False, "No.")
    assert "intact" not in describe_verification(found)


def test_every_error_can_be_imported_from_the_package():
    kinds = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert kinds <= set(deepfakestream.__all__)
    assert all(getattr(deepfakestream, name) is getattr(errors, name) for name in kinds)
