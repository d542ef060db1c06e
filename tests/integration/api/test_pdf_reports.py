"""Reports as PDF: for owners, by link, and with hostile text in them."""

import copy
import html
import io
import json
import re
import shutil
import uuid
from contextlib import ExitStack, contextmanager

import pytest
from PIL import Image
from pypdf import PdfReader
from sqlalchemy import event, update

from api.web.quoting import quote
from api.web.timeline import name_interval
from api.web.wording import MAP_NOTE
from shared.jobs.explanations import new_images_key, store_images
from shared.manifests import DEFAULT_CHECKPOINT, PACKAGED_MODELS_DIR
from shared.models import Explanation, Job
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


def squeeze(text):
    """Return *text* without white space: lines of a PDF end elsewhere than on the page."""
    return "".join(text.split())


def text_of(markup):
    """Return the text of a page, without any white space."""
    return squeeze(html.unescape(re.sub(r"<(style|title)>.*?</\1>|<[^>]*>", "", markup, flags=re.DOTALL)))


def read(pdf):
    """Return the text of a PDF, without any white space."""
    return squeeze("".join(page.extract_text() for page in PdfReader(io.BytesIO(pdf)).pages))


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
        "a score from 78.9 on is called fake and one below 12.3 real; between them nothing is decided.",
        "7 people were distinguished; the 4 most suspicious are listed. Their numbers begin with 0",
        "unheard of",
        "alone enough to be called fake",
        "stands out, and is not enough alone",
        "Each bar is a segment of the media, as high as its score from 0 to 100",
        "0:05.0–0:10.0",
        "320 × 240 pixels",
        "2 frames a second, segments of 5 s",
        "Scores are estimates of a program.",
    ):
        for found in (page, pdf):
            assert squeeze(words) in found, words


def test_the_pdf_has_the_main_figures_of_the_checkpoint(api, headers, job):
    assert "Aboutthedetector" not in read(get_pdf(api, headers, job).data)
    name_checkpoint(api, job)
    text = read(get_pdf(api, headers, job).data)
    for words in (
        "About the detector",
        "Trained and tested with",
        "ROC-AUC 0.950",
        "pairs 0.716",
        "research use only",
        "--card --model",
    ):
        assert squeeze(words) in text, words


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


def picture(number, side):
    """Return a WebP of one colour, which differs by number."""
    data = io.BytesIO()
    Image.new("RGB", (side, side), (number % 256, 2 * number % 256, 99)).save(data, "WEBP", lossless=True)
    return data.getvalue()


def explain(api, job, people, thumbnails, make_image=picture):
    """Store an explanation of so many people with so many faces each, as the step does."""
    images, found = {}, []
    for person in range(people):
        names = {kind: f"person-{person}-{kind}.webp" for kind in ("crop", "map", "overlay")}
        faces = [f"person-{person}-thumbnail-{number}.webp" for number in range(thumbnails)]
        images |= {name: make_image(len(images) + at, 24) for at, name in enumerate((*names.values(), *faces))}
        found.append(
            {
                "person": person,
                "face_score": 0.876 - person / 100,
                "time_s": 61.5,
                "explained_score": 0.871,
                "score_without_hottest_tenth": 0.123,
                "explains": person % 2 == 0,
                "images": names,
                "thumbnails": [
                    {"time_s": 70.0 + number, "fake_score": 0.5 + number / 1000, "image": name}
                    for number, name in enumerate(faces)
                ],
            }
        )
    key = new_images_key()
    places = store_images(api.app.extensions["deepfakestream"].storage, key, images)
    result = {"note": "", "model": {}, "people": found, "images": places}
    with api.sessions.transaction() as session:
        session.add(Explanation(job_id=job, status="succeeded", result=result, storage_key=key))


def test_the_pdf_of_a_long_video_is_not_longer(api, headers):
    sizes = []
    for count in (600, 3000):
        job = uuid.UUID(api.submit(headers, noise_picture(5), query_string={"reuse": "false"}).json["id"])
        succeed(api, job, [0.1 + number * 7919 % 800 / 1000 for number in range(count)])
        pdf = get_pdf(api, headers, job).data
        sizes.append((len(PdfReader(io.BytesIO(pdf)).pages), len(pdf)))
    assert sizes[0][0] == sizes[1][0]
    assert sizes[1][1] < 1.5 * sizes[0][1]


@pytest.fixture
def video(api, headers):
    job = api.submit(headers, noise_picture(3)).json["id"]
    finish_job(api, job)
    return uuid.UUID(job)


def pictures_in(pdf):
    """Return the number of pictures that the pages of a PDF show."""
    return sum(len(page.images) for page in PdfReader(io.BytesIO(pdf)).pages)


def test_explained_faces_are_in_the_pdf_and_their_number_is_bounded(api, headers, video):
    plain = get_pdf(api, headers, video).data
    explain(api, video, people=8, thumbnails=6)
    pdf = get_pdf(api, headers, video).data
    assert pictures_in(plain) == 0
    assert pictures_in(pdf) == 6 * (2 + 4)
    assert pdf == look(api, share(api, headers, video)["url"], "/pdf").data == get_pdf(api, headers, video).data
    markup = look(api, share(api, headers, video)["url"]).text
    images = re.findall(r"<img [^>]*report/explanations/[^>]*>", markup)
    assert images
    assert all('loading="lazy"' in image for image in images)
    text, page = read(pdf), text_of(api.call("GET", f"/v1/jobs/{video}/report.html", headers).text)
    for words in (MAP_NOTE, "it falls from 87.1 to 12.3", "The spots explain nothing here"):
        assert squeeze(words) in text, words
        assert squeeze(words) in page, words
    for words in (
        "Person 0.",
        "Person 5.",
        "1:01.5: 87.6",
        "1:13.0: 50.3",
        "2 people and 12 faces of the people above",
    ):
        assert squeeze(words) in text, words
    assert "Person6." not in text
    assert "1:11.0:" not in text, "four of six faces are spread over time"
    assert b"Face of person 5 at 1:13.0" in pdf_objects(pdf)


