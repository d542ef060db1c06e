"""
Evidence bundles with an explanation: what is in them, and that no image and no score in them can be exchanged.

One job is scored and explained by the steps of a worker; each test about its bundle changes a copy of it.
"""

import hashlib
import io
import json
import random
import uuid

import pytest
from deepfakestream.verification import describe_verification, explanations, verify_bundle
from PIL import Image

from api.signing import create_signing_key, load_signing_key
from shared.jobs.explanations import find_explanation, new_images_key, store_images
from shared.jobs.leases import Step, acquire
from shared.jobs.results import record_explanation
from shared.storage import FileStorage
from tests.clips import hopper, make_clip, noise_picture
from tests.integration.api.bundles import failed_checks, inside, pack, sealed, unpack
from tests.integration.api.conftest import api_maker
from tests.integration.api.explained import run_job, worker_context
from tests.integration.api.finished import download, finish_job
from tests.unit.worker.explain.conftest import swapped_portrait

EXPLANATION = "explanation.json"
MAP = "explanation/person-0-map.webp"
OVERLAY = "explanation/person-0-overlay.webp"
CROP = "explanation/person-0-crop.webp"
WITHOUT = (
    *("README.txt", "job.json", "checkpoint.json", "segments.jsonl", "environment.json", "audit.jsonl", "key.pem"),
    *("SHA256SUMS", "attestation.intoto.jsonl"),
)


@pytest.fixture(scope="module")
def key_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("key") / "key.pem"
    create_signing_key(path)
    return path


@pytest.fixture(scope="module")
def key(key_file):
    return load_signing_key(key_file)


@pytest.fixture(scope="module")
def other_key(tmp_path_factory):
    return create_signing_key(tmp_path_factory.mktemp("other") / "key.pem")


@pytest.fixture(scope="module")
def api(postgres_url, template_url, tmp_path_factory, key_file):
    with api_maker(postgres_url, template_url, tmp_path_factory.mktemp("storage")) as make:
        yield make(evidence={"key_file": key_file})


@pytest.fixture(scope="module")
def headers(api):
    return api.key("owner")[0]


@pytest.fixture(scope="module")
def job_id(api, headers, tmp_path_factory):
    """A clip of two people in three segments, scored and explained."""
    path = tmp_path_factory.mktemp("clip") / "two.mp4"
    clip = make_clip(path, fps=2.0, seconds=3.0, size=(640, 360), faces=(swapped_portrait(), hopper()))
    options = {"explain": "true", "segment_seconds": "1", "sample_fps": "2"}
    sent = {**headers, "Content-Type": "video/mp4"}
    answer = api.call("POST", "/v1/jobs", sent, data=clip.read_bytes(), query_string=options)
    assert answer.status_code == 202, answer.text
    with worker_context(api) as context:
        run_job(context, answer.json["id"])
    return answer.json["id"]


@pytest.fixture(scope="module")
def bundle(api, headers, job_id, tmp_path_factory):
    path = tmp_path_factory.mktemp("bundle") / "bundle.zip"
    assert download(api, headers, job_id, path).status_code == 200
    return path.read_bytes()


@pytest.fixture
def refused(tmp_path):
    """Verify bytes as a bundle; returns the sentences of the checks that failed by their names."""
    path = tmp_path / "bundle.zip"

    def run(data, **given):
        failed = failed_checks(path, data, **given)
        found = {one.name: one.detail for one in verify_bundle(path, **given).checks if not one.passed}
        assert set(found) == failed
        return found

    return run


def test_a_bundle_of_an_explained_job_holds_its_explanation_and_images(api, headers, job_id, bundle):
    files = unpack(bundle)
    where = f"/v1/jobs/{job_id}/explanations"
    answer = api.call("GET", where, headers)
    # When to ask again is of the answer alone.
    assert files[EXPLANATION] == answer.data.replace(b',"poll_after_s":null', b"") + b"\n"
    names = {f"explanation/{image['name']}" for image in answer.json["images"]}
    assert len(names) == 18
    assert set(files) == {*WITHOUT, EXPLANATION, *names}
    for name in names:
        assert files[name] == api.call("GET", name.replace("explanation", where, 1), headers).data
    sums = dict(reversed(line.split("  ")) for line in files["SHA256SUMS"].decode().splitlines())
    assert {name: sums[name] for name in names} == {name: hashlib.sha256(files[name]).hexdigest() for name in names}


