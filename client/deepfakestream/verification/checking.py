"""The checks of a bundle. ``docs/evidence.md`` describes it, and ``findings`` says what they prove."""

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Any, Final

from deepfakestream.errors import BundleError
from deepfakestream.terminal import pluralize, printable
from deepfakestream.verification.archive import Archive
from deepfakestream.verification.attestation import Envelope, PublicKey, Statement, read_expected_key
from deepfakestream.verification.documents import read_json, read_object
from deepfakestream.verification.explanations import check_explanation
from deepfakestream.verification.files import (
    ATTESTATION,
    AUDIT,
    CHECKPOINT,
    ENVIRONMENT,
    EXPLANATION,
    IMAGES,
    JOB,
    KEY,
    MAX_ENTRIES,
    MAX_SEGMENTS,
    MEDIA,
    REQUIRED,
    SEGMENTS,
    SUMS,
    TIMESTAMP,
)
from deepfakestream.verification.findings import Check, Verification
from deepfakestream.verification.rescoring import rescore
from deepfakestream.verification.scores import Recomputation
from deepfakestream.verification.timestamps import check_timestamp, read_roots

_UNKNOWN_FORM: Final = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)
"""What reading a document raises that lacks a field, or has a value of another type in it."""
MAX_DETAIL_CHARACTERS: Final = 1000
"""Longer sentences are cut: they quote what a document says."""
MAX_EVENTS: Final = 100_000
_SUM: Final = re.compile(r"([0-9a-f]{64})  ([^\n]+)")


def verify_bundle(
    path: str | Path,
    *,
    media: str | Path | None = None,
    key: str | None = None,
    timestamp_root: str | Path | None = None,
    scan_again: bool = False,
) -> Verification:
    """
    Check an evidence bundle; no service is asked.

    Args:
        path: The zip file.
        media: The image or video that the bundle should be about.
        key: The key that should have signed it: its id, or the path of its public key in PEM form.
        timestamp_root: Certificates (PEM) of the time stamp authority that should have stamped it.
        scan_again: Scan *media* with the server that is installed beside this package, and compare the scores.

    Returns:
        Every check with its outcome. Nothing is raised for a bundle that is not acceptable.

    Raises:
        BundleError: *key* is no key, or *timestamp_root* cannot be read.
        MissingPartError: The package ``cryptography`` is not installed; or for *timestamp_root* ``rfc3161-client``, or
            for *scan_again* the server.
        ValueError: *scan_again* without *media*.
    """
    if scan_again and media is None:
        raise ValueError("scan_again needs media")
    expected = None if key is None else read_expected_key(key)
    roots = None if timestamp_root is None else read_roots(Path(timestamp_root))
    verification = Verification()
    run = _Run(verification)
    with run.check("archive") as said:
        archive = Archive(Path(path))
        said(f"The bundle is a zip file of {len(archive.names)} files without anything beside them.")
    if not verification.passed:
        return verification
    with archive:
        checking = _Checking(run, archive, expected)
        checking.check_all()
        if roots is not None or TIMESTAMP in archive.names:
            checking.check_timestamp(roots)
        if media is not None:
            checking.check_media(Path(media), scan_again=scan_again)
    return verification


class _Outcome:
    """Records what a block finds: the sentence that it says, or the BundleError that it raises."""

    def __init__(self, checks: list[Check], name: str) -> None:
        self._checks, self._name, self._detail = checks, name, ""

    def __enter__(self) -> Callable[[str], None]:
        return self._say

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if error is not None and not isinstance(error, (BundleError, *_UNKNOWN_FORM)):
            return False
        detail = self._detail if error is None else str(error)
        if isinstance(error, _UNKNOWN_FORM):
            detail = f"a file has not the form that a service gives it ({type(error).__name__}: {error})"
        if len(detail) > MAX_DETAIL_CHARACTERS:
            detail = f"{detail[:MAX_DETAIL_CHARACTERS]} (cut)"
        self._checks.append(Check(self._name, error is None, printable(detail)))
        return True

    def _say(self, detail: str) -> None:
        self._detail = detail


@dataclass(frozen=True, slots=True)
class _Run:
    """Adds outcomes to a verification."""

    verification: Verification

    def check(self, name: str) -> _Outcome:
        """Let a block be the check called *name*."""
        return _Outcome(self.verification.checks, name)


