"""Explanations through a running service."""

import hashlib
import time

import httpx

from tests.clips import hopper, make_clip
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
        after = client.get(job_id)
        assert (after.status, after.verdict, after.finished_at) == (job.status, job.verdict, job.finished_at)
        url = client.share(job_id).url
        page = httpx.get(url)
        assert "What raised the scores" in page.text
        name = found["images"][0]["name"]
        linked = url.replace("/report?", f"/report/explanations/{name}?")
        assert httpx.get(linked).status_code == 200
        assert httpx.get(linked.split("?")[0]).status_code == 404
        assert "data:image/webp;base64," in http.get(f"/v1/jobs/{job_id}/report.html").text
        assert http.delete(f"/v1/jobs/{job_id}").status_code == 204
        assert http.get(where).status_code == 404
        assert httpx.get(linked).status_code == 404
