"""The example in TypeScript of docs/integrations.md, checked by types that the running service's document gives."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.clips import make_clip
from tests.tools import TYPESCRIPT, TYPESCRIPT_FOLDER, node, tool
from tests.unit.worker.explain.conftest import swapped_portrait

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "integrations.md").read_text()
MISTAKES = """
import createClient from "openapi-fetch";
import type { paths } from "./deepfakestream.js";

const client = createClient<paths>({ baseUrl: "https://deepfakes.example" });
// @ts-expect-error There is no such operation.
await client.GET("/v1/job/{job_id}", { params: { path: { job_id: "1" } } });
// @ts-expect-error The id is missing.
await client.GET("/v1/jobs/{job_id}", { params: { path: {} } });
const { data, error } = await client.GET("/v1/jobs/{job_id}", { params: { path: { job_id: "1" } } });
// @ts-expect-error There is no such field.
console.log(data?.score);
// @ts-expect-error There is no such verdict.
console.log(data?.verdict === "swapped");
// @ts-expect-error There is no such code.
console.log(error?.code === "not_there");
"""
"""Mistakes that the types have to show: the compiler refuses an expected error that is none."""


@pytest.fixture
def program(stack, tmp_path):
    """A folder with the example, as somebody has it who followed the document."""
    [code] = re.findall(r"(?s)```ts\n(// scan\.ts\n.*?)```", TEXT)
    (tmp_path / "scan.ts").write_text(code)
    (tmp_path / "mistakes.ts").write_text(MISTAKES)
    for name in ("package.json", "tsconfig.json"):
        shutil.copy(TYPESCRIPT_FOLDER / name, tmp_path)
    (tmp_path / "node_modules").symlink_to(tool(TYPESCRIPT) / "node_modules")
    run(
        "openapi-typescript/bin/cli.js", f"{stack.url}/openapi.json", "--output", "deepfakestream.d.ts", folder=tmp_path
    )
    return tmp_path


def run(script, *arguments, folder, **environment):
    """Run a script with Node.js in *folder* and return what it printed."""
    path = script if script.endswith(".ts") else folder / "node_modules" / script
    done = subprocess.run(
        [*node(), path, *arguments],
        cwd=folder,
        env={**os.environ, "NO_PROXY": "127.0.0.1", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(400)
def test_the_example_in_typescript_agrees_with_the_document_and_scans_a_file(stack, program):
    run("typescript/bin/tsc", folder=program)
    clip = make_clip(program / "clip.mp4", fps=2.0, seconds=2.0, size=(640, 360), faces=(swapped_portrait(),))
    key = stack.api_key_file.read_text().strip()
    printed = run("scan.ts", clip.name, folder=program, DEEPFAKESTREAM_URL=stack.url, DEEPFAKESTREAM_API_KEY=key)
    assert re.fullmatch(r"fake 0\.\d+\n", printed), printed


def test_the_versions_that_the_document_names_are_those_that_are_tested():
    versions = dict(re.findall(r'"([\w@/-]+)": "(\d+)[\d.]+"', (TYPESCRIPT_FOLDER / "package.json").read_text()))
    assert re.search(r"(?m)^npm install.*typescript@(\d+)", TEXT)[1] == versions["typescript"]
    assert re.search(r"Node\.js (\d+) runs", TEXT)[1] == versions["@types/node"]
    assert set(re.findall(r"openapi-\w+(?= )", re.search(r"(?m)^npm install.*$", TEXT)[0])) <= set(versions)
