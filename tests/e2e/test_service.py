"""The service end to end, with all real parts."""

import json
import socket
import subprocess
import sys
import time

import httpx
import pytest
from deepfakestream import verify_webhook
from PIL import Image
from standardwebhooks import Webhook

from api.embedded.demo_videos import make_demo_videos
from shared.queues import FINISH, INGEST, SCORE_SEGMENT, TIDY, UPKEEP
from tests.certificates import listening_without_trust
from tests.clips import astronaut, hopper, make_clip, run, without_frames
from tests.inside import environment_of
from tests.receiver import running_receiver
from tests.verdicts import SHIPPED, verdict_of
from worker.local import scan


@pytest.fixture(scope="module")
def two_people(tmp_path_factory):
    """Make a video of 12 seconds with two people, as H.264 without audio."""
    path = tmp_path_factory.mktemp("two") / "two.mp4"
    return make_clip(path, seconds=12.0, size=(640, 360), faces=(astronaut(), hopper()))


def test_a_video_is_scored_by_segment_and_on_average(client, two_people):
    job = client.wait(client.submit(two_people, metadata={"case": 7}).id, timeout_s=120)
    assert job.status == "succeeded"
    assert (job.verdict, job.reasons) == verdict_of(job.raw)
    assert job.metadata == {"case": 7}
    assert [(segment.start_s, segment.end_s) for segment in job.segments] == [(0.0, 5.0), (5.0, 12.0)]
    scores = [segment.fake_score for segment in job.segments]
    assert job.fake_score == pytest.approx(sum(scores) / len(scores), abs=1e-6)
    assert job.peak_score == max(scores)
    model, calibration = job.model, SHIPPED.calibration
    assert (model.name, model.version, model.trained) == (SHIPPED.name, SHIPPED.version, True)
    assert model.weights_sha256 == SHIPPED.weights.sha256
    assert (model.threshold, model.uncertainty_band) == (calibration.threshold, calibration.uncertainty_band)
    segments = list(client.segments(job.id))
    assert [len(segment.people) for segment in segments] == [2, 2]
    for segment in segments:
        assert segment.fake_score == max(person.fake_score for person in segment.people)
        for person in segment.people:
            for face in person.faces:
                left, top, right, bottom = face.box_px
                assert -20 < left < right < 660
                assert -20 < top < bottom < 380
                assert segment.start_s <= face.time_s < segment.end_s


def test_an_image_is_one_segment(client, tmp_path):
    Image.fromarray(hopper()).save(tmp_path / "a.jpg")
    job = client.wait(client.submit(tmp_path / "a.jpg").id, timeout_s=60)
    assert (job.status, len(job.segments), job.duration_s) == ("succeeded", 1, None)
    assert job.fake_score == job.peak_score == job.segments[0].fake_score


def test_the_faces_of_a_job_are_counted_with_its_end(stack, client, tmp_path):
    def count():
        command = [sys.executable, "-m", "api.digest", "--json"]
        done = subprocess.run(command, env=environment_of(stack), capture_output=True, check=True)
        found = json.loads(done.stdout)["inputs"]
        # By a checkpoint that is not the default, since jobs that other tests left behind end meanwhile.
        found = [each for each in found if (each["kind"], each["model"]) == ("image", "swap-lite0")]
        return sum(each["jobs"] for each in found), sum(each["faces"] for each in found)

    jobs, faces = count()
    Image.fromarray(hopper()[:, :270]).save(tmp_path / "a.jpg")
    client.wait(client.submit(tmp_path / "a.jpg", model="swap-lite0").id, timeout_s=60)
    assert count() == (jobs + 1, faces + 1)


def test_a_file_without_a_face_is_not_applicable(client, tmp_path):
    job = client.wait(client.submit(make_clip(tmp_path / "a.mp4", faces=())).id, timeout_s=60)
    assert (job.verdict, job.reasons, job.fake_score) == ("not_applicable", ("no_face",), None)


