"""Evidence of finished jobs: signed bundles, and the keys that sign them."""

from collections.abc import Iterator
from contextlib import ExitStack

from flask import Response
from flask_openapi3 import APIBlueprint, Tag
from pydantic import Field

from api.auth import requires
from api.bundles import Bundle, Contents
from api.documentation import SECURITY, authenticated_problems
from api.errors import APIError
from api.ownership import find_own_job
from api.responses import document_response
from api.schemas import JobPath
from api.services import Services, current_services
from api.signing import PublicKey, SigningKey
from api.slots import take_slot
from shared.documents.base import Document
from shared.errors import Code, ObjectMissingError
from shared.observability import get_logger

log = get_logger(__name__)
blueprint = APIBlueprint("evidence", __name__, url_prefix="/v1", abp_tags=[Tag(name="evidence")], abp_security=SECURITY)

BUSY_RETRY_S = 5


class EvidenceKeyDocument(Document):
    """A public key of the deployment."""

    id: str = Field(description="SHA-256 of the DER-encoded SubjectPublicKeyInfo, in hexadecimal; the `keyid`.")
    algorithm: str = Field(description="`ed25519`.")
    public_key: str = Field(description="SubjectPublicKeyInfo in PEM form.")

    @classmethod
    def of(cls, key: PublicKey) -> "EvidenceKeyDocument":
        """Return the document of *key*."""
        return cls(id=key.id, algorithm="ed25519", public_key=key.pem)


class EvidenceKeysDocument(EvidenceKeyDocument):
    """The key that signs evidence bundles, and those that did."""

    retired: list[EvidenceKeyDocument] = Field(description="Keys that signed earlier bundles.")


@blueprint.get(
    "/jobs/<string:job_id>/evidence.zip",
    operation_id="getEvidence",
    responses={
        "200": {
            "description": "A zip file; see docs/evidence.md.",
            "content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}},
        },
        **authenticated_problems(404, 409, 422),
    },
)
@requires("jobs:read")
def get_evidence(path: JobPath) -> Response:
    """
    Download a signed bundle with everything that is stored of a finished job.

    The images of the job's explanation are part of it while they are stored. `deepfakestream verify` checks the bundle
    without the service. Nothing of it is kept here.
    """
    services = current_services()
    with services.sessions.transaction() as session:
        job = find_own_job(session, path.job_id)
        if not job.is_final:
            raise APIError(Code.JOB_NOT_FINAL, f"job {job.id} is {job.status}; ask again when it has ended")
        key = _signing_key(services)
        contents = Contents.of(session, job)
    # After everything that can be refused, but before images take memory.
    slot = take_slot(services.bundling, refusal="too many evidence bundles are being sent", retry_after_s=BUSY_RETRY_S)
    with ExitStack() as held:
        held.callback(slot.release)
        # As a whole before the answer begins, so that a failure of storage has a status of its own.
        images = _read_images(services, contents)
        bundle = Bundle(services.sessions, contents, images, key, services.stamp)
        response = Response(_stream(bundle), mimetype="application/zip")
        # The response gives the slot back when it is closed.
        response.call_on_close(held.pop_all().close)
    response.headers["Content-Disposition"] = f'attachment; filename="evidence-{contents.job_id}.zip"'
    response.headers["Cache-Control"] = "private, no-store"
    return response


@blueprint.get(
    "/evidence-key",
    operation_id="getEvidenceKey",
    responses={200: EvidenceKeysDocument, **authenticated_problems(409)},
)
@requires("jobs:read")
def get_evidence_key() -> Response:
    """Get the public key that belongs to the signatures of evidence bundles, to compare or to pin it."""
    services = current_services()
    current = EvidenceKeyDocument.of(_signing_key(services).public)
    retired = [EvidenceKeyDocument.of(key) for key in services.evidence_keys.retired]
    return document_response(EvidenceKeysDocument(**current.to_json(), retired=retired))


def _signing_key(services: Services) -> SigningKey:
    key = services.evidence_keys.current
    if key is None:
        raise APIError(
            Code.NO_EVIDENCE_KEY,
            "this service has no key to sign evidence with; its operator has to set evidence.key_file or evidence.key",
        )
    return key


def _read_images(services: Services, contents: Contents) -> dict[str, bytes]:
    """Return the images of the job's explanation; none if there are none, or if they are not in storage any more."""
    if contents.explanation is None:
        return {}
    try:
        return contents.explanation.read_images(services.storage)
    except ObjectMissingError:
        # They expired since the row was read, or were lost. Nobody should lose the evidence of the scores with them.
        log.warning("evidence bundle without images", job_id=str(contents.job_id))
        return {}


def _stream(bundle: Bundle) -> Iterator[bytes]:
    """Send a bundle, and log why one broke off: its status was sent before."""
    try:
        yield from bundle.stream()
    except Exception:
        log.exception("evidence bundle broken off")
        raise
