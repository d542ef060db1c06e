"""Links to the report of a job, and what is seen by them."""

import io
import itertools
import re
import threading
import uuid
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import pytest
from gunicorn.http.wsgi import FileWrapper as GunicornFileWrapper
from sqlalchemy import func, select, update

from api.web import pages
from shared.audit import list_events
from shared.models import Job, Share
from tests.clips import noise_picture
from tests.integration.api.finished import succeed
from tests.integration.api.test_waiting import wait_until

HOSTILE = "</title><script>alert(1)</script>{{ 271 * 331 }}\u202e"


def share(api, headers, job_id, **body):
    answer = api.call("POST", f"/v1/jobs/{job_id}/shares", headers, json=body)
    assert answer.status_code == 201, answer.text
    return answer.json


def address(url):
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}"


def look(api, url, under="", **headers):
    parts = urlsplit(url)
    return api.call("GET", f"{parts.path}{under}?{parts.query}", headers)


def test_a_link_shows_the_report_without_a_key(api, headers, job):
    made = share(api, headers, job)
    answer = look(api, made["url"])
    assert answer.status_code == 200
    assert answer.mimetype == "text/html"
    assert "Not decided" in answer.text
    assert len(re.findall(r'class="bar bar-', answer.text)) == 3
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert not re.search(r"\son\w+=|<script(?! src=\"/web/static/)|style=", answer.text), "nothing inline"


@pytest.mark.parametrize("page", ["", "/state", "/events", "/media"])
def test_without_a_link_that_works_nothing_is_shown(api, headers, job, page):
    url = share(api, headers, job)["url"]
    other = uuid.UUID(api.submit(headers, noise_picture(2)).json["id"])
    token = parse_qs(urlsplit(url).query)["token"][0]
    for query in ("", "?token=", f"?token={token[:-1]}", f"?token={'x' * 10_000}", "?token=%00"):
        answer = api.call("GET", f"/jobs/{job}/report{page}{query}", {})
        assert (answer.status_code, answer.json["code"]) == (404, "not_found")
    answer = api.call("GET", f"/jobs/{other}/report{page}?token={token}", {})
    assert (answer.status_code, answer.json["code"]) == (404, "not_found"), "one job and nothing else"
    assert look(api, url, page).status_code == 200


