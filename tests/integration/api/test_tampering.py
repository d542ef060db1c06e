"""
Bundles that were changed after they were signed, zip files made to harm, and bundles that contradict themselves.

One bundle is made by the api; each test changes a copy of it.
"""

import base64
import io
import json
import random
import struct
import zipfile
from functools import partial

import pytest
from deepfakestream.verification import archive as archives
from deepfakestream.verification import checking, describe_verification, documents, verify_bundle

from api.signing import STATEMENT_TYPE, create_signing_key, load_signing_key
from tests.clips import noise_picture
from tests.integration.api.bundles import ATTESTATION, failed_checks, inside, pack, sealed, unpack
from tests.integration.api.conftest import api_maker
from tests.integration.api.finished import download, finish_job

FILES = (
    *("README.txt", "job.json", "checkpoint.json", "segments.jsonl", "environment.json", "audit.jsonl", "key.pem"),
    *("SHA256SUMS", "attestation.intoto.jsonl"),
)


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """The key of the deployment, and one of somebody else."""
    folder = tmp_path_factory.mktemp("keys")
    return tuple(create_signing_key(folder / name) for name in ("own.pem", "other.pem"))


@pytest.fixture(scope="module")
def bundles(postgres_url, template_url, tmp_path_factory):
    """Two bundles of one deployment, as bytes, and its key."""
    folder = tmp_path_factory.mktemp("bundles")
    create_signing_key(folder / "key.pem")
    with api_maker(postgres_url, template_url, folder / "storage") as make:
        api = make(evidence={"key_file": folder / "key.pem"})
        headers, _ = api.key("owner")
        made = []
        for number in range(2):
            job_id = api.submit(headers, noise_picture(number)).json["id"]
            finish_job(api, job_id)
            download(api, headers, job_id, folder / "bundle.zip")
            made.append((folder / "bundle.zip").read_bytes())
    return made, load_signing_key(folder / "key.pem")


@pytest.fixture
def bundle(bundles):
    return bundles[0][0]


@pytest.fixture
def key(bundles):
    return bundles[1]


@pytest.fixture
def check(tmp_path):
    """Verify bytes as a bundle; returns the names of the checks that failed."""
    return partial(failed_checks, tmp_path / "bundle.zip")


def test_a_bundle_that_was_only_packed_again_is_accepted(bundle, check):
    assert check(bundle) == set()
    assert check(pack(unpack(bundle))) == set()


@pytest.mark.parametrize("name", FILES)
def test_a_changed_byte_in_any_file_is_refused(bundle, check, name):
    files = unpack(bundle)
    # Not the last one, which is the end of a line; a letter of text, so that the file can still be read.
    place = len(files[name]) // 2
    files[name] = files[name][:place] + bytes([files[name][place] ^ 1]) + files[name][place + 1 :]
    assert check(pack(files))


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_refused(bundle, check, name):
    files = unpack(bundle)
    del files[name]
    assert "files" in check(pack(files))


def test_an_added_file_is_refused(bundle, check):
    assert check(pack({**unpack(bundle), "more.txt": b"x"})) == {"files"}


def test_exchanged_files_are_refused(bundle, check):
    files = unpack(bundle)
    files["audit.jsonl"], files["environment.json"] = files["environment.json"], files["audit.jsonl"]
    assert "files" in check(pack(files))


def test_files_of_another_job_of_the_same_deployment_are_refused(bundles, check):
    (one, other), _ = bundles
    for name in ("job.json", "audit.jsonl", ATTESTATION):
        assert "files" in check(pack({**unpack(one), name: unpack(other)[name]}))


def test_a_bundle_that_is_sealed_again_by_its_own_key_is_accepted(bundle, key, check):
    """Otherwise the tests below would be refused for another reason than theirs."""
    assert check(pack(sealed(unpack(bundle), key))) == set()


def test_other_scores_with_digests_of_their_own_are_refused(bundle, keys, check):
    files = unpack(bundle)
    forged = dict(files)
    job = json.loads(files["job.json"])
    forged["job.json"] = json.dumps(job | {"verdict": "real", "fake_score": 0.01}).encode()
    forged["SHA256SUMS"] = sealed(forged, keys[1])["SHA256SUMS"]
    assert {"files", "job"} <= check(pack(forged))


