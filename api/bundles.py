"""
Evidence bundles: everything that is stored of a finished job as a signed zip file, made while it is sent.

No more than a page of segments and the images of one explanation are in memory, and nothing is stored. The same state
of a job gives the same bytes where the same release and the same key make them. ``docs/evidence.md`` describes the
files.
"""

import hashlib
import io
import json
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from sqlalchemy.orm import Session

from api.signing import STATEMENT_TYPE, SigningKey
from api.timestamps import Stamp, no_stamp
from api.version import VERSION
from shared.audit import list_events
from shared.db import SessionFactory
from shared.documents.explanations import ExplanationDocument
from shared.documents.jobs import JobDocument
from shared.documents.segments import SegmentDocument
from shared.jobs.explanations import find_explanation, read_images
from shared.jobs.queries import get_job
from shared.jobs.segments import read_segment_page, read_segments
from shared.models import AuditEvent, Job
from shared.states import ExplanationStatus
from shared.storage import Storage

FORMAT: Final = 1
"""Counts changes of the bundle that a verifier has to know."""
PREDICATE_TYPE: Final = f"urn:deepfakestream:evidence:{FORMAT}"

README: Final = "README.txt"
JOB: Final = "job.json"
CHECKPOINT: Final = "checkpoint.json"
EXPLANATION: Final = "explanation.json"
IMAGES: Final = "explanation/"
"""Folder of the images that ``explanation.json`` names."""
SEGMENTS: Final = "segments.jsonl"
AUDIT: Final = "audit.jsonl"
ENVIRONMENT: Final = "environment.json"
KEY: Final = "key.pem"
SUMS: Final = "SHA256SUMS"
ATTESTATION: Final = "attestation.intoto.jsonl"
TIMESTAMP: Final = "timestamp.tsr"
MEDIA: Final = "media"
"""Name of the media among the subjects of the statement; it is no file of the bundle."""

SEGMENTS_ON_A_PAGE: Final = 20
"""Segments with their faces in memory at a time; one of 60 s at 30 frames a second can have thousands of faces."""
BLOCK_BYTES: Final = 64 * 1024

README_TEXT: Final = """\
Evidence bundle of DeepfakeStream
=================================

What the service stored of one finished job, signed by the deployment that did the work.

job.json                  the job as GET /v1/jobs/{id} gives it: media, options, scores, verdict, checkpoint
segments.jsonl            every segment with every person and face (score, frame time, box), one JSON object a line
checkpoint.json           the manifest of the checkpoint that the job pinned, with the SHA-256 of its weights; null
                          for jobs from before manifests were pinned
explanation.json          only while the images of an explanation are stored: the explanation as
                          GET /v1/jobs/{id}/explanations gives it
explanation/              its images: faces, and heat maps of what raised their scores
environment.json          the release of the service that made this bundle, the version of its pipeline, and what ran
                          the network (engine), with the number of segments of each
audit.jsonl               who did what to this job and when, one JSON object a line, without network addresses
key.pem                   the public key that belongs to the signature
SHA256SUMS                digests of the files above; check them with: sha256sum -c SHA256SUMS
attestation.intoto.jsonl  a DSSE envelope with an in-toto statement, signed with Ed25519; its subjects are all files
                          above and the media
timestamp.tsr             only where the deployment uses a time stamp authority: an RFC 3161 time stamp of the envelope

Check it without the service:  deepfakestream verify BUNDLE --media FILE --key KEY

A valid bundle proves that the holder of the private key stated these results about a file with this SHA-256. It does
not prove that the verdict is true. A heat map shows what the network reacted to; it is no proof of manipulation, and
real faces have heat maps as well. A copy of the public key in the bundle proves nothing about whose key it is: compare
the key id with the one that the deployment publishes.

Not included: the media itself; the weights.
"""


