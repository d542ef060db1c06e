"""Explanations through a running service."""

import hashlib
import json
import time

import httpx
from deepfakestream.verification import verify_bundle

from tests.clips import hopper, make_clip
from tests.e2e.test_command_line import deepfakestream
from tests.unit.worker.explain.conftest import swapped_portrait


def test_a_job_is_explained_shown_and_erased(stack, client, tmp_path):
    clip = make_clip(tmp_path / "two.mp4", fps=2.0, seconds=3.0, size=(640, 360), faces=(swapped_portrait(), hopper()))
    with httpx.Client(
        base_url=stack.url, headers={"Authorization": f"Bearer {stack.api_key_file.read_text().strip()}"}, timeout=60
    ) as http:
        with clip.open("rb") as file:
            made = http.post("/v1/jobs", data={"explain": "true"}, files={"file": file})
        assert made.status_code == 202, made.text
        assert made.json()["explanation"] == {"status": "pending"}
        job_id = made.json()["id"]
        job = client.wait(job_id, timeout_s=120)
        where = f"/v1/jobs/{job_id}/explanations"
        deadline = time.monotonic() + 120
        while (found := http.get(where).json())["status"] in ("pending", "running"):
            assert time.monotonic() < deadline, found
            time.sleep(0.2)
        assert found["status"] == "succeeded", found
        assert {person["person"] for person in found["people"]} == {0, 1}
        for image in found["images"]:
            answer = http.get(f"{where}/{image['name']}")
            assert answer.headers["Content-Type"] == "image/webp"
            assert hashlib.sha256(answer.content).hexdigest() == image["sha256"]
        assert http.post(where).json() == found
        assert http.get(f"{where}/person-0-crop.png").status_code == 422
        bundle = verify_bundle(client.evidence(job_id, tmp_path / "bundle.zip"), media=clip)
        assert bundle.passed, bundle.checks
        assert bundle.is_explained
        after = client.get(job_id)
        assert (after.status, after.verdict, after.finished_at) == (job.status, job.verdict, job.finished_at)
        url = client.share(job_id).url
        page = httpx.get(url)
        assert "Where the detector reacted" in page.text
        name = found["images"][0]["name"]
        linked = url.replace("/report?", f"/report/explanations/{name}?")
        assert httpx.get(linked).status_code == 200
        assert httpx.get(linked.split("?")[0]).status_code == 404
        assert "data:image/webp;base64," in http.get(f"/v1/jobs/{job_id}/report.html").text
        assert http.delete(f"/v1/jobs/{job_id}").status_code == 204
        assert http.get(where).status_code == 404
        assert httpx.get(linked).status_code == 404


def test_the_command_line_and_the_sdk_explain_a_job(stack, client, tmp_path):
    clip = make_clip(tmp_path / "one.mp4", fps=2.0, seconds=2.0, size=(640, 360), faces=(swapped_portrait(),))
    scanned = deepfakestream("scan", "--explain", "--json", clip, state=stack.state)
    assert scanned.returncode == 0, scanned.stdout + scanned.stderr
    job = json.loads(scanned.stdout)["job"]
    assert job["explanation"] is not None
    made = client.wait_for_explanation(job["id"], timeout_s=120)
    (person,) = made.people
    done = deepfakestream("explain", job["id"], "--out", tmp_path / "out", state=stack.state)
    assert done.returncode == 0, done.stderr
    hidden = f"{person.score_without_hottest_tenth:.4f} instead of {person.explained_score:.4f}"
    assert f"person {person.person}: face at" in done.stdout
    assert hidden in done.stdout
    written = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (tmp_path / "out").iterdir()}
    assert written == {image.name: image.sha256 for image in made.images}
    assert client.explanation_image(job["id"], person.images.map) == (tmp_path / "out" / person.images.map).read_bytes()
