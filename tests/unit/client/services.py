"""Answers of a service, and the state folder of a stack that appears to run."""

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

OWN_KEY = "dfs_of-the-stack-on-this-machine"


def job(status="succeeded", **changes):
    document = {
        "id": "01a20d78-a9e9-755a-a1ee-3373ca532026",
        "status": status,
        "created_at": "2026-01-02T03:04:05.678Z",
        "started_at": None,
        "finished_at": None,
        "progress": {"segments_total": None, "segments_done": 0, "fraction": 0.0},
        "media": None,
        "options": {},
        "metadata": {},
        "fake_score": None,
        "peak_score": None,
        "verdict": None,
        "reasons": [],
        "model": None,
        "error": None,
        "segments": [],
        "added_by_a_newer_service": True,
    }
    return document | changes


def answer(body, status=200, **headers):
    return status, {"Content-Type": "application/json", **headers}, json.dumps(body).encode()


def problem(status, code, **headers):
    return answer({"status": status, "code": code, "detail": "It is so.", "request_id": "r1"}, status, **headers)


def cut_off(status):
    """Return an answer that is cut off: the request was carried out."""
    return status, {"Content-Length": "1000", "Connection": "close"}, b"{"


@contextmanager
def running_state(folder: Path, url: str, *, key: str = OWN_KEY) -> Iterator[Path]:
    """Yield the state folder of a stack at *url*, as ``up`` keeps it while it runs."""
    (folder / "secrets").mkdir(parents=True)
    (folder / "secrets" / "api-key").write_text(f"{key}\n")
    connection = {"url": url, "api_key_file": str(folder / "secrets" / "api-key"), "environment": {}}
    (folder / "connection.json").write_text(json.dumps(connection))
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield folder