def test_a_browser_is_shown_a_page_for_a_link_that_does_not_work(api, job):
    answer = api.call("GET", f"/jobs/{job}/report?token=x", {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert (answer.status_code, answer.mimetype) == (404, "text/html")
    assert "This link is wrong, has expired or was revoked." in answer.text
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


def test_a_link_needs_no_options_and_a_body_that_is_no_object_is_explained(api, headers, job):
    for kind in ({}, {"content_type": "application/json"}, {"content_type": "application/x-www-form-urlencoded"}):
        assert api.call("POST", f"/v1/jobs/{job}/shares", headers, **kind).status_code == 201, kind
    assert api.call("POST", f"/v1/jobs/{job}/rescore", headers).status_code == 202
    calls = [
        ("POST", f"/v1/jobs/{job}/shares"),
        ("POST", f"/v1/jobs/{job}/rescore"),
        ("PUT", f"/v1/jobs/{job}/review"),
        ("POST", "/v1/uploads"),
    ]
    bodies = [("[1]", "application/json"), ("{", "application/json"), ("null", "application/json"), ("a=1", None)]
    for (method, path), (body, kind) in itertools.product(calls, bodies):
        answer = api.call(method, path, headers, data=body, content_type=kind)
        assert answer.status_code == 422, (path, body, answer.text)
        assert answer.json["detail"] == "body: send a JSON object as application/json", (path, body)
    answer = api.call("PUT", f"/v1/jobs/{job}/review", headers)
    assert (answer.status_code, answer.json["detail"]) == (422, "finding: Field required")
    body = {"finding": "disputed", "note": None}
    assert api.call("PUT", f"/v1/jobs/{job}/review", headers, json=body).status_code == 200


@pytest.mark.parametrize("end", ["revoked", "expired", "erased"])
def test_a_link_ends(api, headers, job, end):
    made = share(api, headers, job, valid_s=60)
    if end == "revoked":
        assert api.call("DELETE", f"/v1/jobs/{job}/shares/{made['id']}", headers).status_code == 204
    elif end == "expired":
        with api.sessions.transaction() as session:
            session.execute(update(Share).values(expires_at=func.now() - timedelta(seconds=1)))
    else:
        api.call("DELETE", f"/v1/jobs/{job}", headers)
        with api.sessions.transaction() as session:
            assert session.scalar(select(func.count()).select_from(Share)) == 0
    for page in ("", "/state", "/media"):
        assert look(api, made["url"], page).status_code == 404
    if end != "erased":
        assert api.call("GET", f"/v1/jobs/{job}/shares", headers).json == {"items": []}


def test_the_secret_of_a_link_is_shown_once_and_stored_nowhere(api, headers, job):
    made = share(api, headers, job)
    token = parse_qs(urlsplit(made["url"]).query)["token"][0]
    listed = api.call("GET", f"/v1/jobs/{job}/shares", headers)
    assert [item["id"] for item in listed.json["items"]] == [made["id"]]
    assert token not in listed.text
    with api.sessions.transaction() as session:
        assert token.encode() not in session.scalars(select(Share)).one().token_sha256
        told = [event for event in list_events(session, job_id=job) if event.action == "report.shared"]
    assert [event.detail for event in told] == [{"share": made["id"]}]


def test_links_of_a_job_are_bounded(api, headers, job):
    for _ in range(100):
        share(api, headers, job)
    answer = api.call("POST", f"/v1/jobs/{job}/shares", headers, json={})
    assert (answer.status_code, answer.json["code"]) == (409, "too_many_shares")


def test_hostile_text_is_shown_as_text(api, headers, job):
    with api.sessions.transaction() as session:
        row = session.get_one(Job, job)
        row.reasons = [HOSTILE]
        row.client_metadata = {"filename": HOSTILE}
        row.model_description = {"name": f"../../{HOSTILE}", "version": HOSTILE, "weights_sha256": HOSTILE}
        row.review = {"finding": HOSTILE, "note": HOSTILE, "reviewed_at": "now", "reviewer": HOSTILE}
        row.media.facts = {"container": HOSTILE, "codec": HOSTILE, "kind": "video"}
        texts = dict.fromkeys(("signer", "issuer", "signed_at", "generator", "title"), HOSTILE)
        lists = {"codes": [HOSTILE], "ingredients": [HOSTILE], "ingredients_total": 1}
        actions = [{"action": HOSTILE, "source_type": HOSTILE, "software": HOSTILE}]
        row.media.provenance = {"state": "invalid", **texts, **lists, "actions": actions}
    answer = look(api, share(api, headers, job)["url"])
    assert answer.status_code == 200
    assert "<script>alert" not in answer.text
    assert "89701" not in answer.text
    assert answer.text.count("&lt;script&gt;alert(1)") >= 17
    assert "File <bdi" in answer.text


@pytest.mark.parametrize(
    ("requested", "status", "length"),
    [("bytes=0-9", 206, 10), ("bytes=-5", 206, 5), ("bytes=99999999-", 416, None), ("lines=1-2", 416, None)],
)
def test_media_comes_in_ranges(api, headers, job, requested, status, length):
    url = share(api, headers, job)["url"]
    whole = look(api, url, "/media")
    assert whole.data == noise_picture(1)
    assert whole.headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
    answer = look(api, url, "/media", Range=requested)
    assert answer.status_code == status
    if length is not None:
        expected = whole.data[:length] if requested == "bytes=0-9" else whole.data[-length:]
        assert answer.data == expected


def test_erased_media_is_said_to_be_gone(api, headers, job):
    url = share(api, headers, job)["url"]
    with api.sessions.transaction() as session:
        session.get_one(Job, job).media.storage_key = None
    assert look(api, url, "/media").status_code == 410
    answer = look(api, url)
    assert "not stored any more" in answer.text
    assert "<video" not in answer.text


def test_progress_is_sent_until_the_job_ends(api, headers):
    job_id = uuid.UUID(api.submit(headers, noise_picture(1)).json["id"])
    url = share(api, headers, job_id)["url"]
    assert "Being analysed" in look(api, url).text
    assert look(api, url, "/state").json == {
        "status": "queued",
        "is_final": False,
        "segments_done": 0,
        "segments_total": None,
    }
    succeed(api, job_id, [0.2])
    answer = look(api, url, "/events")
    assert answer.mimetype == "text/event-stream"
    assert answer.text.startswith("retry:")
    assert '"is_final": true' in answer.text


def name_checkpoint(api, job):
    """Record the job's checkpoint as the one that judged it."""
    with api.sessions.transaction() as session:
        row = session.get_one(Job, job)
        weights = row.manifest["weights"]["sha256"]
        row.model_description = {"name": row.manifest["name"], "version": "1", "weights_sha256": weights}


def test_the_card_is_a_page_with_headings_and_tables(api, headers, job):
    name_checkpoint(api, job)
    linked = look(api, share(api, headers, job)["url"])
    for answer in (linked, api.call("GET", f"/v1/jobs/{job}/report.html", headers)):
        assert "<h4>Intended use</h4>" in answer.text
        assert re.search(r'<table>\n<thead>\n<tr>\n<th scope="col"', answer.text)
        assert "style=" not in answer.text
        headings = [int(level) for level in re.findall(r"<h(\d)", answer.text)]
        assert headings[0] == 1
        assert all(later <= before + 1 for before, later in itertools.pairwise(headings))
    assert "unsafe" not in linked.headers["Content-Security-Policy"]


def test_the_card_of_other_weights_is_not_shown(api, headers, job):
    name_checkpoint(api, job)
    url = share(api, headers, job)["url"]
    assert "Model card" in look(api, url).text
    with api.sessions.transaction() as session:
        row = session.get_one(Job, job)
        row.model_description = {**row.model_description, "weights_sha256": "0" * 64}
    assert "Model card" not in look(api, url).text


def test_the_list_of_jobs_needs_no_key_and_holds_nothing(api, job):
    answer = api.call("GET", "/", {})
    assert answer.status_code == 200
    assert str(job) not in answer.text
    assert "unsafe" not in answer.headers["Content-Security-Policy"]


def test_a_stream_ends_with_the_job_and_frees_its_slot(api, headers):
    job_id = uuid.UUID(api.submit(headers, noise_picture(1)).json["id"])
    parts = urlsplit(share(api, headers, job_id)["url"])
    services = api.app.extensions["deepfakestream"]
    slots = services.settings.api.waiting
    for _ in range(slots):
        # Closed unread, as by a browser that has gone.
        api.app.test_client().get(f"{parts.path}/events?{parts.query}").close()
    timer = threading.Timer(0.5, succeed, (api, job_id, [0.2]))
    timer.start()
    answer = look(api, f"{parts.path}?{parts.query}", "/events")
    timer.join()
    assert answer.status_code == 200, "every slot is free again"
    assert '"is_final": false' in answer.text
    assert '"is_final": true' in answer.text


@pytest.mark.parametrize("kind", ["streaming", "waiting"])
def test_streams_beyond_the_slots_end_after_the_state_at_present(api, headers, kind):
    job_id = uuid.UUID(api.submit(headers, noise_picture(1)).json["id"])
    url = share(api, headers, job_id)["url"]
    services = api.app.extensions["deepfakestream"]
    for _ in range(getattr(services.settings.api, kind)):
        assert getattr(services, kind).acquire(blocking=False)
    for _ in range(services.settings.api.streaming + 1):
        answer = look(api, url, "/events")
        assert (answer.status_code, answer.mimetype) == (200, "text/event-stream")
        assert re.fullmatch(r'retry: 2000\ndata: \{"status": "queued".*"is_final": false.*\}\n\n', answer.text)
    assert services.listener.waiters == 0
    getattr(services, kind).release()
    timer = threading.Timer(0.5, succeed, (api, job_id, [0.2]))
    timer.start()
    answer = look(api, url, "/events")
    timer.join()
    assert '"is_final": true' in answer.text, "with a slot that is free, the stream waits for the end"


def test_readers_without_a_key_leave_slots_to_requests_that_wait(api, headers):
    job_id = uuid.UUID(api.submit(headers, noise_picture(1)).json["id"])
    url = share(api, headers, job_id)["url"]
    services = api.app.extensions["deepfakestream"]
    streams = []
    threads = [
        threading.Thread(target=lambda: streams.append(look(api, url, "/events").text))
        for _ in range(services.settings.api.waiting)
    ]
    for thread in threads:
        thread.start()
    at_once = len(threads) - services.settings.api.streaming
    wait_until(lambda: len(streams) == at_once and services.listener.waiters > 0)
    waited = api.call("GET", f"/v1/jobs/{job_id}", {**headers, "Prefer": "wait=1"})
    succeed(api, job_id, [0.2])
    for thread in threads:
        thread.join()
    assert sum('"is_final": true' in text for text in streams) == services.settings.api.streaming
    assert waited.headers["Preference-Applied"] == "wait=1"


def test_a_report_is_one_file_that_needs_nothing_else(api, headers, job):
    answer = api.call("GET", f"/v1/jobs/{job}/report.html", headers)
    assert (answer.status_code, answer.mimetype) == (200, "text/html")
    assert answer.headers["Content-Disposition"] == f'attachment; filename="report-{job}.html"'
    assert "Not decided" in answer.text
    assert "<style>" in answer.text
    # Nothing is loaded from anywhere, and nothing runs.
    assert not re.search(r"<script|<link rel=\"stylesheet\"|<img|<video|<canvas|src=|data-state", answer.text)
    assert set(re.findall(r'href="([^"#]*)', answer.text)) <= {"", "data:,"}


def test_a_range_is_read_from_where_it_begins_and_has_a_limit(api, headers, monkeypatch):
    content = b"\xff\xd8\xff\xe0" + bytes(5 * 1024 * 1024)
    with api.sessions.transaction() as session:
        job = session.get_one(Job, uuid.UUID(api.submit(headers, noise_picture(3)).json["id"]))
        job.media.size_bytes = len(content)
        (api.storage / job.media.storage_key).write_bytes(content)
        job_id = job.id
    url = share(api, headers, job_id)["url"]
    storage, read = api.app.extensions["deepfakestream"].storage, []

    class Counted(io.BytesIO):
        def read(self, size=-1):
            block = super().read(size)
            read.append(len(block))
            return block

    monkeypatch.setattr(storage, "open", lambda _: Counted(content))
    # As under gunicorn, whose own wrapper of files cannot seek.
    parts = urlsplit(url)
    server = {"wsgi.file_wrapper": GunicornFileWrapper}
    sent = [
        api.app.test_client().get(
            f"{parts.path}/media?{parts.query}", headers={"Range": span}, environ_overrides=server, buffered=True
        )
        for span in ("bytes=5000000-5000009", "bytes=0-", "bytes=3000000-99999999999999")
    ]
    assert [answer.status_code for answer in sent] == [206] * 3
    assert [len(answer.data) for answer in sent] == [10, pages.MAX_RANGE_BYTES, pages.MAX_RANGE_BYTES]
    assert sent[1].headers["Content-Range"] == f"bytes 0-{pages.MAX_RANGE_BYTES - 1}/{len(content)}"
    assert sum(read) <= 2 * pages.MAX_RANGE_BYTES + 4 * pages.MEDIA_BLOCK_BYTES


def test_people_who_look_at_media_do_not_take_every_thread(api, headers, job):
    url = share(api, headers, job)["url"]
    parts = urlsplit(url)
    services = api.app.extensions["deepfakestream"]
    client, slots = api.app.test_client(), services.settings.api.viewing
    assert slots < services.settings.api.threads
    reading = [client.get(f"{parts.path}/media?{parts.query}") for _ in range(slots)]
    answer = look(api, url, "/media")
    assert (answer.status_code, answer.json["code"]) == (503, "overloaded")
    assert answer.headers["Retry-After"] == "2"
    for each in reading:
        each.close()
    # Every way in which an answer ends gives its slot back.
    for _ in range(slots + 1):
        assert look(api, url, "/media").status_code == 200
        assert look(api, url, "/media", Range="bytes=99999999-").status_code == 416
        assert api.call("HEAD", f"{parts.path}/media?{parts.query}", {}).status_code == 200
        client.get(f"{parts.path}/media?{parts.query}", headers={"Range": "bytes=1-2"}).close()


def test_pages_without_a_key_are_limited_by_address_whatever_key_is_sent(make_api):
    api = make_api(requests_per_minute=2)
    path = f"/jobs/{uuid.uuid4()}/report?token=x"
    sent = [api.call("GET", path, {"Authorization": f"Bearer dfs_{number}"}).status_code for number in range(3)]
    assert sent == [404, 404, 429]
