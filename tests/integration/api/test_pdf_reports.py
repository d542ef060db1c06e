"""Reports as PDF: for owners, by link, and with hostile text in them."""

import copy
import html
import io
import json
import re
import shutil
import uuid

import pytest
from pypdf import PdfReader
from sqlalchemy import update

from api.web.timeline import name_interval
from shared.manifests import DEFAULT_CHECKPOINT, PACKAGED_MODELS_DIR
from shared.models import Job
from tests.clips import noise_picture
from tests.integration.api.finished import finish_job, succeed
from tests.integration.api.test_reports import look, name_checkpoint, share

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


def text_of(markup):
    """Return the text of a page, without any white space."""
    return "".join(html.unescape(re.sub(r"<(style|title)>.*?</\1>|<[^>]*>", "", markup, flags=re.DOTALL)).split())


def read(pdf):
    """Return the text of a PDF, without any white space, since lines end elsewhere than on the page."""
    return "".join("".join(page.extract_text() for page in PdfReader(io.BytesIO(pdf)).pages).split())


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


def test_the_page_and_the_pdf_say_the_same(api, headers):
    job = api.submit(headers, noise_picture(3)).json["id"]
    finish_job(api, job)
    with api.sessions.transaction() as session:
        row = session.get_one(Job, uuid.UUID(job))
        findings = copy.deepcopy(row.findings)
        findings["people"][1]["verdict"] = "unheard of"
        findings["people_total"] = 7
        findings["suspicious"] = [
            {"start_s": 5.0, "end_s": 10.0, "person": person, "fake_score": 0.75, "verdict": verdict}
            for person, verdict in ((0, "fake"), (1, "inconclusive"))
        ]
        row.findings = findings
        row.evidence = {**row.evidence, "real_below": 0.123, "fake_from": 0.789}
    pdf = read(get_pdf(api, headers, job).data)
    page = text_of(api.call("GET", f"/v1/jobs/{job}/report.html", headers).text)
    for words in (
        "The score is neither the probability that the media is fake nor the share of it that is.",
        "called fake from 78.9 on and real below 12.3; what is between is not decided.",
        "7 people were distinguished; the 4 most suspicious are listed. Numbers are no identities",
        "unheard of",
        "clearly above what genuine media shows",
        "somewhat above what genuine media shows",
        "Each bar is a segment of the media, as high as its score from 0 to 100",
        "0:05.0–0:10.0",
        "320 × 240 pixels",
        "2 frames a second, segments of 5 s",
        "Scores are estimates of a program.",
    ):
        for found in (page, pdf):
            assert "".join(words.split()) in found, words


def test_the_pdf_has_the_main_figures_of_the_checkpoint(api, headers, job):
    assert "Thecheckpoint" not in read(get_pdf(api, headers, job).data)
    name_checkpoint(api, job)
    text = read(get_pdf(api, headers, job).data)
    for words in (
        "The checkpoint",
        "Trained on",
        "ROC-AUC 0.950",
        "pairs 0.716",
        "research use only",
        "--card --model",
    ):
        assert "".join(words.split()) in text, words


def test_a_hostile_checkpoint_is_text_on_the_page_and_in_the_pdf(make_api, tmp_path_factory):
    models = tmp_path_factory.mktemp("models")
    folder = models / "hostile"
    shutil.copytree(PACKAGED_MODELS_DIR / DEFAULT_CHECKPOINT, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    manifest = json.loads((folder / "manifest.json").read_text())
    texts = [*NAMES, "=" * 300, "#" * 300]
    changed = {"name": "hostile", "training_data": texts, "licence": NAMES[4], "version": NAMES[1]}
    changed["metrics"] = dict.fromkeys((f"validation_{name[:300]}_roc_auc" for name in texts), 0.5)
    (folder / "manifest.json").write_text(json.dumps(manifest | changed))
    (folder / "MODEL_CARD.md").write_bytes("\n\n".join(NAMES).encode() + b"\xff</details><script>alert(1)</script>")
    api = make_api(models={"dir": models, "default": "hostile"})
    headers = api.key("owner")[0]
    job = uuid.UUID(api.submit(headers, noise_picture(4)).json["id"])
    succeed(api, job, [0.5])
    name_checkpoint(api, job)
    answer = get_pdf(api, headers, job)
    assert answer.status_code == 200, answer.text
    assert '#read("/etc/passwd")' in read(answer.data)
    page = api.call("GET", f"/v1/jobs/{job}/report.html", headers)
    assert page.status_code == 200
    assert "Model card" in page.text
    assert "<script" not in page.text
    assert page.text.count("</details>") == page.text.count("<details>")


@pytest.mark.parametrize("start_s", [0.0, 1.0])
def test_pages_of_an_image_have_the_same_numbers_everywhere(start_s):
    name = name_interval(start_s, start_s, is_image=True)
    assert name == name_interval(start_s, start_s + 1, is_image=True) == f"page {start_s + 1:.0f}"


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