def test_a_signature_by_another_key_is_refused(bundle, key, keys, check):
    forged = sealed(unpack(bundle), keys[1], pem=key.public.pem)
    assert "signature" in check(pack(forged))


def test_a_signature_by_another_key_in_the_name_of_the_right_one_is_refused(bundle, key, keys, check):
    files = unpack(bundle)
    envelope = json.loads(sealed(files, keys[1], pem=key.public.pem)[ATTESTATION])
    envelope["signatures"][0]["keyid"] = key.public.id
    assert "signature" in check(pack({**files, ATTESTATION: json.dumps(envelope).encode()}))


def test_a_bundle_of_another_deployment_is_refused_where_the_key_is_known(bundle, key, keys, check):
    forged = pack(sealed(unpack(bundle), keys[1]))
    assert check(forged, key=key.public.id) == {"signature"}
    # Without it the report says that nobody knows whose key it is.
    assert check(forged) == set()


def envelope_with(**changes):
    def change(text):
        return json.dumps(json.loads(text) | changes).encode()

    return change


def other_statement(text):
    envelope = json.loads(text)
    payload = base64.b64decode(envelope["payload"]).replace(b'"succeeded"', b'"cancelled"')
    return json.dumps(envelope | {"payload": base64.b64encode(payload).decode()}).encode()


ENVELOPES = {
    "truncated": lambda text: text[: len(text) // 2],
    "empty": lambda _: b"",
    "no JSON": lambda _: b"\xff\xfe",
    "a list": lambda _: b"[]",
    "deep": lambda _: b"[" * 100_000,
    "payload type": envelope_with(payloadType="application/vnd.in-toto+json; charset=utf-8"),
    "text type": envelope_with(payloadType="text/plain"),
    "no signatures": envelope_with(signatures=[]),
    "signatures of a wrong form": envelope_with(signatures=[1]),
    "empty signature": envelope_with(signatures=[{"keyid": "x", "sig": ""}]),
    "many signatures": envelope_with(signatures=[{"keyid": "x", "sig": ""}] * 1000),
    "payload that is not base64": envelope_with(payload="§"),
    "other payload": other_statement,
    "signature with a bit more": lambda text: text.replace(b'"sig":"', b'"sig":"AAAA'),
}


@pytest.mark.parametrize("kind", ENVELOPES)
def test_a_broken_envelope_is_refused(bundle, check, kind):
    files = unpack(bundle)
    files[ATTESTATION] = ENVELOPES[kind](files[ATTESTATION])
    assert "signature" in check(pack(files))


def retyped(statement):
    statement["_type"] = "https://in-toto.io/Statement/v0.1"


def repredicated(statement):
    statement["predicateType"] = "urn:deepfakestream:evidence:2"


def doubled(statement):
    statement["subject"].append(statement["subject"][0])


def other_media(statement):
    statement["subject"][-1]["digest"]["sha256"] = "0" * 64


def other_weights(statement):
    statement["predicate"]["checkpoint"]["weights_sha256"] = "0" * 64


def other_verdict(statement):
    statement["predicate"]["job"]["verdict"] = "other"


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        (retyped, "signature"),
        (repredicated, "signature"),
        (doubled, "signature"),
        (other_media, "job"),
        (other_verdict, "job"),
        (other_weights, "checkpoint"),
    ],
)
def test_a_signed_statement_that_contradicts_the_files_is_refused(bundle, key, check, change, failed):
    assert STATEMENT_TYPE == "https://in-toto.io/Statement/v1"
    assert failed in check(pack(sealed(unpack(bundle), key, change=change)))


def job_with(**changes):
    def change(files):
        job = json.loads(files["job.json"])
        files["job.json"] = json.dumps(job | changes).encode()

    return change


