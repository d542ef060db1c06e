"""Evidence bundles for tests: taken apart, changed, signed again and verified."""

import base64
import hashlib
import io
import json
import warnings
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from deepfakestream.verification import describe_verification, verify_bundle

from api.signing import SigningKey

ATTESTATION = "attestation.intoto.jsonl"


def unpack(data: bytes) -> dict[str, bytes]:
    """Return the files of a bundle by their names."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pack(files: dict[str, bytes] | Iterable[tuple[str, bytes]]) -> bytes:
    """Return a zip file as other programs make it."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive, warnings.catch_warnings():
        # Of names that are there twice.
        warnings.simplefilter("ignore")
        for name, content in files.items() if isinstance(files, dict) else files:
            archive.writestr(name, content)
    return out.getvalue()


def failed_checks(path: Path, data: bytes, **given: Any) -> set[str]:
    """Verify *data* as a bundle, written to *path*; return the names of the checks that failed."""
    path.write_bytes(data)
    found = verify_bundle(path, **given)
    described = describe_verification(found)
    assert described.isprintable() or "\n" in described
    assert "\x1b" not in described + json.dumps(found.to_json())
    failed = {one.name for one in found.checks if not one.passed}
    assert found.passed == (not failed)
    assert bool(found.proven()) == found.passed
    return failed


def sealed(
    files: dict[str, bytes],
    key: SigningKey,
    *,
    change: Callable[[dict[str, Any]], object] = lambda _: None,
    pem: str | None = None,
) -> dict[str, bytes]:
    """Return changed *files* with digests of them, signed by *key* as the api signs; *change* edits the statement."""
    files = dict(files)
    statement = json.loads(base64.b64decode(json.loads(files[ATTESTATION])["payload"]))
    files["key.pem"] = (pem or key.public.pem).encode()
    listed = [name for name in files if name not in ("SHA256SUMS", ATTESTATION)]
    sums = {name: hashlib.sha256(files[name]).hexdigest() for name in listed}
    files["SHA256SUMS"] = "".join(f"{digest}  {name}\n" for name, digest in sums.items()).encode()
    sums["SHA256SUMS"] = hashlib.sha256(files["SHA256SUMS"]).hexdigest()
    [media] = [subject for subject in statement["subject"] if subject["name"] == "media"]
    subjects = [{"name": name, "digest": {"sha256": digest}} for name, digest in sums.items()]
    statement["subject"] = [*subjects, media]
    change(statement)
    files[ATTESTATION] = key.sign(statement)
    return files


def inside(name: str, *path: str | int, to: Any) -> Callable[[dict[str, bytes]], None]:
    """Return a function that changes a value within a JSON file, or within the first line of one with lines."""

    def change(files: dict[str, bytes]) -> None:
        head, separator, rest = files[name].partition(b"\n")
        document = json.loads(head)
        value = document
        for step in path[:-1]:
            value = value[step]
        value[path[-1]] = to(value[path[-1]]) if callable(to) else to
        files[name] = json.dumps(document).encode() + separator + rest

    return change