@dataclass(frozen=True, slots=True)
class StoredExplanation:
    """An explanation whose images are stored."""

    text: str
    """Its document as JSON."""
    storage_key: str
    places: Mapping[str, Mapping[str, Any]]
    """Place, size and digest of each image by its name, as ``shared.jobs.explanations.store_images`` returned them."""

    @classmethod
    def of(cls, session: Session, job: Job) -> "StoredExplanation | None":
        """Read the explanation of *job*; return None unless it is made and its images are stored."""
        row = find_explanation(session, job.id)
        if row is None or row.status != ExplanationStatus.SUCCEEDED or row.storage_key is None:
            return None
        places = (row.result or {}).get("images", {})
        return cls(ExplanationDocument.from_row(row).to_text(), row.storage_key, places)

    def read_images(self, storage: Storage) -> dict[str, bytes]:
        """
        Return the images by their names: at most 90, and a few megabytes together.

        Raises:
            ObjectMissingError: They were erased.
            StorageError: They cannot be read, or are not what was stored.
        """
        return read_images(storage, self.storage_key, self.places)


@dataclass(frozen=True, slots=True)
class Contents:
    """What a bundle says of a job before its segments."""

    job_id: uuid.UUID
    owner: str
    finished_at: datetime
    segments_total: int
    job_text: str
    """The document of the job as JSON."""
    checkpoint: dict[str, Any] | None
    """The pinned manifest."""
    pipeline: int | None
    predicate: dict[str, Any]
    media_sha256: str | None
    explanation: StoredExplanation | None

    @classmethod
    def of(cls, session: Session, job: Job) -> "Contents":
        """Read what belongs to a bundle of the finished *job*."""
        document = JobDocument.from_job(job, read_segments(session, job))
        description = job.model_description or {}
        weights = description.get("weights_sha256") or ((job.manifest or {}).get("weights") or {}).get("sha256")
        media = job.media
        return cls(
            job_id=job.id,
            owner=job.owner,
            finished_at=job.finished_at or job.created_at,
            segments_total=job.segments_total or 0,
            job_text=document.to_text(),
            checkpoint=job.manifest,
            pipeline=description.get("pipeline"),
            predicate={
                "job": {
                    "id": str(job.id),
                    "status": str(job.status),
                    "verdict": None if job.verdict is None else str(job.verdict),
                    "fake_score": job.fake_score,
                    "peak_score": job.peak_score,
                },
                "media": None if media is None else {"sha256": media.sha256, "size_bytes": media.size_bytes},
                "checkpoint": {"name": job.model, "weights_sha256": weights},
                "service": {"version": VERSION},
            },
            media_sha256=None if media is None else media.sha256,
            explanation=StoredExplanation.of(session, job),
        )


class JobChangedError(Exception):
    """The job was erased, or its segments changed, while its bundle was being sent."""


