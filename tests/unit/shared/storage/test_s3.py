"""Storage in S3, where it differs from a disk, with a real server."""

import gc
import hashlib
import io
import os
import threading
import uuid
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import httpx
import pytest

from shared.config import StorageSettings
from shared.errors import StorageError
from shared.storage.client import S3Client, open_session
from shared.storage.s3 import PART_BYTES, S3Storage
from tests.broken_s3 import (
    LosesItsAnswer,
    answering,
    break_off,
    drip_body,
    drip_headers,
    listening,
    never_continue,
    say_nothing,
)


@pytest.fixture
def storage(s3_settings):
    return S3Storage(s3_settings)


@pytest.fixture
def server(s3_settings):
    """Calls to the S3 server that do not pass through the storage under test."""
    return S3Client(open_session(s3_settings), s3_settings.endpoint_url, timeout_s=30.0)


def object_of(settings, key):
    """The parameters by which S3 finds the object *key* of a storage."""
    address = urlsplit(settings.url)
    return {"Bucket": address.netloc, "Key": f"{address.path.strip('/')}/{key}"}


@pytest.fixture
def sizes_read(monkeypatch):
    """The number of bytes of each read that any client asks the server for."""
    sizes, read = [], S3Client.read

    def recorded(client, size_bytes, **given):
        sizes.append(size_bytes)
        return read(client, size_bytes, **given)

    monkeypatch.setattr(S3Client, "read", recorded)
    return sizes