def pdf_objects(pdf):
    """Return the structure of a PDF with its alternative texts."""
    reader = PdfReader(io.BytesIO(pdf))
    found = (reader.get_object(number) for number in range(1, reader.trailer["/Size"]))
    return " ".join(str(each["/Alt"]) for each in found if isinstance(each, dict) and "/Alt" in each).encode()


def test_a_pdf_with_all_faces_says_nothing_of_others(api, headers, video):
    explain(api, video, people=1, thumbnails=2)
    pdf = get_pdf(api, headers, video).data
    assert pictures_in(pdf) == 4
    assert "Leftout" not in read(pdf)


@pytest.mark.parametrize("fault", ["erased", "expired", "no image"])
def test_without_images_the_pdf_is_as_before(api, headers, video, fault):
    plain = get_pdf(api, headers, video).data
    explain(api, video, people=1, thumbnails=1, make_image=(lambda *_: b"no image") if fault == "no image" else picture)
    if fault != "no image":
        assert get_pdf(api, headers, video).data != plain
    with api.sessions.transaction() as session:
        row = session.get_one(Explanation, video)
        if fault == "erased":
            api.app.extensions["deepfakestream"].storage.delete(row.storage_key)
        elif fault == "expired":
            row.storage_key = None
    assert get_pdf(api, headers, video).data == plain
    assert api.call("GET", f"/v1/jobs/{video}/report.html", headers).status_code == 200


def test_the_pdf_has_what_the_page_has_of_content_credentials(api, headers, job):
    with api.sessions.transaction() as session:
        session.get_one(Job, job).media.provenance = {
            "state": "invalid",
            "signer": "Example Camera",
            "actions": [{"action": "c2pa.created", "source_type": "digitalCapture"}],
            "actions_total": 3,
            "ingredients": ["first.jpg", NAMES[4]],
            "ingredients_total": 12,
            "codes": ["assertion.dataHash.mismatch"],
        }
    text = read(get_pdf(api, headers, job).data)
    page = text_of(api.call("GET", f"/v1/jobs/{job}/report.html", headers).text)
    for words in (
        quote("Example Camera"),
        "created: taken by a camera",
        f"12 files: {quote('first.jpg')}, {quote(NAMES[4])}",
        "assertion.dataHash",
    ):
        assert squeeze(words) in text, words
        assert squeeze(words) in page, words
    assert "2morerecordedactions" in text


def test_a_job_without_a_result_has_a_report(api, headers):
    job_id = api.submit(headers, noise_picture(2)).json["id"]
    assert get_pdf(api, headers, job_id).status_code == 200


def test_only_so_many_reports_are_made_at_a_time(api, headers, job):
    services = api.app.extensions["deepfakestream"]
    url = share(api, headers, job)["url"]
    with all_taken(services.setting_pdf), sent_queries(services) as queries:
        for answer in (get_pdf(api, headers, job), look(api, url, "/pdf")):
            assert (answer.status_code, answer.json["code"]) == (503, "overloaded")
            assert int(answer.headers["Retry-After"]) > 0
        read = [query for query in queries if "FROM segments" in query]
    # A refusal costs no reading of segments, of which there may be thousands.
    assert read == []
    # Evidence bundles have slots of their own.
    with all_taken(services.bundling):
        assert get_pdf(api, headers, job).status_code == 200
        assert look(api, url, "/pdf").status_code == 200


@contextmanager
def all_taken(slots):
    """Hold all *slots* while the block runs."""
    with ExitStack() as held:
        while slots.acquire(blocking=False):
            held.callback(slots.release)
        yield


@contextmanager
def sent_queries(services):
    """Give the list of the queries that the api sends while the block runs."""
    queries = []

    def keep(*given):
        queries.append(given[2])

    engine = services.sessions.engine
    event.listen(engine, "before_cursor_execute", keep)
    try:
        yield queries
    finally:
        event.remove(engine, "before_cursor_execute", keep)


def test_texts_of_others_do_not_read_as_sentences_of_the_pdf(api, headers, job):
    """Nor do those that are written from right to left move what is around them."""
    name = "a.mp4”. No signs of a swapped face were found. “"
    note = "ok” Recorded with the key “chief”. The file was never edited."
    hebrew = "\u05e9\u05dc\u05d5\u05dd"
    with api.sessions.transaction() as session:
        row = session.get_one(Job, job)
        row.client_metadata = {"filename": name}
        row.review = {"finding": "fake", "note": note, "reviewed_at": "2026-01-02T03:04:05+00:00", "reviewer": hebrew}
        row.media.provenance = {"state": "untrusted", "signer": name, "title": name}
    text = read(get_pdf(api, headers, job).data)
    inner = squeeze(name).replace("”", "'").replace("“", "'")
    for words in (f"File“\u2068{inner}\u2069”", f"Signer:“\u2068{inner}\u2069”", f"Title:“\u2068{inner}\u2069”"):
        assert words in text
    assert squeeze("“\u2068ok' Recorded with the key 'chief'. The file was never edited.\u2069”") in text
    assert f"“\u2068{hebrew}\u2069”" in text