def test_the_displayed_video_track_is_scored_and_the_other_is_reported(client, tmp_path):
    for name, faces in (("empty", ()), ("face", (astronaut(),))):
        make_clip(tmp_path / f"{name}.mp4", faces=faces)
    tracks = (
        "-i",
        str(tmp_path / "empty.mp4"),
        "-i",
        str(tmp_path / "face.mp4"),
        "-map",
        "0",
        "-map",
        "1",
        "-c",
        "copy",
    )
    run(*tracks, "-disposition:v:0", "0", "-disposition:v:1", "default", str(tmp_path / "two.mp4"))
    job = client.wait(client.submit(tmp_path / "two.mp4").id, timeout_s=120)
    assert job.segments[0].faces_scored == 4
    assert job.verdict != "real"
    assert "other_video_tracks" in job.reasons
    media = job.raw["media"]
    assert (media["video_track"], media["other_video_tracks"], media["dynamic_range"]) == (1, 1, "sdr")


def test_the_service_and_a_local_scan_give_the_same_scores(client, two_people):
    job = client.wait(client.submit(two_people).id, timeout_s=120)
    local = scan(two_people)
    assert local["fake_score"] == pytest.approx(job.fake_score, abs=1e-5)
    assert [segment["fake_score"] for segment in local["segments"]] == pytest.approx(
        [segment.fake_score for segment in job.segments], abs=1e-5
    )
    assert set(local) == set(job.raw)


@pytest.mark.shared_data
def test_every_research_clip_reaches_a_result(client, research_data):
    jobs = {path.name: client.submit(path) for path in sorted((research_data / "videos").glob("*.mp4"))}
    done = {name: client.wait(job.id, timeout_s=240) for name, job in jobs.items()}
    assert {job.status for job in done.values()} == {"succeeded"}
    assert done["no-face-bottles.mp4"].verdict == "not_applicable"
    assert done["no-face-bottles.mp4"].reasons == ("no_face",)
    assert max(segment.people_count for segment in done["crowd-1080p.mp4"].segments) >= 3
    for job in done.values():
        covered = sum(segment.end_s - segment.start_s for segment in job.segments)
        assert abs(covered - job.duration_s) * job.raw["media"]["frame_rate"] <= 1.0


def test_damage_that_only_decoding_shows_fails_the_job_with_a_code(client, tmp_path):
    path = without_frames(make_clip(tmp_path / "a.mp4", extra=("-movflags", "+faststart")))
    job = client.wait(client.submit(path).id, timeout_s=60)
    assert (job.status, job.error.code) == ("failed", "truncated")
    assert str(tmp_path) not in job.error.detail


def test_a_segment_that_does_not_decode_fails_alone_after_counted_attempts(client, stack, tmp_path):
    path = make_clip(tmp_path / "a.mp4", seconds=12.0, extra=("-g", "10", "-movflags", "+faststart"))
    content = bytearray(path.read_bytes())
    begin = content.index(b"mdat") + 4
    size = len(content) - begin
    # The data from about 3.6 s to 8.4 s is damaged.
    first, last = begin + size * 30 // 100, begin + size * 70 // 100
    content[first:last] = bytes(last - first)
    path.write_bytes(content)
    job = client.wait(client.submit(path, segment_seconds=4.0).id, timeout_s=120)
    assert (job.status, job.verdict, job.reasons) == ("succeeded", *verdict_of(job.raw))
    assert job.verdict != "real"
    assert "segments_failed" in job.reasons
    assert [segment.status for segment in job.segments] == ["scored", "failed", "scored"]
    assert job.segments[1].error.code == "decode_failed"
    scores = [segment.fake_score for segment in job.segments if segment.fake_score is not None]
    assert job.fake_score == pytest.approx(sum(scores) / 2, abs=1e-6)
    assert failed_attempts(stack, "worker-gpu", job) == [1, 2, 3]


def failed_attempts(stack, worker, job):
    """Return the numbers of the attempts of *job* that failed in a worker."""
    logs = (stack.state / "logs" / f"{worker}.log").read_text()
    return [
        event["attempt"]
        for event in (json.loads(line) for line in logs.splitlines() if line.startswith("{"))
        if event.get("job_id") == job.id and event["event"] == "step failed"
    ]


def test_a_url_source_is_fetched(client, clip):
    with running_receiver() as server:
        server.files["/clip"] = clip.read_bytes()
        job = client.wait(client.submit(url=f"{server.url}/clip").id, timeout_s=60)
    assert job.status == "succeeded"
    assert job.raw["media"]["size_bytes"] == clip.stat().st_size


def test_a_url_source_that_is_refused_fails_the_job(client):
    with running_receiver() as server:
        job = client.wait(client.submit(url=f"{server.url}/absent").id, timeout_s=60)
    assert (job.status, job.error.code) == ("failed", "source_refused")


