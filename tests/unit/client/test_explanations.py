"""Explanations by the SDK and the command line, from a real HTTP server that answers as services do, or are hostile."""

import io
import json
import time

import pytest
from deepfakestream import Client, Explanation
from deepfakestream.errors import ConflictError, NotFoundError, UnexpectedAnswerError, WaitTimeoutError
from deepfakestream.requests.explanations import MAX_IMAGE_BYTES

from tests.unit.client.explained import IMAGE, explained_person, explanation, image_answer
from tests.unit.client.services import answer, job, problem, running_state

PATH = "/v1/jobs/x/explanations"
MISSING = problem(404, "not_found")


@pytest.fixture
def client(server, no_pauses, connect):  # noqa: ARG001 - it changes how the client pauses
    with connect(server.url, "dfs_key") as connected:
        yield connected


@pytest.fixture
def explain(command, server):
    """Run the command ``explain`` with given answers of the service."""

    def run(answers, *arguments):
        server.answers = [*answers]
        return command("--url", server.url, "--api-key", "dfs_x", "explain", "x", *arguments)

    return run


def asked(server):
    return [(request.method, request.path.removeprefix(PATH)) for request in server.requests]


def test_an_explanation_is_requested_and_read(server, client):
    document = explanation("succeeded", explained_person(3))
    server.answers = [answer(explanation("pending"), 202), answer(document)]
    pending, made = client.explain("x"), client.explanation("x")
    assert (pending.status, pending.is_final, pending.people) == ("pending", False, ())
    assert (made.is_final, made.images_stored, made.raw) == (True, True, document)
    (person,) = made.people
    assert (person.person, person.time_s, person.images.map) == (3, 61.5, "person-3-map.webp")
    assert (person.thumbnails[0].fake_score, person.thumbnails[0].box_px) == (0.25, (1.0, 2.0, 3.0, 4.0))
    assert asked(server) == [("POST", ""), ("GET", "")]


@pytest.mark.parametrize(("given", "sent"), [({}, None), ({"explain": True}, True), ({"explain": False}, False)])
def test_every_way_to_submit_carries_the_request(server, client, given, sent):
    upload = {"id": "u", "method": "PUT", "url": f"{server.url}/put", "headers": {}}
    made = answer(job("queued"), 202)
    server.answers = [made, made, answer(upload, 201), (200, {}, b""), made, made]
    client.submit(io.BytesIO(b"x"), **given)
    client.submit(url="https://a.example/x", **given)
    client.submit(io.BytesIO(b"x"), direct=True, **given)
    client.rescore("x", **given)
    in_query, by_url, _, _, direct, rescored = server.requests
    assert ("explain=" in in_query.path) == (sent is not None)
    assert f"explain={json.dumps(sent)}" in in_query.path or sent is None
    assert [json.loads(each.body).get("explain") for each in (by_url, direct, rescored)] == [sent] * 3


@pytest.mark.parametrize("last", ["succeeded", "failed"])
def test_waiting_polls_until_it_is_made_or_failed(server, client, last):
    server.answers = [answer(explanation(status)) for status in ("pending", "running", last)]
    assert client.wait_for_explanation("x", poll_s=0.0).status == last
    assert asked(server) == [("GET", "")] * 3


@pytest.mark.parametrize(
    ("asked_s", "given", "paused_s"), [(None, {}, 0.5), (2.0, {}, 2.0), (2.0, {"poll_s": 0.1}, 0.1), (1e9, {}, 60.0)]
)
def test_waiting_asks_again_when_the_service_says(server, connect, pauses, asked_s, given, paused_s):
    server.answers = [answer(explanation("pending", poll_after_s=asked_s)), answer(explanation())]
    with connect(server.url, "dfs_key") as client:
        client.wait_for_explanation("x", **given)
    assert pauses == [pytest.approx(paused_s, abs=0.1)]


def test_waiting_ends_in_time(server, client):
    server.answers = [answer(explanation("running"))] * 50
    began = time.monotonic()
    with pytest.raises(WaitTimeoutError, match=r"not made within 0\.2 s; it goes on"):
        client.wait_for_explanation("x", timeout_s=0.2, poll_s=30.0)
    assert 0.2 <= time.monotonic() - began < 15


@pytest.mark.parametrize(
    "bad",
    [
        image_answer(b"x" * (MAX_IMAGE_BYTES + 1)),
        image_answer(b"<script>", "text/html"),
        answer({}),
    ],
    ids=["too long", "a page", "a document"],
)
def test_what_is_no_image_of_a_sensible_size_is_not_returned(server, client, bad):
    server.answers = [image_answer(), bad]
    assert client.explanation_image("x", "person-0-map.webp") == IMAGE
    with pytest.raises(UnexpectedAnswerError):
        client.explanation_image("x", "person-0-map.webp")