class _Output(io.RawIOBase):
    """Collects what the zip file consists of until it is sent; it cannot seek, so sizes follow each file's data."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        return len(self._parts[-1])

    def take(self) -> bytes:
        """Return what was written since the last call."""
        taken = b"".join(self._parts)
        self._parts.clear()
        return taken


class Bundle:
    """
    The bundle of one job.

    Args:
        sessions: Transactions on the database; each page of segments has one of its own, so that a slow client does not
            hold one open.
        contents: What the job's row says.
        images: Those of its explanation by their names, each of which is dropped once it is sent; empty for a bundle
            without the explanation.
        key: Signs the bundle.
        stamp: Returns an RFC 3161 time stamp of the bytes that it is given, or None where there is none.
    """

    def __init__(
        self,
        sessions: SessionFactory,
        contents: Contents,
        images: dict[str, bytes],
        key: SigningKey,
        stamp: Stamp = no_stamp,
    ) -> None:
        self._sessions, self._contents, self._key, self._stamp = sessions, contents, key, stamp
        self._images = images
        self._engines: Counter[str] = Counter()
        self._digests: dict[str, str] = {}

    def stream(self) -> Iterator[bytes]:
        """
        Make the zip file, block by block.

        Raises:
            JobChangedError: The job was erased meanwhile. What was sent by then is no zip file.
        """
        output = _Output()
        with ZipFile(output, "w", ZIP_DEFLATED) as archive:
            for name, blocks in self._files():
                digest = hashlib.sha256()
                # Only segments can have more than the 2 GiB from which on a file needs the large form.
                with archive.open(self._entry(name), "w", force_zip64=name == SEGMENTS) as file:
                    for block in blocks:
                        digest.update(block)
                        file.write(block)
                        if written := output.take():
                            yield written
                self._digests[name] = digest.hexdigest()
                yield output.take()
        yield output.take()

    def _files(self) -> Iterator[tuple[str, Iterable[bytes]]]:
        """Name and content of each file, in order; those at the end depend on those before."""
        yield README, [README_TEXT.encode()]
        yield JOB, [self._contents.job_text.encode(), b"\n"]
        yield CHECKPOINT, [_json_line(self._contents.checkpoint)]
        yield from self._explanation()
        yield SEGMENTS, self._segments()
        yield ENVIRONMENT, [_json_line(self._environment())]
        yield AUDIT, self._audit()
        yield KEY, [self._key.public.pem.encode()]
        yield SUMS, ["".join(f"{digest}  {name}\n" for name, digest in self._digests.items()).encode()]
        envelope = self._key.sign(self._statement())
        yield ATTESTATION, [envelope]
        if (time_stamp := self._stamp(envelope)) is not None:
            yield TIMESTAMP, [time_stamp]

    def _explanation(self) -> Iterator[tuple[str, Iterable[bytes]]]:
        if self._contents.explanation is None or not self._images:
            return
        yield EXPLANATION, [self._contents.explanation.text.encode(), b"\n"]
        for name in list(self._images):
            yield f"{IMAGES}{name}", [self._images.pop(name)]

    def _entry(self, name: str) -> ZipInfo:
        # The time of the job and not of the request, so that the same state gives the same bytes.
        at = self._contents.finished_at.astimezone(UTC)
        entry = ZipInfo(name, (max(1980, at.year), at.month, at.day, at.hour, at.minute, at.second))
        entry.compress_type = ZIP_DEFLATED
        entry.create_system = 3
        entry.external_attr = 0o100644 << 16
        return entry

    def _segments(self) -> Iterator[bytes]:
        after, count = -1, 0
        while True:
            with self._sessions.transaction() as session:
                self._check_job(session)
                page = read_segment_page(
                    session, self._contents.job_id, after=after, limit=SEGMENTS_ON_A_PAGE, with_faces=True
                )
            for row in page.rows:
                if row.engine is not None:
                    self._engines[row.engine] += 1
                yield SegmentDocument.from_row(row).to_text().encode() + b"\n"
            count += len(page.rows)
            if page.last_index is None:
                break
            after = page.last_index
        if count != self._contents.segments_total:
            raise JobChangedError(f"{count} segments of {self._contents.segments_total}")

    def _audit(self) -> Iterator[bytes]:
        with self._sessions.transaction() as session:
            self._check_job(session)
            found = list_events(session, owner=self._contents.owner, job_id=self._contents.job_id)
            lines = [_json_line(_event_document(event)) for event in found]
        yield from lines

    def _check_job(self, session: Session) -> None:
        if get_job(session, self._contents.job_id, owner=self._contents.owner) is None:
            raise JobChangedError("the job was erased")

    def _environment(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "service": {"name": "deepfakestream-server", "version": VERSION},
            "pipeline": self._contents.pipeline,
            "engines": dict(sorted(self._engines.items())),
        }

    def _statement(self) -> dict[str, Any]:
        subjects = [{"name": name, "digest": {"sha256": digest}} for name, digest in self._digests.items()]
        if self._contents.media_sha256 is not None:
            subjects.append({"name": MEDIA, "digest": {"sha256": self._contents.media_sha256}})
        return {
            "_type": STATEMENT_TYPE,
            "subject": subjects,
            "predicateType": PREDICATE_TYPE,
            "predicate": self._contents.predicate,
        }


def _event_document(event: AuditEvent) -> dict[str, Any]:
    """Return an audit event as JSON, without the network address, which is personal and proves nothing."""
    return {
        "at": event.at.astimezone(UTC).isoformat(),
        "action": event.action,
        "actor": event.actor,
        "api_key_id": None if event.api_key_id is None else str(event.api_key_id),
        "request_id": event.request_id,
        "detail": event.detail,
    }


def _json_line(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode() + b"\n"
