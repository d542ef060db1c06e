"""The scripts by which shells complete, with a real bash, and what they ask the program for."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent


@pytest.mark.parametrize(
    ("shell", "sign"), [("bash", "complete -o nosort -F"), ("zsh", "compdef"), ("fish", "complete --no-files")]
)
def test_each_shell_gets_its_script(command, shell, sign):
    done = command("completion", shell)
    assert done.exit_code == 0
    assert sign in done.stdout
    assert "_DEEPFAKESTREAM_COMPLETE" in done.stdout
    assert command("completion", "tcsh").exit_code == 2


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes_commands_options_and_values():
    script = """
    eval "$(deepfakestream completion bash)"
    offer() {
        COMPREPLY=(); COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
        _deepfakestream_completion "$1"; echo "${COMPREPLY[@]}"; }
    offer deepfakestream doc
    offer deepfakestream jobs --c
    offer deepfakestream completion z
    offer deepfakestream batch su
    offer deepfakestream usage --fr
    """
    done = subprocess.run(
        [shutil.which("bash"), "--norc", "-c", script],
        env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.split() == ["doctor", "--csv", "zsh", "submit", "--from"], done.stderr


def test_the_package_can_be_run_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "deepfakestream", "version"], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "0.1.0\n"), done.stderr


def test_files_are_completed_where_files_are_meant():
    asked = {"COMP_WORDS": "deepfakestream scan a", "COMP_CWORD": "2", "_DEEPFAKESTREAM_COMPLETE": "bash_complete"}
    done = subprocess.run(
        [BIN / "deepfakestream"],
        env={**os.environ, **asked},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout == "file,a\n"
