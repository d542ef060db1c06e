"""The examples of docs/integrations.md, run as they stand there."""

import ast
import asyncio
import inspect
import json
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from standardwebhooks import Webhook

from tests.clips import make_clip

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "integrations.md").read_text()
EXAMPLES = re.findall(r"(?s)```python\n# (\w+)\n(.*?)```", TEXT)
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

CLIENTS = {
    "flask": """
client = app.test_client()
def post(body, headers):
    return client.post("/hooks/deepfakes", data=body, headers=headers).status_code
""",
    "fastapi": """
from starlette.testclient import TestClient
client = TestClient(app)
def post(body, headers):
    return client.post("/hooks/deepfakes", content=body, headers=headers).status_code
""",
    "django": """
import django
from django.conf import settings
from django.test import Client
settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["testserver"], SECRET_KEY="x")
django.setup()
client = Client(enforce_csrf_checks=True)
def post(body, headers):
    return client.post("/hooks/deepfakes", body, content_type="application/json", headers=headers).status_code
""",
}
"""Framework → code that sends a request to the example by the framework's own client for tests."""
ASK = """
import json, sys
print(json.dumps([post(body, headers) for body, headers in json.loads(sys.stdin.read())]))
"""


def examples_of(kind):
    return [code for found, code in EXAMPLES if found == kind]


def signed(body):
    moment = datetime.now(UTC)
    return {
        "Webhook-Id": "msg_1",
        "Webhook-Timestamp": str(int(moment.timestamp())),
        "Webhook-Signature": Webhook(SECRET).sign("msg_1", moment, body),
    }


def test_every_example_is_run():
    assert len(EXAMPLES) == TEXT.count("```python")
    assert {kind for kind, _ in EXAMPLES} == {"notebook", *CLIENTS}


@pytest.mark.parametrize("framework", CLIENTS)
def test_a_receiver_takes_signed_events_and_refuses_others(framework):
    pytest.importorskip(framework, reason=f"{framework} is not installed; it comes with the extra dev")
    [code] = examples_of(framework)
    body = json.dumps({"type": "job.succeeded", "timestamp": "x", "data": job_document()})
    requests = [(body, signed(body)), (body + " ", signed(body)), (body, {})]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code + CLIENTS[framework] + ASK],
        input=json.dumps(requests),
        cwd=ROOT,
        env={"PYTHONPATH": "client", "WEBHOOK_SECRET": SECRET},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [204, 400, 400]
    assert "01a20d78-a9e9-755a-a1ee-3373ca532026: fake" in done.stderr


def job_document():
    from tests.unit.client.services import job

    return job("succeeded", verdict="fake")


def test_the_cells_of_a_notebook_run(stack, tmp_path, monkeypatch, capsys):
    (tmp_path / "media").mkdir()
    make_clip(tmp_path / "clip.mp4", seconds=2.0, fps=2.0)
    shutil.copy(tmp_path / "clip.mp4", tmp_path / "media" / "a.mp4")
    (tmp_path / "media" / "b.mp4").write_text("no media " * 99)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEEPFAKESTREAM_STATE", str(stack.state))
    cells = examples_of("notebook")
    assert len(cells) == 2

    async def run_all():
        for cell in cells:
            names = {"__name__": "__main__"}
            run = eval(compile(cell, "cell", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)  # noqa: S307
            if inspect.isawaitable(run):
                await run

    asyncio.run(run_all())
    lines = capsys.readouterr().out.splitlines()
    assert "succeeded: 100%" in lines
    assert any(re.match(r"media/a\.mp4 (real|fake|inconclusive|not_applicable)$", line) for line in lines)
    assert any(line.startswith("media/b.mp4 ") and "not_media" in line for line in lines)