FACE = ("segments.jsonl", "people", 0, "faces", 0)
CONTRADICTIONS = {
    "score of a face": (inside(*FACE, "fake_score", to=0.9), "scores"),
    "score of a face beyond one": (inside(*FACE, "fake_score", to=1.5), "scores"),
    "score that is text": (inside(*FACE, "fake_score", to="0.1"), "scores"),
    "score that is infinite": (inside(*FACE, "fake_score", to=float("inf")), "scores"),
    "face left out": (inside("segments.jsonl", "people", 0, "faces", to=lambda faces: faces[1:]), "scores"),
    "person left out": (inside("segments.jsonl", "people", to=lambda people: people[:1]), "scores"),
    "person exchanged": (inside("segments.jsonl", "people", 0, "person", to=7), "scores"),
    "score of a person": (inside("segments.jsonl", "people", 0, "fake_score", to=0.5), "scores"),
    "score of a segment": (inside("segments.jsonl", "fake_score", to=0.5), "scores"),
    "status of a segment": (inside("segments.jsonl", "status", to="failed"), "scores"),
    "index of a segment": (inside("segments.jsonl", "index", to=1), "scores"),
    "segment that is a list": (lambda files: files.update({"segments.jsonl": b"[]\n"}), "scores"),
    "no segments": (lambda files: files.update({"segments.jsonl": b""}), "scores"),
    "last line cut": (lambda files: files.update({"segments.jsonl": files["segments.jsonl"][:-1]}), "scores"),
    "field twice": (
        lambda files: files.update({"segments.jsonl": b'{"index":9,' + files["segments.jsonl"][1:]}),
        "scores",
    ),
    "summary in the job": (inside("job.json", "segments", 0, "fake_score", to=0.5), "scores"),
    "number of segments": (inside("job.json", "progress", "segments_total", to=4), "scores"),
    "mean": (job_with(fake_score=0.001), "scores"),
    "peak": (job_with(peak_score=0.999), "scores"),
    "verdict": (job_with(verdict="fake"), "scores"),
    "person of the job": (inside("job.json", "people", 0, "fake_score", to=0.5), "scores"),
    "number of people": (job_with(people_total=3), "scores"),
    "faces that the verdict rests on": (inside("job.json", "evidence", "faces", to=1), "scores"),
    "people that the verdict rests on": (inside("job.json", "evidence", "people", to=1.0), "scores"),
    "limit of fake": (inside("job.json", "evidence", "fake_from", to=0.1), "scores"),
    "limit of real": (inside("job.json", "evidence", "real_below", to=0.4), "scores"),
    "no people": (job_with(people="none"), "scores"),
    "weights in the job": (inside("job.json", "model", "weights_sha256", to="0" * 64), "checkpoint"),
    "weights in the manifest": (inside("checkpoint.json", "weights", "sha256", to="0" * 64), "checkpoint"),
    "threshold in the manifest": (inside("checkpoint.json", "calibration", "temperature", to=9.0), "checkpoint"),
    "architecture": (inside("checkpoint.json", "architecture", "backbone", to="other"), "checkpoint"),
    "options": (inside("job.json", "options", "sample_fps", to=7.0), "checkpoint"),
    "media in the job": (inside("job.json", "media", "sha256", to="0" * 64), "job"),
    "job that goes on": (job_with(status="running"), "job"),
    "engines": (inside("environment.json", "engines", to={}), "scores"),
    "pipeline": (inside("environment.json", "pipeline", to=1), "records"),
    "audit that is no JSON": (lambda files: files.update({"audit.jsonl": b"nothing\n"}), "records"),
}


@pytest.mark.parametrize("kind", CONTRADICTIONS)
def test_a_bundle_that_contradicts_itself_is_refused_though_its_signature_is_right(bundle, key, check, kind):
    change, failed = CONTRADICTIONS[kind]
    files = unpack(bundle)
    change(files)
    job = json.loads(files["job.json"])

    def follow(statement):
        """Sign what the changed document says, so that the statement is not what gives it away."""
        if failed == "scores":
            statement["predicate"]["job"] = {name: job[name] for name in statement["predicate"]["job"]}

    found = check(pack(sealed(files, key, change=follow)))
    assert failed in found
    assert not found & {"signature", "files"}


def renamed(name):
    def change(bundle):
        files = unpack(bundle)
        return pack([(name if old == "README.txt" else old, content) for old, content in files.items()])

    return change


def with_entry(**attributes):
    """The bundle with a further entry of these attributes."""

    def change(bundle):
        out = io.BytesIO(bundle)
        with zipfile.ZipFile(out, "a") as archive:
            entry = zipfile.ZipInfo("more")
            for name, value in attributes.items():
                setattr(entry, name, value)
            archive.writestr(entry, b"../../etc/passwd")
        return out.getvalue()

    return change


