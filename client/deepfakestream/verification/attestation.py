"""
The signature of a bundle: a DSSE envelope around an in-toto statement, and the Ed25519 key that made it.

``cryptography`` is needed here, which comes with the extra ``verify``.
"""

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from deepfakestream.errors import BundleError, MissingPartError
from deepfakestream.verification.documents import read_json

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "urn:deepfakestream:evidence:1"
MAX_SIGNATURES: Final = 16
MAX_KEY_BYTES: Final = 64 * 1024
SHA256: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that signatures are checked with."""

    id: str
    """SHA-256 of the DER-encoded SubjectPublicKeyInfo, in hexadecimal."""
    key: "Ed25519PublicKey"

    @classmethod
    def from_pem(cls, pem: bytes, where: str) -> Self:
        """
        Read a public key in PEM form.

        Args:
            where: Names the place of the key, for the sentence.

        Raises:
            BundleError: It is none, or of another kind than Ed25519.
        """
        try:
            from cryptography.exceptions import UnsupportedAlgorithm
            from cryptography.hazmat.primitives import serialization
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        except ImportError as error:
            raise MissingPartError(
                "checking signatures needs the package cryptography: install deepfakestream[verify]; from a checkout:"
                " pip install './client[verify]'"
            ) from error
        try:
            key = serialization.load_pem_public_key(pem)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise BundleError(f"{where} holds no public key in PEM form") from error
        if not isinstance(key, Ed25519PublicKey):
            raise BundleError(f"{where} holds a key of another kind than Ed25519")
        der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        return cls(hashlib.sha256(der).hexdigest(), key)

    def has_signed(self, signature: bytes, message: bytes) -> bool:
        """Whether *signature* is this key's of *message*."""
        from cryptography.exceptions import InvalidSignature

        try:
            self.key.verify(signature, message)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True)
class Envelope:
    """A DSSE envelope."""

    payload_type: str
    payload: bytes
    signatures: tuple[tuple[str, bytes], ...]
    """Id of the key, and signature."""

    @classmethod
    def read(cls, data: bytes, where: str) -> Self:
        """
        Read an envelope.

        Raises:
            BundleError: It is none, or its payload is of another type than a bundle's.
        """
        found = read_json(data, where)
        try:
            payload_type, payload = found["payloadType"], _decode(found["payload"])
            signatures = tuple((str(each["keyid"]), _decode(each["sig"])) for each in found["signatures"])
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(f"{where} is no DSSE envelope") from error
        if payload_type != PAYLOAD_TYPE:
            raise BundleError(f"{where} has a payload of another type than {PAYLOAD_TYPE}")
        if not 1 <= len(signatures) <= MAX_SIGNATURES:
            raise BundleError(f"{where} has {len(signatures)} signatures; between 1 and {MAX_SIGNATURES} are expected")
        return cls(payload_type, payload, signatures)

    @property
    def signed_bytes(self) -> bytes:
        """What a signature is made of: DSSE's pre-authentication encoding, which covers the type of the payload."""
        kind = self.payload_type.encode()
        return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(self.payload), self.payload)

    def check_signed_by(self, key: PublicKey) -> None:
        """Raise BundleError unless *key* has signed the envelope."""
        message = self.signed_bytes
        if not any(key_id == key.id and key.has_signed(signature, message) for key_id, signature in self.signatures):
            raise BundleError(f"the signature is not by the key {key.id}, or what it signs was changed")


@dataclass(frozen=True, slots=True)
class Statement:
    """An in-toto statement about a bundle."""

    digests: dict[str, str]
    """SHA-256 in hexadecimal by the names of subjects."""
    predicate: dict[str, Any]

    @classmethod
    def read(cls, payload: bytes) -> Self:
        """Read the payload of an envelope. Raises BundleError if it is no statement about a bundle."""
        found = read_json(payload, "the signed statement")
        if not isinstance(found, dict) or found.get("_type") != STATEMENT_TYPE:
            raise BundleError("what is signed is no in-toto statement")
        if found.get("predicateType") != PREDICATE_TYPE:
            raise BundleError(f"the signed statement is of another type than {PREDICATE_TYPE}")
        try:
            named = [(subject["name"], subject["digest"]["sha256"]) for subject in found["subject"]]
            predicate = found["predicate"]
        except (KeyError, TypeError) as error:
            raise BundleError("the signed statement names no files") from error
        digests = {name: digest for name, digest in named if isinstance(name, str) and isinstance(digest, str)}
        if len(digests) != len(named) or not all(SHA256.fullmatch(digest) for digest in digests.values()):
            raise BundleError("the signed statement names a file twice, or without a SHA-256")
        if not isinstance(predicate, dict):
            raise BundleError("the signed statement says nothing of the job")
        return cls(digests, predicate)


def read_expected_key(given: str) -> str:
    """
    Return the id of the key that a person expects.

    Args:
        given: The id itself, or the path of a PEM file with the public key.

    Raises:
        BundleError: It is neither.
    """
    if SHA256.fullmatch(given.lower()):
        return given.lower()
    try:
        with Path(given).open("rb") as file:
            pem = file.read(MAX_KEY_BYTES)
    except (OSError, ValueError) as error:
        raise BundleError(f"{given} is neither a key id (64 hexadecimal digits) nor a file that can be read") from error
    return PublicKey.from_pem(pem, given).id


def _decode(text: Any) -> bytes:
    if not isinstance(text, str):
        raise TypeError("not text")
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError("not base64") from error
