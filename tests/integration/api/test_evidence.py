"""Evidence bundles: what is in them, who gets them, and that they can be checked without the service."""

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import uuid
import zipfile
from contextlib import closing
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_public_key
from deepfakestream.verification import verify_bundle
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey

from api.config import APISettings
from api.signing import create_signing_key, load_keys, load_signing_key
from shared.config import ConfigurationError, load_settings
from shared.jobs.ending import delete_job
from shared.jobs.queries import lock_job
from shared.states import JobStatus
from tests.clips import noise_picture
from tests.integration.api.conftest import api_maker
from tests.integration.api.finished import download, finish_job
from tests.servers import free_port

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def key_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("key") / "key.pem"
    create_signing_key(path)
    return path


@pytest.fixture(scope="module")
def make_api(postgres_url, template_url, tmp_path_factory):
    """One database and one Redis for all tests of this file, each of which has an owner of its own."""
    with api_maker(postgres_url, template_url, tmp_path_factory.mktemp("storage")) as make:
        yield make


@pytest.fixture(scope="module")
def api(make_api, key_file):
    return make_api(evidence={"key_file": key_file})


@pytest.fixture
def owner(api):
    return api.key(f"owner-{uuid.uuid4().hex[:8]}")[0]


@pytest.fixture
def job_id(api, owner):
    made = api.submit(owner, query_string={"metadata": '{"case": "\\u001b[31m7"}'})
    finish_job(api, made.json["id"])
    return made.json["id"]


@pytest.fixture
def bundle(api, owner, job_id, tmp_path):
    path = tmp_path / "bundle.zip"
    assert download(api, owner, job_id, path).status_code == 200
    return path


def read(bundle, name):
    with zipfile.ZipFile(bundle) as archive:
        return archive.read(name)


def test_a_bundle_holds_what_the_service_stores_of_the_job(api, owner, job_id, bundle):
    with zipfile.ZipFile(bundle) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [
            *("README.txt", "job.json", "checkpoint.json", "segments.jsonl", "environment.json", "audit.jsonl"),
            *("key.pem", "SHA256SUMS", "attestation.intoto.jsonl"),
        ]
    assert read(bundle, "job.json").rstrip() == api.call("GET", f"/v1/jobs/{job_id}", owner).data
    segments = [json.loads(line) for line in read(bundle, "segments.jsonl").splitlines()]
    assert segments == api.call("GET", f"/v1/jobs/{job_id}/segments", owner).json["items"]
    assert segments[0]["people"][0]["faces"][0]["box_px"] == [10.0, 20.0, 90.0, 110.0]
    [event] = [json.loads(line) for line in read(bundle, "audit.jsonl").splitlines()]
    assert (event["action"], event["actor"]) == ("job.submitted", "test")
    assert "127.0.0.1" not in json.dumps(event)
    environment = json.loads(read(bundle, "environment.json"))
    assert environment["engines"] == {"openvino-float32": 3}
    weights = json.loads(read(bundle, "checkpoint.json"))["weights"]["sha256"]
    assert weights == json.loads(read(bundle, "job.json"))["model"]["weights_sha256"]


def test_the_answer_is_a_download(api, owner, job_id, tmp_path):
    answer = download(api, owner, job_id, tmp_path / "bundle.zip")
    assert answer.headers["Content-Type"] == "application/zip"
    assert answer.headers["Content-Disposition"] == f'attachment; filename="evidence-{job_id}.zip"'
    assert answer.headers["Cache-Control"] == "private, no-store"


def test_the_same_state_of_a_job_gives_the_same_bytes(api, owner, job_id, bundle, tmp_path):
    again = tmp_path / "again.zip"
    download(api, owner, job_id, again)
    assert again.read_bytes() == bundle.read_bytes()