def test_a_large_upload_is_sent_in_parts_and_complete(storage):
    block = os.urandom(1024 * 1024)
    upload = storage.create("media/large")
    for _ in range(2 * PART_BYTES // len(block) + 1):
        upload.write(block)
    assert list(storage.list("media")) == []
    upload.commit()
    with storage.local_path("media/large") as path:
        content = path.read_bytes()
    assert content == block * (2 * PART_BYTES // len(block) + 1)


def test_an_aborted_upload_leaves_no_object_and_no_parts(storage, server, s3_settings):
    for size_bytes in (10, PART_BYTES + 10):
        upload = storage.create("media/a")
        upload.write(b"x" * size_bytes)
        upload.abort()
        del upload
    gc.collect()
    assert list(storage.list("media")) == []
    place = object_of(s3_settings, "")
    begun = server.call("list_multipart_uploads", Bucket=place["Bucket"], Prefix=place["Key"])
    assert begun.get("Uploads", []) == []


def test_a_presigned_address_accepts_only_the_declared_size(storage):
    signed = storage.presign_upload("incoming/a", 1000, 600)
    with httpx.Client() as http:
        more = {**signed.headers, "Content-Length": "1001"}
        assert http.put(signed.url, content=b"x" * 1001, headers=more).status_code == 403
        assert list(storage.list("incoming")) == []
        assert http.put(signed.url, content=b"x" * 1000, headers=signed.headers).status_code == 200
    assert storage.size("incoming/a") == 1000


def test_a_presigned_address_uses_the_public_host(s3_settings):
    public = s3_settings.model_copy(update={"public_endpoint_url": "https://files.example"})
    signed = S3Storage(public).presign_upload("incoming/a", 10, 600)
    assert signed.url.startswith("https://files.example/")


def test_nothing_is_presigned_without_a_known_public_address(s3_settings):
    inside = s3_settings.model_copy(update={"public_endpoint_url": None})
    assert S3Storage(inside).presign_upload("incoming/a", 10, 600) is None


def test_every_kind_of_write_requests_encryption(s3_settings, server):
    storage = S3Storage(s3_settings.model_copy(update={"server_side_encryption": "AES256"}))
    for key, size_bytes in (("media/small", 10), ("media/large", PART_BYTES + 10)):
        upload = storage.create(key)
        upload.write(b"x" * size_bytes)
        upload.commit()
    storage.copy("media/small", "media/copy")
    signed = storage.presign_upload("incoming/a", 10, 600)
    assert httpx.put(signed.url, content=b"x" * 10, headers=signed.headers).status_code == 200
    for key in ("media/small", "media/large", "media/copy", "incoming/a"):
        found = server.call("head_object", **object_of(s3_settings, key))
        assert found["ServerSideEncryption"] == "AES256"


def test_the_lifecycle_expires_leftovers(storage):
    storage.set_lifecycle(75)
    rules = {rule["ID"]: rule for rule in storage.lifecycle()}
    assert rules["deepfakestream-media"]["Expiration"]["Days"] == 75
    assert rules["deepfakestream-incoming"]["Expiration"]["Days"] == 8
    assert rules["deepfakestream-probe"]["Expiration"]["Days"] == 1
    # In a bucket with versioning, erased objects would otherwise stay for ever.
    assert {rule["NoncurrentVersionExpiration"]["NoncurrentDays"] for rule in rules.values()} == {1}


def test_a_large_object_is_copied_in_parts(s3_settings, server, monkeypatch):
    """S3 requires parts of at least 5 MiB, except for the last one."""
    monkeypatch.setattr("shared.storage.s3.COPIED_PART_BYTES", 5 * 1024 * 1024)
    storage = S3Storage(s3_settings.model_copy(update={"server_side_encryption": "AES256"}))
    content = os.urandom(11 * 1024 * 1024)
    upload = storage.create("incoming/large")
    upload.write(content)
    upload.commit()
    storage.copy("incoming/large", "media/large")
    with storage.local_path("media/large") as path:
        assert path.read_bytes() == content
    found = server.call("head_object", **object_of(s3_settings, "media/large"))
    assert found["ServerSideEncryption"] == "AES256"
    assert found["ETag"].rstrip('"').endswith("-3")


def test_copies_of_two_storages_with_the_same_keys_are_not_mixed(s3_settings):
    for name in ("one", "two"):
        storage = S3Storage(s3_settings.model_copy(update={"url": f"{s3_settings.url}/{name}"}))
        upload = storage.create("media/a")
        upload.write(name.encode())
        upload.commit()
        with storage.local_path("media/a") as path:
            assert path.read_text() == name


def test_an_object_that_changes_while_it_is_read_is_a_storage_error(storage):
    def put(content):
        upload = storage.create("incoming/a")
        upload.write(content)
        upload.commit()

    put(b"a" * 3_000_000)
    with storage.open("incoming/a") as stream:
        assert stream.read(10) == b"a" * 10
        put(b"b" * 3_000_000)
        with pytest.raises(StorageError):
            stream.read()


def test_reading_all_fetches_large_parts(storage, sizes_read):
    content = os.urandom(PART_BYTES + 1000)
    upload = storage.create("media/a")
    upload.write(content)
    upload.commit()
    with storage.open("media/a") as stream:
        assert stream.read() == content
    assert sizes_read == [PART_BYTES, 1000]


def test_reading_fetches_the_requested_range_and_one_block_ahead(storage, sizes_read):
    upload = storage.create("media/a")
    upload.write(bytes(range(256)) * 20_000)
    upload.commit()
    with storage.open("media/a") as stream:
        stream.seek(-256, os.SEEK_END)
        assert stream.read() == bytes(range(256))
        stream.seek(1)
        assert stream.read(3) == b"\x01\x02\x03"
    assert max(sizes_read) <= 1024 * 1024
    assert sum(sizes_read) <= 256 + 1024 * 1024


def test_ping_writes_nothing(storage, s3_settings):
    storage.ping()
    assert list(storage.list("probe")) == []
    for change in ({"url": f"s3://b{uuid.uuid4().hex}"}, {"secret_access_key": "wrong"}):
        with pytest.raises(StorageError):
            S3Storage(StorageSettings(**s3_settings.model_dump() | change)).ping()


def test_a_check_reads_what_it_wrote(storage, monkeypatch):
    storage.check()
    assert list(storage.list("probe")) == []
    with monkeypatch.context() as patch:
        patch.setattr(storage, "_open", lambda _client, _key: io.BytesIO(b"other"))
        with pytest.raises(StorageError, match="other bytes"):
            storage.check()
    assert list(storage.list("probe")) == []


def test_an_unavailable_server_is_a_storage_error(s3_settings):
    storage = S3Storage(s3_settings.model_copy(update={"endpoint_url": "http://127.0.0.1:1"}))
    for act in (storage.check, lambda: storage.size("media/a"), lambda: storage.delete("media/a")):
        with pytest.raises(StorageError):
            act()


def test_wrong_credentials_are_a_storage_error(s3_settings):
    wrong = s3_settings.model_dump() | {"secret_access_key": "wrong"}
    with pytest.raises(StorageError):
        S3Storage(StorageSettings(**wrong)).check()


def test_threads_share_one_storage(storage):
    """The threads of an api process share one storage."""

    def put(number):
        upload = storage.create(f"media/{number}")
        upload.write(bytes([number]) * 100_000)
        upload.commit()

    threads = [threading.Thread(target=put, args=[number]) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(16):
        with storage.open(f"media/{number}") as stream:
            assert stream.read() == bytes([number]) * 100_000


def test_a_listing_since_a_time_requests_only_names_since_then(storage):
    now = datetime.now(UTC)
    ages = {"new": timedelta(0), "yesterday": timedelta(hours=24), "old": timedelta(days=5)}
    keys = {}
    for name, age in ages.items():
        milliseconds = int((now - age).timestamp() * 1000)
        keys[name] = f"media/{uuid.UUID(int=milliseconds << 80 | 7 << 76 | 2 << 62)}"
        upload = storage.create(keys[name])
        upload.write(b"x")
        upload.commit()
    found = [key for key, _ in storage.list("media", not_before=now - timedelta(hours=30))]
    assert found == [keys["yesterday"], keys["new"]]
    assert len(list(storage.list("media"))) == 3


def test_a_silent_server_times_out_after_three_attempts(monkeypatch):
    monkeypatch.setattr("shared.storage.client.READ_TIMEOUT_S", 0.2)
    with listening(say_nothing) as (settings, arrived):
        with pytest.raises(StorageError):
            S3Storage(settings).delete("media/a")
        assert len(arrived) == 3


def put(storage):
    upload = storage.create("media/a")
    upload.write(b"x" * 1_000_000)
    upload.commit()


def put_parts(storage):
    upload = storage.create("media/a")
    upload.write(b"x" * PART_BYTES)


def fetch(storage):
    with storage.local_path("media/a"):
        pass


def read(storage):
    with storage.open("media/a") as stream:
        stream.read(10)


def listed(storage):
    list(storage.list("media"))


CALLS = [put, put_parts, fetch, read, listed, S3Storage.check, S3Storage.ping, lambda storage: storage.size("media/a")]


@pytest.mark.parametrize("serve", [say_nothing, drip_headers, drip_body, never_continue])
def test_a_response_that_never_ends_times_out(monkeypatch, tmp_path, serve):
    """Socket timeouts do not apply to a server that sends slowly, or to a body that it does not read."""
    monkeypatch.setattr("shared.storage.s3.CALL_TIMEOUT_S", 0.5)
    monkeypatch.setattr("shared.storage.s3.CHECK_TIMEOUT_S", 0.5)
    outcomes = {}
    with listening(serve) as (settings, _):
        storage = S3Storage(settings.model_copy(update={"cache_dir": tmp_path}))

        def use(call):
            try:
                outcomes[call] = call(storage)
            except Exception as error:  # noqa: BLE001 - the test looks at it
                outcomes[call] = type(error)

        threads = [threading.Thread(target=use, args=[call], daemon=True) for call in CALLS]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    # A response to HEAD has no body that could be sent slowly.
    heads = {S3Storage.ping, CALLS[-1]} if serve is drip_body else set()
    assert {call for call, outcome in outcomes.items() if outcome is StorageError} >= set(CALLS) - heads
    assert set(outcomes) == set(CALLS)


def test_abandoned_calls_are_limited(monkeypatch):
    monkeypatch.setattr("shared.storage.s3.CALL_TIMEOUT_S", 0.2)
    monkeypatch.setattr("shared.storage.client.MAX_CALLS", 3)
    with listening(drip_headers) as (settings, _):
        storage, before = S3Storage(settings), set(threading.enumerate())
        for _ in range(6):
            with pytest.raises(StorageError):
                storage.size("media/a")
        assert [thread.name for thread in set(threading.enumerate()) - before].count("s3-call") == 3


def test_an_interrupted_response_is_retried_and_finally_a_storage_error(tmp_path):
    with listening(break_off) as (settings, arrived):
        storage = S3Storage(settings.model_copy(update={"cache_dir": tmp_path}))
        with storage.open("media/a") as stream, pytest.raises(StorageError):
            stream.read(10)
        # One response had the size before the first attempt to read was interrupted.
        assert len(arrived) == 3
        with pytest.raises(StorageError), storage.local_path("media/a"):
            pass
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


SIZE, ETAG = b"Content-Length: 10", b'ETag: "a"'
PAGE = b"<ListBucketResult>%b</ListBucketResult>"
ITEM = b"<Contents><Key>prefix/media/a</Key>%b</Contents>"


def copied(storage):
    storage.copy("incoming/a", "media/a")


@pytest.mark.parametrize(
    ("call", "serve"),
    [
        pytest.param(read, answering(SIZE), id="no ETag"),
        pytest.param(copied, answering(SIZE), id="no ETag of what is copied"),
        pytest.param(read, answering(ETAG), id="no length"),
        pytest.param(CALLS[-1], answering(ETAG), id="no length for its size"),
        pytest.param(copied, answering(ETAG), id="no length of what is copied"),
        pytest.param(CALLS[-1], answering(ETAG, b"Content-Length: abc"), id="a length that is no number"),
        pytest.param(read, answering(ETAG, b"Content-Length: -5"), id="a negative length"),
        pytest.param(read, answering(SIZE, ETAG, b"Last-Modified: yesterday"), id="a time that is none"),
        pytest.param(put_parts, answering(b"Content-Length: 0"), id="an upload without its name"),
        pytest.param(listed, answering(body=PAGE % b"<IsTruncated>true</IsTruncated>"), id="a list without its rest"),
        pytest.param(
            listed,
            answering(body=PAGE % b"<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"),
            id="a list without an end",
        ),
        pytest.param(listed, answering(body=PAGE % (ITEM % b"")), id="an object without a time"),
        pytest.param(
            listed,
            answering(body=PAGE % (ITEM % b"<LastModified>nonsense</LastModified>")),
            id="an object with a time that is none",
        ),
    ],
)
def test_an_incomplete_response_is_a_storage_error(monkeypatch, tmp_path, call, serve):
    monkeypatch.setattr("shared.storage.s3.CALL_TIMEOUT_S", 10)
    with listening(serve) as (settings, _), pytest.raises(StorageError):
        call(S3Storage(settings.model_copy(update={"cache_dir": tmp_path})))


def put_large(serve):
    with listening(serve) as (settings, _):
        upload = S3Storage(settings).create("media/a")
        try:
            upload.write(b"x" * (PART_BYTES + 10))
            return upload.commit()
        finally:
            upload.abort()


def test_an_upload_whose_last_response_was_lost_succeeds():
    """S3 has completed the upload and answers NoSuchUpload to the retry."""
    serve = LosesItsAnswer(b"200 OK\r\nContent-Length: %d" % (PART_BYTES + 10))
    assert put_large(serve) == hashlib.sha256(b"x" * (PART_BYTES + 10)).hexdigest()
    assert serve.asked == [b"POST", b"PUT", b"PUT", b"POST", b"POST", b"HEAD"]


@pytest.mark.parametrize(
    "stored", [b"200 OK\r\nContent-Length: 7", b"404 Not Found"], ids=["another object", "nothing"]
)
def test_a_lost_upload_is_a_storage_error(stored):
    with pytest.raises(StorageError, match="could not finish"):
        put_large(LosesItsAnswer(stored))
