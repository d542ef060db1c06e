"""The OpenAPI document: valid, complete, and true of the real server."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_schemathesis_finds_the_server_true_to_its_document(stack, tmp_path):
    key = stack.api_key_file.read_text().strip()
    program = Path(sys.executable).with_name("schemathesis")
    config = {
        # A token that schemathesis makes up stands in the place of ours; that it is refused has tests of its own.
        "checks": {"ignored_auth": {"enabled": False}},
    }
    (tmp_path / "schemathesis.toml").write_text("[checks]\nignored_auth.enabled = true\n")
    del config, yaml
    done = subprocess.run(
        [
            *(program, "--config-file", tmp_path / "schemathesis.toml", "run", f"{stack.url}/openapi.json"),
            *("--header", f"Authorization: Bearer {key}", "--max-examples", "25", "--seed", "1"),
            *("--checks", "all", "--phases", "examples,coverage,fuzzing", "--request-timeout", "20", "--no-color"),
            *("--generation-database", "none"),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