@pytest.mark.parametrize(("status", "kind"), [(404, NotFoundError), (409, ConflictError), (410, NotFoundError)])
def test_problems_of_images_are_errors(server, client, status, kind):
    server.answers = [problem(status, "some_code")]
    with pytest.raises(kind):
        client.explanation_image("x", "person-0-map.webp")


@pytest.mark.parametrize(
    "change",
    [{"people": {}}, {"people": [{}]}, {"status": 7}, {"images": [{"name": "a"}]}, {"people": [explained_person("0")]}],
)
def test_a_document_of_another_shape_is_refused(server, client, change):
    server.answers = [answer(explanation("succeeded", explained_person()) | change)]
    with pytest.raises(UnexpectedAnswerError, match="it is no explanation: "):
        client.explanation("x")


def test_results_can_be_built_by_the_names_of_their_fields():
    made = Explanation(job_id="x", status="failed", created_at="2026-01-02T03:04:05Z", images_stored=False, raw={})
    assert made.is_final


def test_the_command_requests_what_is_missing_waits_and_prints_each_person(explain, server, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda _: None)
    second = explained_person(7, explained_score=0.05, score_without_hottest_tenth=0.049, explains=False)
    made = explanation("succeeded", explained_person(), second)
    done = explain([MISSING, answer(explanation("pending"), 202), answer(explanation("running")), answer(made)])
    assert done.exit_code == 0, done.output
    assert asked(server) == [("GET", ""), ("POST", ""), ("GET", ""), ("GET", "")]
    assert done.stdout.splitlines() == [
        f"job {job()['id']}: 2 people explained for swap-lite2 1.0.0, by the face with the highest score",
        "person 0: face at 1:01.50, score 0.9300",
        "        with the hottest tenth of its map hidden: 0.4100 instead of 0.9200",
        "        faces over time: 0:01.00 0.2500",
        "person 7: face at 1:01.50, score 0.9300",
        "        with the hottest tenth of its map hidden: 0.0490 instead of 0.0500; the map explains nothing here",
        "        faces over time: 0:01.00 0.2500",
        "How to read a map.",
        "The job's report shows the same with its images: 'deepfakestream share x' prints a link to it.",
    ]


def test_the_face_of_an_image_has_no_time(explain):
    still = explained_person(time_s=0.0)
    still["thumbnails"] = [each | {"time_s": 0.0} for each in still["thumbnails"]]
    done = explain([answer(explanation("succeeded", still))])
    assert done.exit_code == 0, done.output
    assert "person 0: face, score 0.9300\n" in done.stdout
    assert "0:00.00" not in done.stdout


def test_one_that_is_made_is_read_without_the_right_to_request_it(explain, server):
    assert explain([answer(explanation("succeeded", explained_person()))]).exit_code == 0
    assert asked(server) == [("GET", "")]