def test_the_digests_are_in_the_form_of_sha256sum(bundle, tmp_path):
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(tmp_path / "files")
    program = shutil.which("sha256sum")
    if program is None:
        pytest.skip("this machine has no sha256sum")
    done = subprocess.run(
        [program, "--strict", "-c", "SHA256SUMS"], cwd=tmp_path / "files", capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_another_implementation_of_dsse_accepts_the_signature(bundle):
    found = json.loads(read(bundle, "attestation.intoto.jsonl"))
    key = SSlibKey.from_crypto(load_pem_public_key(read(bundle, "key.pem")), keyid=found["signatures"][0]["keyid"])
    envelope = Envelope.from_dict(found)
    assert list(envelope.verify([key], threshold=1)) == [key.keyid]
    statement = json.loads(base64.b64decode(found["payload"]))
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "urn:deepfakestream:evidence:1"


PROGRAM = """
import socket, sys

def refuse(*_, **__):
    raise AssertionError("the network was used")

socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from deepfakestream.cli import main
sys.argv = ["deepfakestream", *sys.argv[1:]]
try:
    main()
finally:
    assert not {"api", "shared", "worker", "flask", "sqlalchemy"} & set(sys.modules), "the server was loaded"
"""


def command(folder, *arguments):
    """Run the command line in a process of its own, with the client package alone and without a network."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DEEPFAKESTREAM")}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(ROOT / "client")},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_bundle_is_verified_by_the_client_alone(api, owner, bundle, tmp_path):
    media = tmp_path / "media.jpg"
    media.write_bytes(noise_picture())
    key_id = api.call("GET", "/v1/evidence-key", owner).json["id"]
    done = command(tmp_path, "verify", bundle, "--media", media, "--key", key_id)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "stated exactly these results" in done.stdout
    assert "The file that you gave is that media." in done.stdout
    assert "That the verdict is true" in done.stdout
    found = json.loads(command(tmp_path, "verify", bundle, "--json").stdout)
    assert (found["passed"], found["key_id"], found["is_key_expected"]) == (True, key_id, None)
    assert "compare it with the key that the deployment publishes" in found["not_proven"][1]


def test_a_changed_bundle_and_another_file_fail_in_the_command(bundle, tmp_path):
    other = tmp_path / "other.jpg"
    other.write_bytes(noise_picture(1))
    done = command(tmp_path, "verify", bundle, "--media", other)
    assert done.returncode == 1
    assert "FAILED  media" in done.stdout
    assert "The bundle itself is intact" in done.stdout
    bundle.write_bytes(bundle.read_bytes()[:-1])
    assert command(tmp_path, "verify", bundle).returncode == 1


def test_a_key_can_be_given_as_the_file_that_the_operator_published(api, owner, bundle, tmp_path):
    published = tmp_path / "published.pem"
    published.write_text(api.call("GET", "/v1/evidence-key", owner).json["public_key"])
    assert verify_bundle(bundle, key=str(published)).is_key_expected
    other = create_signing_key(tmp_path / "other.pem").public
    found = verify_bundle(bundle, key=other.id)
    assert not found.passed
    assert [check.name for check in found.checks if not check.passed] == ["signature"]


@pytest.mark.parametrize("status", [JobStatus.FAILED, JobStatus.CANCELLED])
def test_a_job_without_a_verdict_has_a_bundle_too(api, owner, tmp_path, status):
    job_id = api.submit(owner, noise_picture(5)).json["id"]
    finish_job(api, job_id, status=status)
    download(api, owner, job_id, tmp_path / "bundle.zip")
    found = verify_bundle(tmp_path / "bundle.zip")
    assert found.passed, found.checks


def test_a_job_without_segments_and_media_has_a_bundle_too(api, owner, tmp_path):
    made = api.call("POST", "/v1/jobs", owner, json={"url": "https://files.example/clip.mp4"})
    api.call("POST", f"/v1/jobs/{made.json['id']}/cancel", owner)
    download(api, owner, made.json["id"], tmp_path / "bundle.zip")
    found = verify_bundle(tmp_path / "bundle.zip")
    assert found.passed, found.checks
    assert "a job that got no media" in found.proven()[0]


def test_a_job_of_many_pages_is_whole(api, owner, tmp_path):
    job_id = api.submit(owner, noise_picture(6)).json["id"]
    finish_job(api, job_id, segments=205)
    download(api, owner, job_id, tmp_path / "bundle.zip")
    assert len(read(tmp_path / "bundle.zip", "segments.jsonl").splitlines()) == 205
    found = verify_bundle(tmp_path / "bundle.zip")
    assert found.passed, found.checks


def test_refusals_have_their_codes(api, owner, make_api, job_id):
    running = api.submit(owner, noise_picture(2)).json["id"]
    answer = api.call("GET", f"/v1/jobs/{running}/evidence.zip", owner)
    assert (answer.status_code, answer.json["code"]) == (409, "job_not_final")
    other = api.key("another")[0]
    assert api.call("GET", f"/v1/jobs/{job_id}/evidence.zip", other).status_code == 404
    without = make_api()
    for path in (f"/v1/jobs/{job_id}/evidence.zip", "/v1/evidence-key"):
        answer = without.call("GET", path, owner)
        assert (answer.status_code, answer.json["code"]) == (409, "no_evidence_key")
        assert "evidence.key_file" in answer.json["detail"]


@pytest.mark.usefixtures("bundle")
def test_an_erased_job_has_no_bundle_and_leaves_nothing(api, owner, job_id):
    assert api.call("DELETE", f"/v1/jobs/{job_id}", owner).status_code == 204
    assert api.call("GET", f"/v1/jobs/{job_id}/evidence.zip", owner).status_code == 404
    assert not [path for path in api.files() if path.suffix == ".zip" or zipfile.is_zipfile(path)]


def test_a_job_that_is_erased_while_its_bundle_is_sent_gives_no_bundle(api, owner, tmp_path):
    job_id = api.submit(owner, noise_picture(3)).json["id"]
    finish_job(api, job_id, segments=60)
    with closing(api.app.test_client().get(f"/v1/jobs/{job_id}/evidence.zip", headers=owner, buffered=False)) as answer:
        blocks = answer.iter_encoded()
        sent = [next(blocks)]
        with api.sessions.transaction() as session:
            delete_job(session, lock_job(session, job_id))
        with pytest.raises(Exception, match="erased"):
            sent.extend(blocks)
    (tmp_path / "part.zip").write_bytes(b"".join(sent))
    assert not verify_bundle(tmp_path / "part.zip").passed


def test_slow_readers_do_not_take_every_thread(api, owner, job_id):
    slots = api.settings.api.bundles
    path = f"/v1/jobs/{job_id}/evidence.zip"
    held = [api.app.test_client().get(path, headers=owner, buffered=False) for _ in range(slots)]
    answer = api.call("GET", path, owner)
    assert (answer.status_code, answer.json["code"]) == (503, "overloaded")
    assert answer.headers["Retry-After"]
    for each in held:
        each.close()
    assert api.call("GET", path, owner).status_code == 200


def test_retired_keys_are_listed(owner, make_api, key_file, tmp_path):
    retired = create_signing_key(tmp_path / "retired.pem").public
    (tmp_path / "retired.pub").write_text(retired.pem)
    rotated = make_api(evidence={"key_file": key_file, "retired_key_files": [tmp_path / "retired.pub"]})
    document = rotated.call("GET", "/v1/evidence-key", owner).json
    assert [key["id"] for key in document["retired"]] == [retired.id]
    assert document["id"] != retired.id
    assert document["algorithm"] == "ed25519"


@pytest.mark.parametrize("content", [None, b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_a_key_that_cannot_be_read_is_reported_at_the_start(make_api, tmp_path, content):
    path = tmp_path / "broken.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"evidence\.key_file"):
        make_api(evidence={"key_file": path})


def test_a_key_can_come_from_a_folder_of_secrets(key_file, tmp_path, monkeypatch):
    (tmp_path / "evidence__key").write_bytes(key_file.read_bytes())
    monkeypatch.setenv("DEEPFAKESTREAM_SECRETS", str(tmp_path))
    for name in ("DATABASE__URL", "BROKER__URL", "STORAGE__URL"):
        monkeypatch.setenv(f"DEEPFAKESTREAM_{name}", "file:///x")
    current = load_keys(load_settings(APISettings).evidence).current
    assert current.public == load_signing_key(key_file).public
    monkeypatch.setenv("DEEPFAKESTREAM_EVIDENCE__KEY_FILE", str(key_file))
    with pytest.raises(ConfigurationError, match="either key or key_file"):
        load_settings(APISettings)


def test_a_new_key_is_readable_by_its_owner_alone_and_never_overwritten(key_file):
    assert key_file.stat().st_mode & 0o777 == 0o600
    before = key_file.read_bytes()
    with pytest.raises(FileExistsError):
        create_signing_key(key_file)
    assert key_file.read_bytes() == before


def test_a_key_that_cannot_be_written_leaves_no_file(tmp_path):
    path = tmp_path / "key.pem"
    # A new process, since the limit would hold for all of this one's threads.
    create = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10)); from api.signing import *"
    run = [sys.executable, "-c", f"{create}; commands()", "create", str(path)]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "key.pem cannot be written (File too large)" in done.stderr
    assert not path.exists()


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """A time stamp authority of its own, by OpenSSL, behind a real HTTP server: its address and its root."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("this machine has no openssl, which serves as a time stamp authority here")
    folder = tmp_path_factory.mktemp("authority")
    (folder / "serial").write_text("01\n")
    (folder / "tsa.cnf").write_text(
        "[tsa]\ndefault_tsa=one\n[one]\nserial=serial\nsigner_cert=tsa.pem\nsigner_key=tsa.key\n"
        "signer_digest=sha256\ndefault_policy=1.2.3.4.1\ndigests=sha256\nordering=no\ntsa_name=no\n"
        "[ca]\nbasicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\nsubjectKeyIdentifier=hash\n"
        "[leaf]\nbasicConstraints=critical,CA:FALSE\nextendedKeyUsage=critical,timeStamping\n"
        "keyUsage=critical,digitalSignature\nauthorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\n"
        "[req]\ndistinguished_name=dn\n[dn]\n"
    )
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-config", "tsa.cnf", "-days", "1")

    def openssl(*arguments):
        subprocess.run([program, *arguments], cwd=folder, capture_output=True, check=True)

    openssl("req", "-x509", *curve, "-subj", "/CN=root", "-extensions", "ca", "-keyout", "root.key", "-out", "root.pem")
    issued = ("-CA", "root.pem", "-CAkey", "root.key", "-extensions", "leaf", "-keyout", "tsa.key", "-out", "tsa.pem")
    openssl("req", "-x509", *curve, "-subj", "/CN=tsa", *issued)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            assert self.headers["Content-Type"] == "application/timestamp-query"
            (folder / "query").write_bytes(self.rfile.read(int(self.headers["Content-Length"])))
            openssl("ts", "-reply", "-config", "tsa.cnf", "-queryfile", "query", "-out", "reply")
            self.send_response(200)
            self.end_headers()
            self.wfile.write((folder / "reply").read_bytes())

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/", folder / "root.pem"
        server.shutdown()
        thread.join()


def test_a_time_stamp_is_checked_against_the_root_of_its_authority(
    authority, make_api, key_file, owner, job_id, tmp_path
):
    url, root = authority
    stamped = make_api(evidence={"key_file": key_file, "timestamp_url": url})
    path = tmp_path / "stamped.zip"
    assert download(stamped, owner, job_id, path).status_code == 200
    found = verify_bundle(path, timestamp_root=root)
    assert found.passed, found.checks
    assert found.stamped_at
    assert "The bundle existed at" in found.proven()[-1]
    unchecked = verify_bundle(path)
    assert unchecked.passed
    assert unchecked.stamped_at is None
    assert "When the bundle was made." in unchecked.not_proven()
    other = tmp_path / "other.pem"
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "root")])
    secret = Ed25519PrivateKey.generate()
    built = x509.CertificateBuilder(name, name, secret.public_key(), 1, *two_days()).sign(secret, None)
    other.write_bytes(built.public_bytes(Encoding.PEM))
    assert not verify_bundle(path, timestamp_root=other).passed