def test_it_is_verified_and_the_report_says_what_an_explanation_proves(bundle, key, tmp_path):
    (tmp_path / "bundle.zip").write_bytes(bundle)
    found = verify_bundle(tmp_path / "bundle.zip", key=key.public.id)
    assert found.passed, found.checks
    [check] = [one for one in found.checks if one.name == "explanation"]
    assert "All of 18 images of 2 people are there" in check.detail
    assert any(said.startswith("The images of the explanation are those that were signed") for said in found.proven())
    assert any("is no proof of manipulation. Real faces have heat maps as well." in said for said in found.not_proven())
    assert "is no proof of manipulation" in describe_verification(found)


def test_the_same_state_gives_the_same_bytes(api, headers, job_id, bundle, tmp_path):
    download(api, headers, job_id, tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == bundle


def test_a_bundle_without_explanation_says_nothing_of_one(bundle, key, refused, tmp_path):
    files = {name: data for name, data in unpack(bundle).items() if name in WITHOUT}
    assert refused(pack(sealed(files, key))) == {}
    found = verify_bundle(tmp_path / "bundle.zip")
    assert "explanation" not in [one.name for one in found.checks]
    assert "map" not in describe_verification(found)


def changed_byte(files):
    files[MAP] = files[MAP][:200] + bytes([files[MAP][200] ^ 1]) + files[MAP][201:]


def swapped(files):
    files[MAP], files[OVERLAY] = files[OVERLAY], files[MAP]


def without_all(files):
    for name in set(files) - set(WITHOUT):
        del files[name]


PERSON = (EXPLANATION, "people", 0)
CHANGES = {
    "byte of an image": (changed_byte, "person-0-map.webp is not the file that was signed"),
    "image removed": (lambda files: files.pop(MAP), "the file explanation/person-0-map.webp is missing"),
    "image added": (
        lambda files: files.update({"explanation/person-7-map.webp": files[MAP]}),
        "the file explanation/person-7-map.webp is not among those that were signed",
    ),
    "images swapped": (swapped, "is not the file that was signed"),
    "explanation changed": (inside(*PERSON, "explains", to=True), "explanation.json is not the file that was signed"),
    "explanation removed": (lambda files: files.pop(EXPLANATION), "the file explanation.json is missing"),
    "explanation with its images removed": (without_all, "is missing"),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_changed_explanation_is_refused(bundle, refused, kind):
    change, sentence = CHANGES[kind]
    files = unpack(bundle)
    change(files)
    assert sentence in refused(pack(files))["files"]


@pytest.mark.parametrize("kind", CHANGES)
def test_it_is_refused_with_digests_of_its_own_but_without_the_signature(bundle, other_key, refused, kind):
    files = unpack(bundle)
    CHANGES[kind][0](files)
    files["SHA256SUMS"] = sealed(files, other_key)["SHA256SUMS"]
    assert refused(pack(files))["files"]


def test_another_score_with_digests_of_its_own_is_refused(bundle, other_key, refused):
    files = unpack(bundle)
    inside(*PERSON, "face_score", to=0.1)(files)
    files["SHA256SUMS"] = sealed(files, other_key)["SHA256SUMS"]
    found = refused(pack(files))
    assert set(found) == {"files", "explanation"}
    assert "SHA256SUMS is not the file that was signed" in found["files"]
    assert "has the score 0.1 there, and 0.9" in found["explanation"]


def test_an_explanation_that_somebody_else_signed_is_refused(bundle, key, other_key, refused):
    files = unpack(bundle)
    replace(files, MAP, files[OVERLAY][:-2] + b"\0\0")
    forged = pack(sealed(files, other_key))
    assert "is signed by the key" in refused(forged, key=key.public.id)["signature"]
    in_its_name = pack(sealed(files, other_key, pem=key.public.pem))
    assert "the signature is not by the key" in refused(in_its_name)["signature"]


def replace(files, name, data):
    """Put another image into a bundle, and its size and digest into the explanation."""
    files[name] = data
    explanation = json.loads(files[EXPLANATION])
    for image in explanation["images"]:
        if f"explanation/{image['name']}" == name:
            image.update(size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    files[EXPLANATION] = json.dumps(explanation).encode()


def replaced(name, change):
    return lambda files: replace(files, name, change(files[name]))


def picture(kind, size=(224, 224), **options):
    out = io.BytesIO()
    Image.new("RGB", size, "grey").save(out, kind, **options)
    return out.getvalue()


def listed(change):
    """Change the explanation by a function of it."""

    def run(files):
        explanation = json.loads(files[EXPLANATION])
        change(explanation)
        files[EXPLANATION] = json.dumps(explanation).encode()

    return run


def many_images(files):
    """Give a person 91 images in all."""
    explanation = json.loads(files[EXPLANATION])
    image, [*_, person] = explanation["images"][0], explanation["people"]
    for number in range(91 - len(explanation["images"])):
        name = f"person-{number + 100}-thumbnail-0.webp"
        files[f"explanation/{name}"] = files[f"explanation/{image['name']}"]
        explanation["images"].append({**image, "name": name})
        person["thumbnails"].append({**person["thumbnails"][0], "image": name})
    files[EXPLANATION] = json.dumps(explanation).encode()


def placed(thumbnail):
    """Place and score of a thumbnail's face, as they are given of an explained face."""
    names = {"segment": "segment", "time_s": "time_s", "box_px": "box_px", "fake_score": "face_score"}
    return {name: thumbnail[given] for given, name in names.items()}


THUMBNAIL = (*PERSON, "thumbnails", 0)
CONTRADICTIONS = {
    "byte of an image": (changed_byte, "is not the image whose size and SHA-256 explanation.json lists"),
    "image removed": (
        lambda files: files.pop(MAP),
        "the image person-0-map.webp that explanation.json names is missing",
    ),
    "image added": (CHANGES["image added"][0], "person-7-map.webp is not among those that explanation.json lists"),
    "images swapped": (swapped, "is not the image whose size and SHA-256 explanation.json lists"),
    "explanation removed": (lambda files: files.pop(EXPLANATION), "the file explanation.json is missing"),
    "score of a face": (inside(*PERSON, "face_score", to=0.5), "has the score 0.5 there"),
    "score of a thumbnail": (inside(*THUMBNAIL, "fake_score", to=0.5), "has the score 0.5 there"),
    "score beyond one": (inside(*PERSON, "explained_score", to=1.5), "has a score of person 1 that is none"),
    "score of a thumbnail beyond one": (inside(*THUMBNAIL, "fake_score", to=2), "has a score of person 1 that is none"),
    "time of a face": (inside(*PERSON, "time_s", to=0.25), "is not among the faces of segment 1"),
    "box of a thumbnail": (inside(*THUMBNAIL, "box_px", 0, to=0.0), "is not among the faces of segment 0"),
    "turn of a face": (inside(*PERSON, "turned_deg", to=90), "is not among the faces of segment 1"),
    "segment of a face": (inside(*PERSON, "segment", to=0), "is not among the faces of segment 0"),
    "segment that is not there": (
        inside(*PERSON, "segment", to=3),
        "a face of segment 3, which segments.jsonl does not",
    ),
    "person of a face": (inside(*PERSON, "person", to=5), "the face of person 5 at 0.0 s"),
    "person twice": (inside(*PERSON, "person", to=0), "has a person twice"),
    "face that is not the highest": (
        listed(lambda found: found["people"][0].update(placed(found["people"][0]["thumbnails"][0]))),
        "explains another face of person 1 than the highest",
    ),
    "image of two faces": (inside(*THUMBNAIL, "image", to="person-0-map.webp"), "names an image twice"),
    "image of no face": (
        listed(lambda found: found["people"][0]["thumbnails"].pop()),
        "person-1-thumbnail-5.webp belongs to no face",
    ),
    "image that is not listed": (
        listed(lambda found: found["images"].pop()),
        "is not among those that explanation.json lists",
    ),
    "no people": (listed(lambda found: found.update(people=[])), "belongs to no face"),
    "further kind of image": (inside(*PERSON, "images", "more", to="person-1-map.webp"), "other images of person 1"),
    "parent folder": (
        inside(EXPLANATION, "images", 0, "name", to="../../evil.webp"),
        "the unusual name '../../evil.webp'",
    ),
    "escape in a name": (inside(EXPLANATION, "images", 0, "name", to="\x1b[2Jperson-0-map.webp"), "the unusual name"),
    "name that is a list": (inside(EXPLANATION, "images", 0, "name", to=[]), "the unusual name"),
    "no fields": (lambda files: files.update({EXPLANATION: b"{}"}), "has not the form"),
    "no JSON": (lambda files: files.update({EXPLANATION: b"\xff"}), "holds no JSON"),
    "field twice": (
        lambda files: files.update({EXPLANATION: b'{"people":[],' + files[EXPLANATION][1:]}),
        "a field is there twice",
    ),
    "job": (inside(EXPLANATION, "job_id", to=str(uuid.uuid4())), "is about another job"),
    "checkpoint": (inside(EXPLANATION, "model", "weights_sha256", to="0" * 64), "the scores of another checkpoint"),
    "status": (inside(EXPLANATION, "status", to="failed"), "there is no explanation with images"),
    "no images stored": (inside(EXPLANATION, "images_stored", to=False), "there is no explanation with images"),
    "status in the job": (inside("job.json", "explanation", to=None), "job.json says that the job has no explanation"),
    "91 images": (many_images, "lists 91 images; the limit is 90"),
    "GIF": (replaced(MAP, lambda _: picture("GIF")), "person-0-map.webp is no WebP image"),
    "PNG": (replaced(MAP, lambda _: picture("PNG")), "person-0-map.webp is no WebP image"),
    "script": (replaced(MAP, lambda _: b"<script>" * 10), "person-0-map.webp is no WebP image"),
    "empty image": (replaced(MAP, lambda _: b""), "person-0-map.webp is no WebP image"),
    "bytes after an image": (replaced(MAP, lambda data: data + b"more"), "is not one WebP picture and nothing else"),
    "cut image": (replaced(MAP, lambda data: data[:-2]), "is not one WebP picture and nothing else"),
    "image with metadata": (
        replaced(MAP, lambda _: picture("WEBP", exif=b"Exif\0\0hidden")),
        "is not one WebP picture and nothing else",
    ),
    "unknown kind of WebP": (
        replaced(MAP, lambda data: data[:12] + b"ANIM" + data[16:]),
        "is a kind of WebP that no service makes",
    ),
    "picture without its start": (
        replaced(MAP, lambda data: data[:23] + b"more" + data[27:]),
        "is a kind of WebP that no service makes",
    ),
    "huge image": (replaced(MAP, lambda _: picture("WEBP", (9000, 10))), "9000 x 10 pixels"),
    "crop of another size": (
        replaced(CROP, lambda _: picture("WEBP", (96, 96), lossless=True)),
        "is not as large as the crops that the checkpoint scores (224 px)",
    ),
}


@pytest.mark.parametrize("kind", CONTRADICTIONS)
def test_an_explanation_that_contradicts_itself_is_refused_though_its_signature_is_right(bundle, key, refused, kind):
    change, sentence = CONTRADICTIONS[kind]
    files = unpack(bundle)
    change(files)
    found = refused(pack(sealed(files, key)))
    assert set(found) == {"explanation"}
    assert sentence in found["explanation"]


def test_a_bundle_with_the_images_of_another_size_and_kind_is_accepted_where_it_says_so(bundle, key, refused):
    """Otherwise the images above would be refused for another reason than theirs."""
    files = unpack(bundle)
    replace(files, MAP, picture("WEBP", (96, 64)))
    replace(files, CROP, picture("WEBP", lossless=True))
    assert refused(pack(sealed(files, key))) == {}


@pytest.mark.parametrize(
    "name", ["explanation/../../evil.webp", "explanation/..", "/explanation/a.webp", "explanation/"]
)
def test_an_image_with_an_unsafe_name_is_refused_unread(bundle, key, refused, name):
    found = refused(pack(sealed({**unpack(bundle), name: b""}, key)))
    assert set(found) == {"archive"}


def test_two_hundred_images_are_refused_unread(bundle, key, refused):
    files = unpack(bundle)
    more = {f"explanation/person-{number}-thumbnail-0.webp": files[MAP] for number in range(200)}
    found = refused(pack(sealed(files | more, key)))
    assert "files; the limit is 101" in found["archive"]


def test_an_image_larger_than_any_is_not_read(bundle, refused, monkeypatch):
    monkeypatch.setattr(explanations, "MAX_IMAGE_BYTES", 1000)
    assert "the limit is 1000" in refused(bundle)["explanation"]


def test_a_flipped_bit_anywhere_is_refused_or_changes_nothing_that_is_said(bundle, refused):
    chance, files = random.Random(1), unpack(bundle)
    for _ in range(200):
        place, bit = chance.randrange(len(bundle)), 1 << chance.randrange(8)
        changed = bundle[:place] + bytes([bundle[place] ^ bit]) + bundle[place + 1 :]
        if not refused(changed):
            assert unpack(changed) == files, place


STATED_ONLY = {"note", "created_at", "finished_at", "error"}
"""Fields of an explanation that nothing else in a bundle says."""


def test_values_of_unexpected_types_are_refused_with_a_sentence(bundle, key, tmp_path):
    files = unpack(bundle)
    found = json.loads(files[EXPLANATION])
    places = [(name,) for name in found if name not in STATED_ONLY]
    places += [("people", 0, name) for name in found["people"][0]]
    places += [("people", 0, "thumbnails", 0, name) for name in found["people"][0]["thumbnails"][0]]
    places += [("images", 0, name) for name in found["images"][0]] + [("model", name) for name in found["model"]]
    path = tmp_path / "bundle.zip"
    for place in places:
        for value in (None, "x", [], {}, [[]], -1):
            changed = dict(files)
            inside(EXPLANATION, *place, to=value)(changed)
            path.write_bytes(pack(sealed(changed, key)))
            [failed] = [one for one in verify_bundle(path).checks if not one.passed]
            assert failed.name == "explanation", (place, value)
            assert failed.detail, (place, value)


def made_up(api, headers, images):
    """A job that has ended, with *images* recorded as its explanation; returns its id and where they are stored."""
    job_id = api.submit(headers, noise_picture(), query_string={"explain": "true"}).json["id"]
    finish_job(api, job_id)
    storage_key = new_images_key()
    places = store_images(FileStorage(api.storage.as_uri()), storage_key, images)
    with api.sessions.transaction() as session:
        lease = acquire(session, Step.EXPLAIN, (uuid.UUID(job_id),), 60.0, max_attempts=2)
        result = {"note": "", "model": {}, "people": [], "images": places}
        record_explanation(session, lease, result, storage_key)
    return job_id, api.storage / storage_key


def test_expired_images_leave_a_bundle_without_explanation(api, headers, tmp_path, refused):
    job_id, _ = made_up(api, headers, {"person-0-map.webp": b"image"})
    with api.sessions.transaction() as session:
        find_explanation(session, uuid.UUID(job_id)).storage_key = None
    assert download(api, headers, job_id, tmp_path / "got.zip").status_code == 200
    assert sorted(unpack((tmp_path / "got.zip").read_bytes())) == sorted(WITHOUT)
    assert refused((tmp_path / "got.zip").read_bytes()) == {}


def test_lost_images_leave_a_bundle_without_explanation(api, headers, tmp_path):
    job_id, file = made_up(api, headers, {"person-0-map.webp": b"image"})
    file.unlink()
    assert download(api, headers, job_id, tmp_path / "got.zip").status_code == 200
    assert sorted(unpack((tmp_path / "got.zip").read_bytes())) == sorted(WITHOUT)


def test_damaged_images_are_a_failure_of_storage_and_take_no_slot(api, headers, tmp_path):
    job_id, file = made_up(api, headers, {"person-0-map.webp": b"image"})
    file.write_bytes(b"other")
    for _ in range(api.settings.api.bundles + 1):
        answer = download(api, headers, job_id, tmp_path / "got.zip")
        assert (answer.status_code, answer.json["code"]) == (503, "storage_error")


def test_the_most_images_are_sent_one_after_another(api, headers):
    chance = random.Random(2)
    images = {f"person-{number}-crop.webp": chance.randbytes(100_000) for number in range(90)}
    job_id, _ = made_up(api, headers, images)
    path = f"/v1/jobs/{job_id}/evidence.zip"
    with api.app.test_client().get(path, headers=headers, buffered=False) as answer:
        blocks = list(answer.iter_encoded())
    assert max(map(len, blocks)) < 200_000
    files = unpack(b"".join(blocks))
    assert {name.removeprefix("explanation/"): data for name, data in files.items() if "/" in name} == images