def test_a_url_source_that_cannot_prove_its_name_fails_at_once_and_one_that_breaks_off_is_tried_again(
    client, stack, tmp_path
):
    with listening_without_trust(tmp_path) as port:
        untrusted = client.wait(client.submit(f"https://127.0.0.1:{port}/clip.mp4").id, timeout_s=60)
    assert (untrusted.status, untrusted.error.code) == ("failed", "source_unreachable")
    assert failed_attempts(stack, "worker-cpu", untrusted) == [1]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60)
        broken = client.submit(f"http://127.0.0.1:{listener.getsockname()[1]}/clip.mp4")
        listener.accept()[0].close()
        with listener.accept()[0]:
            # While its second attempt waits for an answer.
            assert client.cancel(broken.id).status == "cancelled"
    assert failed_attempts(stack, "worker-cpu", broken)[:1] == [1]


def test_a_webhook_is_signed_and_its_attempts_are_logged(client, stack, clip):
    secret = stack.webhook_secret_file.read_text().strip()
    with running_receiver() as receiver:
        job = client.submit(clip, webhook_url=f"{receiver.url}/hook", segment_seconds=3.0)
        job = client.wait(job.id, timeout_s=60)
        deadline = time.monotonic() + 20
        while not receiver.requests and time.monotonic() < deadline:
            time.sleep(0.05)
        (request,) = receiver.requests
        # Verify with the specification's library, and with the SDK.
        Webhook(secret).verify(request.body.decode(), {k.lower(): v for k, v in request.headers.items()})
        event = verify_webhook(request.headers, request.body, secret)
        assert event["type"] == "job.succeeded"
        assert event["data"] == job.raw
        while (log := client.deliveries(job.id))[-1].status != "succeeded" and time.monotonic() < deadline:
            time.sleep(0.05)
        assert [(delivery.number, delivery.response_status) for delivery in log] == [(1, 204)]
        again = client.redeliver(job.id, 1)
        assert again.number == 2
        while len(receiver.requests) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        ids = {request.headers["webhook-id"] for request in receiver.requests}
        assert len(ids) == 1


def test_a_failed_webhook_is_repeated_and_410_switches_the_receiver_off(client, clip):
    with running_receiver() as receiver:
        url = f"{receiver.url}/gone"
        receiver.answers = [(302, {"Location": f"{receiver.url}/elsewhere"}, b""), (410, {}, b"no more")]
        job = client.wait(client.submit(clip, webhook_url=url).id, timeout_s=60)
        deadline = time.monotonic() + 40
        while len(receiver.requests) < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        while client.deliveries(job.id)[-1].response_status is None and time.monotonic() < deadline:
            time.sleep(0.1)
        log = client.deliveries(job.id)
        assert [delivery.response_status for delivery in log] == [302, 410]
        assert log[1].raw["response_excerpt"] == "no more"
        assert {request.path for request in receiver.requests} == {"/gone"}
        other = client.wait(client.submit(clip, webhook_url=url).id, timeout_s=60)
        assert client.deliveries(other.id) == ()


def test_a_cancelled_job_ends_and_says_so(client, two_people):
    job = client.submit(two_people, sample_fps=30.0)
    cancelled = client.cancel(job.id)
    assert cancelled.status == "cancelled"
    assert client.cancel(job.id).status == "cancelled"
    time.sleep(2.0)
    assert client.get(job.id).status == "cancelled"


def test_an_erased_job_is_gone_with_its_file(client, stack, tmp_path):
    path = make_clip(tmp_path / "a.mp4", frames=7)
    job = client.wait(client.submit(path).id, timeout_s=60)
    size = path.stat().st_size
    stored = [file for file in (stack.state / "storage" / "media").iterdir() if file.stat().st_size == size]
    assert len(stored) == 1
    client.delete(job.id)
    assert not stored[0].exists()
    with pytest.raises(Exception, match="not_found"):
        client.get(job.id)


@pytest.fixture
def flower(stack):
    password = stack.flower_password_file.read_text().strip()
    with httpx.Client(base_url=stack.flower_url, auth=("operator", password), trust_env=False, timeout=10) as client:
        yield client


def test_flower_asks_for_a_password_and_shows_both_workers(flower):
    assert httpx.get(flower.base_url, trust_env=False).status_code == 401
    deadline = time.monotonic() + 30
    names: set[str] = set()
    while len(names) < 2 and time.monotonic() < deadline:
        answer = flower.get("/workers", params={"json": 1})
        names = {worker["hostname"].split("-")[0] for worker in answer.json()["data"]}
        time.sleep(0.2)
    assert names == {"cpu", "gpu"}


