"""The OpenAPI document is valid, complete, and describes the real server."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.timeout(280)
@pytest.mark.parametrize(
    ("phases", "examples", "hooks"),
    [
        ("examples", 25, "long_urls"),
        ("coverage,fuzzing", 5, "without_examples"),
        pytest.param("fuzzing", 25, "without_examples", marks=pytest.mark.nightly),
    ],
)
def test_the_server_conforms_to_its_openapi_document(stack, tmp_path, phases, examples, hooks):
    key = stack.api_key_file.read_text().strip()
    program = Path(sys.executable).with_name("schemathesis")
    done = subprocess.run(
        [
            *(program, "run", f"{stack.url}/openapi.json"),
            *("--header", f"Authorization: Bearer {key}", "--max-examples", str(examples), "--seed", "1"),
            # A cursor, a model's name or a file can match the schema and still be refused.
            *("--exclude-checks", "positive_data_acceptance"),
            *("--checks", "all", "--phases", phases, "--request-timeout", "20", "--no-color"),
            *("--generation-database", "none"),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=os.environ | {"SCHEMATHESIS_HOOKS": f"tests.integration.api.{hooks}", "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