def patched(offset, value):
    """The bundle with a field of its first central header set: at *offset*, to two or four bytes."""

    def change(bundle):
        place = bundle.index(b"PK\x01\x02") + offset
        return bundle[:place] + value + bundle[place + len(value) :]

    return change


def commented(bundle):
    out = io.BytesIO(bundle)
    with zipfile.ZipFile(out, "a") as archive:
        archive.comment = b"\x1b]0;title\x07"
    return out.getvalue()


def padded_between(bundle):
    """The bundle with bytes before its central directory, which its end knows of."""
    start = bundle.index(b"PK\x01\x02")
    end = bundle.rindex(b"PK\x05\x06")
    moved = struct.pack("<L", struct.unpack_from("<L", bundle, end + 16)[0] + 5)
    return bundle[:start] + b"extra" + bundle[start : end + 16] + moved + bundle[end + 20 :]


ARCHIVES = {
    "empty": lambda _: b"",
    "no zip": lambda _: b"GIF89a" * 100,
    "half": lambda bundle: bundle[: len(bundle) // 2],
    "end cut": lambda bundle: bundle[:-1],
    "bytes after the end": lambda bundle: bundle + b"x",
    "bytes before the start": lambda bundle: b"#!/bin/sh\n" + bundle,
    "bytes between": padded_between,
    "comment": commented,
    "parent folder": renamed("../README.txt"),
    "parent folder within": renamed("a/../../README.txt"),
    "absolute": renamed("/README.txt"),
    "drive": renamed("C:README.txt"),
    "backslash": renamed("..\\README.txt"),
    "escape in a name": renamed("\x1b[2JREADME.txt"),
    "name that is not ASCII": renamed("README\u202etxt.exe"),
    "folder": renamed("README/"),
    "duplicate": lambda bundle: pack([*unpack(bundle).items(), ("job.json", b"{}")]),
    "symbolic link": with_entry(external_attr=0o120777 << 16),
    "device": with_entry(external_attr=0o020666 << 16),
    "bzip2": with_entry(compress_type=zipfile.ZIP_BZIP2),
    "lzma": with_entry(compress_type=zipfile.ZIP_LZMA),
    "unknown compression": patched(10, b"\x63\x00"),
    "stored as it says": patched(10, b"\x00\x00"),
    "encrypted": patched(8, b"\x09\x00"),
    "huge when inflated": patched(24, b"\xfe\xff\xff\xff"),
    "more files than there are bytes": patched(42, b"\xff\xff\xff\x7f"),
    "many files": lambda bundle: pack({**unpack(bundle), **{f"f{number}": b"" for number in range(100)}}),
}


@pytest.mark.parametrize("kind", ARCHIVES)
def test_a_zip_file_that_no_deployment_makes_is_refused_unread(bundle, check, kind):
    assert check(ARCHIVES[kind](bundle)) == {"archive"}


@pytest.mark.parametrize("size", [b"\0\0\0\0", b"\x10\0\0\0", b"\xff\xff\xff\x7f"])
def test_a_file_of_another_size_than_the_zip_file_says_is_refused(bundle, check, size):
    assert check(patched(24, size)(bundle)) & {"archive", "files"}


def test_a_file_that_inflates_to_more_than_the_limit_is_not_inflated(bundle, check, monkeypatch):
    monkeypatch.setattr(archives, "MAX_BYTES", 100_000)
    bomb = pack({**unpack(bundle), "more": b"0" * 200_000})
    monkeypatch.setattr(zipfile.ZipExtFile, "read", lambda *_: pytest.fail("it was inflated"))
    assert check(bomb) == {"archive"}


def test_a_file_that_is_read_as_a_whole_and_an_endless_line_have_limits(bundle, check, monkeypatch):
    monkeypatch.setattr(archives, "MAX_SMALL_BYTES", 100)
    assert "job" in check(bundle)
    monkeypatch.undo()
    monkeypatch.setattr(archives, "MAX_LINE_BYTES", 100)
    monkeypatch.setattr(archives, "BLOCK_BYTES", 50)
    assert "scores" in check(bundle)


def test_a_flipped_bit_anywhere_is_refused_or_changes_nothing_that_is_said(bundle, check):
    """Times and the like of the zip file are not signed, and nothing is read from them."""
    chance, files = random.Random(1), unpack(bundle)
    for _ in range(300):
        place, bit = chance.randrange(len(bundle)), 1 << chance.randrange(8)
        changed = bundle[:place] + bytes([bundle[place] ^ bit]) + bundle[place + 1 :]
        if not check(changed):
            assert unpack(changed) == files, place


def test_what_a_document_says_cannot_obey_itself_on_a_terminal(bundle, key, check, tmp_path):
    files = unpack(bundle)
    inside("segments.jsonl", "people", 0, "person", to="\x1b]0;owned\x07")(files)
    path = tmp_path / "escape.zip"
    path.write_bytes(pack(sealed(files, key)))
    found = verify_bundle(path)
    assert not found.passed
    assert "\x1b" not in describe_verification(found)
    assert check(path.read_bytes())


@pytest.mark.parametrize("media", [{}, {"size_bytes": 1}, {"sha256": None, "size_bytes": 1}])
def test_media_without_a_digest_is_refused(bundle, key, check, media):
    def state(statement):
        statement["predicate"]["media"] = {"sha256": None, **media}
        statement["subject"].pop()

    files = unpack(bundle)
    files["job.json"] = json.dumps({**json.loads(files["job.json"]), "media": media}).encode()
    assert "job" in check(pack(sealed(files, key, change=state)))


def test_more_lines_than_any_bundle_has_are_not_read(bundle, key, check, monkeypatch):
    files = unpack(bundle)
    files["audit.jsonl"] = b"{}\n" * (checking.MAX_EVENTS + 1)
    assert check(pack(sealed(files, key))) == {"records"}
    monkeypatch.setattr(checking, "MAX_SEGMENTS", 2)
    assert "scores" in check(bundle)


def test_a_document_of_more_values_than_any_has_is_not_read(bundle, key, tmp_path, monkeypatch):
    """A bundle of 61 kB with twenty million lists in a document took 1.6 GB of memory."""
    monkeypatch.setattr(documents, "MAX_VALUES", 50_000)
    files = unpack(bundle)
    # Not even JSON, so that another sentence shows that it was read.
    files["job.json"] = b"[]," * 50_000
    path = tmp_path / "values.zip"
    path.write_bytes(pack(sealed(files, key)))
    assert "job.json has more than 50000 values" in describe_verification(verify_bundle(path))


def test_a_sentence_that_quotes_a_document_is_short(bundle, key, tmp_path):
    files = unpack(bundle)
    job = json.loads(files["job.json"])
    files["job.json"] = json.dumps({**job, "id": "x" * 1_000_000}).encode()

    def state(statement):
        statement["predicate"]["job"]["id"] = "x" * 1_000_000

    path = tmp_path / "long.zip"
    path.write_bytes(pack(sealed(files, key, change=state)))
    assert len(describe_verification(verify_bundle(path))) < 10_000


@pytest.mark.parametrize("kind", ["many files", "large list", "64 bits"])
def test_the_list_of_files_is_not_read_where_its_size_is_unusual(bundle, check, monkeypatch, kind):
    end = bundle[-22:]
    changed = {
        "many files": bundle[:-22] + end[:8] + b"\xff\xff\xff\xff" + end[12:],
        "large list": bundle[:-22] + end[:12] + b"\xff\xff\xff\x00" + end[16:],
        "64 bits": bundle[:-22] + b"PK\x06\x07" + bytes(16) + end,
    }
    monkeypatch.setattr(archives, "ZipFile", lambda _: pytest.fail("it was read"))
    assert check(changed[kind]) == {"archive"}


@pytest.mark.parametrize("attribute", ["comment", "extra"])
def test_entries_that_hold_more_than_their_files_are_refused(bundle, check, attribute):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in unpack(bundle).items():
            entry = zipfile.ZipInfo(name)
            setattr(entry, attribute, b"\xfe\xca" + struct.pack("<H", 1000) + b"hidden".ljust(1000))
            archive.writestr(entry, content)
    assert check(out.getvalue()) == {"archive"}