class _Checking:
    """The checks of an archive, each of which goes on where an earlier one failed."""

    def __init__(self, run: _Run, archive: Archive, expected_key: str | None) -> None:
        self._run, self._archive, self._expected_key = run, archive, expected_key
        self._found = run.verification
        self._statement = Statement({}, {})
        self._job: dict[str, Any] = {}
        self._digests: dict[str, str] = {}
        self._scores: list[float | None] = []
        self._highest: dict[int, float] | None = None

    def check_all(self) -> None:
        """Run the checks that need the bundle alone."""
        with self._run.check("signature") as said:
            said(self._check_signature())
        with self._run.check("files") as said:
            said(self._check_files())
        with self._run.check("job") as said:
            said(self._check_job())
        with self._run.check("scores") as said:
            said(self._check_scores())
        if EXPLANATION in self._archive.names or any(name.startswith(IMAGES) for name in self._archive.names):
            with self._run.check("explanation") as said:
                said(check_explanation(self._archive, self._job, self._highest))
                self._found.is_explained = True
        with self._run.check("checkpoint") as said:
            said(self._check_checkpoint())
        with self._run.check("records") as said:
            said(self._check_records())

    def check_timestamp(self, roots: bytes | None) -> None:
        """Check the time stamp against certificates, or say that it was not checked."""
        with self._run.check("time stamp") as said:
            if TIMESTAMP not in self._archive.names:
                raise BundleError("the bundle has no time stamp")
            if roots is None:
                said("There is a time stamp, which was not checked: give the authority's certificate to check it.")
                return
            at = check_timestamp(self._archive.read(TIMESTAMP), self._archive.read(ATTESTATION), roots)
            self._found.stamped_at = at.astimezone(UTC).isoformat()
            said(f"The authority stamped the signature at {self._found.stamped_at}.")

    def check_media(self, media: Path, *, scan_again: bool) -> None:
        """Check that *media* is what the bundle is about."""
        with self._run.check("media") as said:
            said(self._check_media(media))
        # Other media, or scores that contradict each other, would only be refused once more, after minutes.
        if scan_again and self._found.passed:
            with self._run.check("rescore") as said:
                said(rescore(self._job, self._scores, media))
                self._found.is_rescored = True

    def _check_signature(self) -> str:
        envelope = Envelope.read(self._archive.read(ATTESTATION), ATTESTATION)
        key = PublicKey.from_pem(self._archive.read(KEY), KEY)
        envelope.check_signed_by(key)
        self._found.key_id = key.id
        self._statement = Statement.read(envelope.payload)
        if self._expected_key is not None:
            self._found.is_key_expected = key.id == self._expected_key
            if not self._found.is_key_expected:
                raise BundleError(f"the bundle is signed by the key {key.id}, not by the expected {self._expected_key}")
            return f"Signed by key ID {key.id}, the one that you gave."
        return f"Signed by key ID {key.id}; compare it with the key that the deployment publishes."

    def _check_files(self) -> str:
        signed = set(self._statement.digests) - {MEDIA}
        if missing := sorted((signed | REQUIRED | {ATTESTATION}) - set(self._archive.names)):
            raise BundleError(f"the file {missing[0]} is missing")
        if extra := sorted(set(self._archive.names) - signed - {ATTESTATION, TIMESTAMP}):
            raise BundleError(f"the file {extra[0]} is not among those that were signed")
        for name in sorted(signed):
            digest = hashlib.sha256()
            for block in self._archive.blocks(name):
                digest.update(block)
            self._digests[name] = digest.hexdigest()
            if self._digests[name] != self._statement.digests[name]:
                raise BundleError(f"{name} is not the file that was signed: its SHA-256 is {digest.hexdigest()}")
        listed = dict(self._sums())
        if listed != {name: digest for name, digest in self._digests.items() if name != SUMS}:
            raise BundleError(f"{SUMS} does not list the files of the bundle with their digests")
        return f"All {len(signed)} signed files are there, unchanged, and there are no others."

    def _sums(self) -> Iterator[tuple[str, str]]:
        for line in self._archive.lines(SUMS, limit=MAX_ENTRIES):
            match = _SUM.fullmatch(line.decode("ascii", "replace"))
            if match is None:
                raise BundleError(f"{SUMS} has a line that is no digest with a name")
            yield match[2], match[1]

    def _check_job(self) -> str:
        self._job = job = read_object(self._archive.read(JOB), JOB)
        media = job.get("media")
        wanted = {
            "job": {name: job.get(name) for name in ("id", "status", "verdict", "fake_score", "peak_score")},
            "media": None if media is None else {name: media[name] for name in ("sha256", "size_bytes")},
        }
        if media is not None and not isinstance(media["sha256"], str):
            raise BundleError(f"{JOB} names media without its SHA-256")
        for name, value in wanted.items():
            if self._statement.predicate.get(name) != value:
                raise BundleError(f"the signed statement says something else of the {name} than {JOB}")
        if self._statement.digests.get(MEDIA) != (media or {}).get("sha256"):
            raise BundleError(f"the signed digest of the media is not the one in {JOB}")
        if job["status"] not in ("succeeded", "failed", "cancelled"):
            raise BundleError("the job has not ended")
        self._found.job = job
        return f"Job {job['id']} has {job['status']}; its document agrees with the signed statement."

    def _check_scores(self) -> str:
        found = Recomputation(self._job)
        for line in self._archive.lines(SEGMENTS, limit=MAX_SEGMENTS):
            found.add(read_object(line, f"segment {found.count} of {SEGMENTS}"))
        self._highest = found.highest_scores
        found.check_job()
        self._scores = found.segment_scores
        environment = read_object(self._archive.read(ENVIRONMENT), ENVIRONMENT)
        if environment.get("engines") != dict(found.engines):
            raise BundleError(f"{ENVIRONMENT} counts other engines than {SEGMENTS} has")
        segments, faces = pluralize(found.count, "segment"), pluralize(found.faces, "face")
        return f"The scores of {segments} and of the job follow from {faces}."

    def _check_checkpoint(self) -> str:
        pinned = read_json(self._archive.read(CHECKPOINT), CHECKPOINT)
        model = self._job.get("model")
        stated = self._statement.predicate.get("checkpoint")
        if pinned is not None and model is not None:
            _check_pinned(pinned, model)
        weights = model["weights_sha256"] if model else (pinned["weights"]["sha256"] if pinned else None)
        options = self._job["options"]
        if model and model["sampling"] != {name: options[name] for name in ("sample_fps", "segment_seconds")}:
            raise BundleError("the sampling of the result is not the one that the job's options say")
        if stated != {"name": options["model"], "weights_sha256": weights}:
            raise BundleError("the signed statement names other weights than the bundle")
        if pinned is None:
            return f"The weights have the SHA-256 {weights}; no manifest was pinned by this job."
        return f"Manifest, document and statement name the same weights, with the SHA-256 {weights}."

    def _check_records(self) -> str:
        environment = read_object(self._archive.read(ENVIRONMENT), ENVIRONMENT)
        model = self._job.get("model") or {}
        if environment.get("pipeline") != model.get("pipeline"):
            raise BundleError(f"{ENVIRONMENT} names another pipeline than {JOB}")
        if environment.get("service", {}).get("version") != self._statement.predicate.get("service", {}).get("version"):
            raise BundleError(f"{ENVIRONMENT} names another release than the signed statement")
        count = 0
        for line in self._archive.lines(AUDIT, limit=MAX_EVENTS):
            read_object(line, f"line {count} of {AUDIT}")
            count += 1
        release = environment["service"]["version"]
        return f"The bundle has {pluralize(count, 'audit event')}; it was made by release {release}."

    def _check_media(self, path: Path) -> str:
        wanted = self._job.get("media")
        if wanted is None:
            raise BundleError("the bundle is about a job that got no media")
        digest, size = hashlib.sha256(), 0
        try:
            with path.open("rb") as file:
                while block := file.read(1024**2):
                    digest.update(block)
                    size += len(block)
        except OSError as error:
            raise BundleError(f"{path} cannot be read ({error.strerror})") from error
        if (digest.hexdigest(), size) != (wanted.get("sha256"), wanted.get("size_bytes")):
            raise BundleError(
                f"{path} is not the media of the job: {size} bytes with the SHA-256 {digest.hexdigest()}, where the"
                f" job had {wanted.get('size_bytes')} bytes with {wanted.get('sha256')}"
            )
        self._found.is_media_checked = True
        return f"{path} is the media of the job: {size} bytes with the SHA-256 {digest.hexdigest()}."


def _check_pinned(pinned: dict[str, Any], model: dict[str, Any]) -> None:
    """Hold the pinned manifest, which leaves defaults out, against the description in the job's document."""
    if pinned["weights"]["sha256"] != model["weights_sha256"]:
        raise BundleError(f"{CHECKPOINT} and {JOB} name weights with different digests")
    for name in ("name", "version", "trained"):
        if pinned[name] != model[name]:
            raise BundleError(f"{CHECKPOINT} and {JOB} differ in the {name} of the checkpoint")
    calibration = pinned["calibration"]
    described = {name: model[name] for name in calibration if name in model and name != "bounds"}
    if any(calibration[name] != value for name, value in described.items()):
        raise BundleError(f"{CHECKPOINT} and {JOB} differ in the calibration")
    for name in ("architecture", "preprocessing"):
        if any(model[name].get(part) != value for part, value in pinned[name].items()):
            raise BundleError(f"{CHECKPOINT} and {JOB} differ in the {name}")