def two_days():
    now = datetime.now(UTC)
    return now - timedelta(days=1), now + timedelta(days=1)


def test_a_time_stamp_of_another_bundle_and_a_missing_one_are_refused(
    authority, make_api, key_file, api, owner, job_id, bundle, tmp_path
):
    url, root = authority
    stamped = make_api(evidence={"key_file": key_file, "timestamp_url": url})
    other = api.submit(owner, noise_picture(8)).json["id"]
    finish_job(api, other)
    download(stamped, owner, other, tmp_path / "other.zip")
    with zipfile.ZipFile(bundle, "a") as archive:
        archive.writestr("timestamp.tsr", read(tmp_path / "other.zip", "timestamp.tsr"))
    [failed] = [check for check in verify_bundle(bundle, timestamp_root=root).checks if not check.passed]
    assert "of another envelope" in failed.detail
    download(api, owner, job_id, bundle)
    [failed] = [check for check in verify_bundle(bundle, timestamp_root=root).checks if not check.passed]
    assert "no time stamp" in failed.detail


def test_a_bundle_is_sent_without_a_time_stamp_where_the_authority_is_unavailable(
    make_api, key_file, owner, job_id, tmp_path
):
    stamped = make_api(evidence={"key_file": key_file, "timestamp_url": f"http://127.0.0.1:{free_port()}/"})
    download(stamped, owner, job_id, tmp_path / "bundle.zip")
    found = verify_bundle(tmp_path / "bundle.zip")
    assert found.passed
    assert "time stamp" not in [check.name for check in found.checks]


def test_a_bundle_is_sent_without_a_time_stamp_where_the_authority_speaks_no_http(
    make_api, key_file, owner, job_id, tmp_path
):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"this is no HTTP\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        stamped = make_api(evidence={"key_file": key_file, "timestamp_url": url})
        download(stamped, owner, job_id, tmp_path / "bundle.zip")
        thread.join()
    assert verify_bundle(tmp_path / "bundle.zip").passed