def test_a_job_without_faces_has_nothing_to_explain(explain, tmp_path):
    done = explain([answer(explanation())], "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "nothing to explain" in done.stdout
    assert not (tmp_path / "out").exists()


def test_a_failed_explanation_is_tried_again_and_its_failure_is_said(explain, server):
    failed = answer(explanation("failed", error={"code": "decode_failed", "detail": "It broke."}))
    done = explain([failed, failed])
    assert (done.exit_code, done.stdout) == (1, "")
    again, failure = done.stderr.splitlines()
    assert again == "it could not be made before, and is requested again once the service accepts that"
    assert failure == "Error: the faces of job x could not be explained: It broke. (decode_failed)"
    assert asked(server) == [("GET", ""), ("POST", "")]


@pytest.mark.parametrize("refusal", [problem(409, "job_not_final"), problem(410, "media_missing"), MISSING])
def test_a_refusal_is_one_sentence(explain, refusal):
    done = explain([MISSING, refusal])
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: It is so. (")
    assert done.stderr.count("\n") == 1


def test_a_job_that_ends_without_a_result_while_one_waits_is_said(explain, server):
    done = explain([answer(explanation("pending")), MISSING, problem(409, "job_not_final")])
    assert (done.exit_code, done.stderr) == (1, "Error: It is so. (job_not_final)\n")
    assert asked(server) == [("GET", ""), ("GET", ""), ("POST", "")]


@pytest.mark.parametrize("option", ["--timeout", "--timeout-s"])
def test_the_command_waits_no_longer_than_it_is_allowed_to(explain, option):
    done = explain([answer(explanation("running"))] * 50, option, "0.1")
    assert done.exit_code == 1
    assert "not made within 0.1 s" in done.stderr


def test_ctrl_c_exits_with_its_own_status(explain, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Client, "wait_for_explanation", interrupt)
    done = explain([answer(explanation("running"))])
    assert (done.exit_code, done.stdout) == (130, "")
    assert "the explanation goes on" in done.stderr


def test_images_are_written_and_those_of_an_earlier_call_replaced(explain, server, tmp_path):
    folder = tmp_path / "new" / "out"
    for data in (IMAGE, IMAGE + b"2"):
        made = answer(explanation("succeeded", explained_person(), explained_person(12)))
        done = explain([made, *[image_answer(data)] * 8], "--out", folder)
        assert done.exit_code == 0, done.output
        assert f"8 images written to {folder}" in done.stdout
        kinds = ("crop", "map", "overlay", "thumbnail-0")
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
            f"person-{number}-{kind}.webp": data for number in (0, 12) for kind in kinds
        }
    assert server.requests[-1].path == f"/v1/jobs/{job()['id']}/explanations/person-12-thumbnail-0.webp"


@pytest.mark.parametrize(
    "name",
    ["../../outside.webp", "/outside.webp", "..", ".", "", "a\\..\\b", "a\0b", "CON", "x" * 5000, "\x1b]0;a\x07.webp"],
    ids=["parents", "absolute", "parent", "itself", "empty", "backslashes", "null", "device", "long", "escape"],
)
def test_no_service_chooses_where_images_are_written(explain, tmp_path, name):
    hostile = explained_person(images={"crop": name, "map": name, "overlay": name}, thumbnails=[])
    folder = tmp_path / "inside" / "out"
    done = explain([answer(explanation("succeeded", hostile)), *[image_answer()] * 3], "--out", folder)
    written = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert written in ([], [f"person-0-{kind}.webp" for kind in ("crop", "map", "overlay")]), done.output
    assert all(path.parent == folder for path in tmp_path.rglob("*") if path.is_file())
    assert (done.exit_code == 0) == bool(written)
    assert "\x1b" not in done.output
    assert done.exception is None or isinstance(done.exception, SystemExit)


def test_a_link_in_the_folder_is_replaced_and_not_followed(explain, tmp_path):
    folder, outside = tmp_path / "out", tmp_path / "outside"
    folder.mkdir()
    outside.write_bytes(b"keep")
    (folder / "person-0-map.webp").symlink_to(outside)
    made = answer(explanation("succeeded", explained_person(thumbnails=[])))
    assert explain([made, *[image_answer()] * 3], "--out", folder).exit_code == 0
    assert outside.read_bytes() == b"keep"
    assert (folder / "person-0-map.webp").read_bytes() == IMAGE


def test_too_many_images_are_refused_before_one_is_requested(explain, server, tmp_path):
    crowd = [explained_person(number, thumbnails=[]) for number in range(400)]
    done = explain([answer(explanation("succeeded", *crowd))], "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert "more than 1000 images" in done.stderr
    assert len(server.requests) == 1
    assert not (tmp_path / "out").exists()


def test_an_image_that_does_not_arrive_leaves_no_part_of_it(explain, tmp_path):
    made = answer(explanation("succeeded", explained_person(thumbnails=[])))
    done = explain([made, image_answer(), problem(500, "internal_error")], "--out", tmp_path)
    assert done.exit_code == 1
    assert [path.name for path in tmp_path.iterdir()] == ["person-0-crop.webp"]


def test_images_that_were_erased_are_requested_again_and_otherwise_missed(explain, server, tmp_path):
    erased = answer(explanation("succeeded", explained_person(), images_stored=False))
    done = explain([erased, erased], "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert "person 0: face at" in done.stdout
    assert "erased with the media" in done.stderr
    assert asked(server) == [("GET", ""), ("POST", "")]


def test_a_folder_that_cannot_be_written_is_named(explain, tmp_path):
    (tmp_path / "file").write_text("")
    made = answer(explanation("succeeded", explained_person()))
    done = explain([made, image_answer()], "--out", tmp_path / "file" / "out")
    assert done.exit_code == 1
    assert f"{tmp_path}/file/out cannot be written (Not a directory)" in done.stderr


def test_text_of_a_service_moves_nothing_and_poses_as_no_line(explain):
    hostile = "a\nperson 9: face at 0:00.00\x1b[2J\u202e"
    made = explanation("succeeded", explained_person(), note=hostile, job_id=hostile)
    made["model"] |= {"name": hostile, "version": hostile}
    done = explain([answer(made)])
    assert done.exit_code == 0
    assert done.stdout.count("\n") == 6
    for character in ("\x1b", "\u202e", "\nperson 9"):
        assert character not in done.output


@pytest.mark.parametrize("given", [True, False])
def test_a_scan_requests_it_and_names_the_command(command, server, tmp_path, given):
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff")
    state = {"status": "pending"} if given else None
    server.answers = [answer(job("queued"), 202), answer(job("succeeded", verdict="real", explanation=state))]
    with running_state(tmp_path / "state", server.url) as folder:
        done = command("--state", folder, "scan", tmp_path / "a.jpg", *(["--explain"] if given else []))
    assert done.exit_code == 0, done.output
    assert ("explain=true" in server.requests[0].path) == given
    assert (f"deepfakestream explain {job()['id']}" in done.output.replace("\n", "")) == given


def test_a_scan_without_a_service_refuses_it(command, tmp_path):
    done = command("scan", "--local", "--explain", tmp_path)
    assert done.exit_code == 2
    assert "--explain is for a service, and --local scans without one" in done.output
