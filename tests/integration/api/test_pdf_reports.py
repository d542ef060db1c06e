"""Reports as PDF: for owners, by link, and with hostile text in them."""

import pytest
from sqlalchemy import update

from shared.models import Job
from tests.clips import noise_picture
from tests.integration.api.test_reports import look, share

NAMES = [
    '#import "x.typ": *',
    '#read("/etc/passwd")',
    "#panic()",
    "`a` $x$ *b* _c_ @d <e> \\ // /*",
    '"); #read("/etc/passwd") //',
    "<script>alert(1)</script>\u202e\x07\ufeff",
    "中文 العربية 🎭.mp4",
    "a" * 5000,
]


def get_pdf(api, headers, job):
    return api.call("GET", f"/v1/jobs/{job}/report.pdf", headers)


def test_a_report_is_a_tagged_pdf_that_is_the_same_each_time(api, headers, job):
    answer = get_pdf(api, headers, job)
    assert (answer.status_code, answer.mimetype) == (200, "application/pdf")
    assert answer.data.startswith(b"%PDF-")
    assert b"/StructTreeRoot" in answer.data
    assert str(job) in answer.headers["Content-Disposition"]
    assert get_pdf(api, headers, job).data == answer.data


def test_a_link_gives_the_same_pdf(api, headers, job):
    answer = look(api, share(api, headers, job)["url"], "/pdf")
    assert answer.status_code == 200
    assert answer.data == get_pdf(api, headers, job).data
    assert "Download as PDF" in look(api, share(api, headers, job)["url"]).text


@pytest.mark.parametrize("name", NAMES)
def test_text_of_a_sender_is_never_markup(api, headers, job, name):
    plain = get_pdf(api, headers, job).data
    with api.sessions.transaction() as session:
        session.execute(update(Job).where(Job.id == job).values(client_metadata={"filename": name.replace("\0", "")}))
    answer = get_pdf(api, headers, job)
    assert answer.status_code == 200, answer.text
    assert answer.data != plain


def test_a_job_without_a_result_has_a_report(api, headers):
    job_id = api.submit(headers, noise_picture(2)).json["id"]
    assert get_pdf(api, headers, job_id).status_code == 200


def test_only_so_many_reports_are_made_at_a_time(api, headers, job):
    slots = api.app.extensions["deepfakestream"].bundling
    taken = 0
    while slots.acquire(blocking=False):
        taken += 1
    try:
        answer = get_pdf(api, headers, job)
        assert (answer.status_code, answer.json["code"]) == (503, "overloaded")
        assert int(answer.headers["Retry-After"]) > 0
    finally:
        for _ in range(taken):
            slots.release()
    assert get_pdf(api, headers, job).status_code == 200