def test_flower_lists_the_tasks_of_jobs_and_not_the_upkeep_of_every_other_second(client, flower, clip):
    client.wait(client.submit(clip).id, timeout_s=60)
    deadline = time.monotonic() + 30
    names: set[str] = set()
    while not names >= {INGEST, SCORE_SEGMENT, FINISH} and time.monotonic() < deadline:
        names = {task["name"] for task in flower.get("/api/tasks").json().values()}
        time.sleep(0.2)
    assert names >= {INGEST, SCORE_SEGMENT, FINISH}
    # The stack has run for longer than the pause between two runs of it.
    assert not names & {UPKEEP, TIDY}


def test_metrics_of_api_and_workers_count_what_was_done(client, stack, clip):
    client.wait(client.submit(clip).id, timeout_s=60)
    api = httpx.get(f"{stack.url}/metrics", trust_env=False).text
    assert 'deepfakestream_jobs_accepted_total{source="upload"}' in api
    workers = "".join(httpx.get(url, trust_env=False).text for url in stack.metrics_urls)
    assert 'deepfakestream_task_seconds_count{outcome="done",task="score_segment"}' in workers
    assert 'deepfakestream_jobs_ended_total{status="succeeded"}' in workers
    for stage in ("probe", "fetch", "decode", "detect", "classify", "record"):
        assert f'deepfakestream_stage_seconds_count{{stage="{stage}"}}' in workers
    assert "deepfakestream_fake_score_count" in workers
    assert "deepfakestream_verdicts_total" in workers
    assert 'deepfakestream_open_jobs{status="queued"}' in api


def test_logs_are_json_with_the_jobs_id_and_no_file_name(client, stack, tmp_path):
    path = make_clip(tmp_path / "very-private-name.mp4", frames=3)
    job = client.wait(client.submit(path).id, timeout_s=60)
    logs = "".join(file.read_text() for file in (stack.state / "logs").glob("*.log"))
    events = [json.loads(line) for line in logs.splitlines() if line.startswith("{")]
    assert {"ingest", "score_segment", "finish"} <= {
        event.get("task") for event in events if event.get("job_id") == job.id
    }
    assert "very-private-name" not in logs


def test_five_swapped_seconds_in_a_real_minute_are_located(tmp_path):
    real, swapped = make_demo_videos(tmp_path)
    parts = [*[(real, 10.0)] * 3, (swapped, 5.0), *[(real, 10.0)] * 2]
    listed = tmp_path / "parts.txt"
    listed.write_text("".join(f"file '{path}'\noutpoint {seconds}\n" for path, seconds in parts))
    joined = tmp_path / "joined.mp4"
    run("-f", "concat", "-safe", "0", "-i", str(listed), "-c:v", "libx264", "-crf", "18", str(joined))
    job = scan(joined)
    assert (job["verdict"], job["reasons"]) == ("fake", ["short_manipulation"])
    assert job["fake_score"] < job["evidence"]["fake_from"]
    [stretch] = job["suspicious"]
    assert (stretch["start_s"], stretch["end_s"]) == (pytest.approx(30.5, abs=0.6), pytest.approx(35.5, abs=0.6))
    people = {person["person"]: person for person in job["people"]}
    assert job["people_total"] == len(people) == 2
    assert people[stretch["person"]]["verdict"] == "fake"
    assert people[1 - stretch["person"]]["verdict"] == "real"


def test_the_demo_videos_get_the_verdicts_in_the_readme(tmp_path):
    videos = make_demo_videos(tmp_path)
    assert [video.name for video in videos] == ["real.mp4", "swapped.mp4"]
    for video, expected in zip(videos, ("real", "fake"), strict=True):
        job = scan(video)
        assert job["verdict"] == expected
        scores = [segment["fake_score"] for segment in job["segments"]]
        *people, nobody = scores
        assert len(people) == 3
        assert all(0.0 <= score <= 1.0 for score in people)
        assert nobody is None, "the fourth scene is empty"
        assert job["fake_score"] == pytest.approx(sum(people) / 3, abs=1e-6)
        assert job["peak_score"] == max(people)
        assert (job["verdict"], tuple(job["reasons"])) == verdict_of(job)
        assert job["model"]["weights_sha256"] == SHIPPED.weights.sha256
