"""Media with Content Credentials, signed with certificates that are made here."""

import io
import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import c2pa
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AI_SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
"""What a manifest says of media that a generative model made."""
QUIET = {"verify": {"verify_after_sign": False}, "builder": {"thumbnail": {"enabled": False}}}
"""Settings for signing: whatever was asked for is written, without being checked."""


@dataclass(frozen=True, slots=True)
class Signer:
    """A signing certificate with its key, and the root that vouches for it."""

    key: Ed25519PrivateKey
    certificate: x509.Certificate
    expired: x509.Certificate
    """As the certificate, but for its time, which is over."""
    chain_pem: str
    """The signing certificate, then the intermediate one."""
    root_pem: str


def make_signer(name: str = "Example Camera") -> Signer:
    """Make a root, an intermediate and a signing certificate as C2PA demands them, and one of the past for its key."""
    root_key, middle_key, key = (Ed25519PrivateKey.generate() for _ in range(3))
    root_name, middle_name = _name("Example Root"), _name("Example Intermediate")
    root = _certificate(root_name, root_key, root_name, root_key, (-400, 400), is_authority=True)
    middle = _certificate(middle_name, middle_key, root_name, root_key, (-399, 399), is_authority=True)
    serial = x509.random_serial_number()
    leaf, expired = (
        _certificate(_name(name), key, middle_name, middle_key, days, is_authority=False, serial=serial)
        for days in ((-1, 30), (-30, -1))
    )
    return Signer(key, leaf, expired, _pem(leaf) + _pem(middle), _pem(root))


def sign(
    data: bytes,
    mime_type: str,
    signer: Signer,
    *,
    manifest: Mapping[str, Any] | None = None,
    remote_url: str | None = None,
    embed: bool = True,
    ingredients: Mapping[str, bytes] | None = None,
) -> bytes:
    """
    Return the media *data* with a signed manifest.

    Args:
        manifest: What the manifest says, beside its defaults.
        remote_url: Address of a copy of the manifest, which is written into the file.
        embed: Whether the file has the manifest itself.
        ingredients: Media of the same type that this was made of, by title.
    """
    definition = {
        "claim_generator_info": [{"name": "Example Editor", "version": "1.0"}],
        "title": "example",
        "assertions": [made_by("http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture")],
        **(manifest or {}),
    }
    private = signer.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    info = c2pa.C2paSignerInfo(c2pa.C2paSigningAlg.ED25519, signer.chain_pem.encode(), private.encode(), None)
    signed = io.BytesIO()
    context = c2pa.Context.from_dict(QUIET)
    with c2pa.Signer.from_info(info) as key, c2pa.Builder(json.dumps(definition), context=context) as builder:
        if remote_url is not None:
            builder.set_remote_url(remote_url)
        if not embed:
            builder.set_no_embed()
        for title, content in (ingredients or {}).items():
            builder.add_ingredient({"title": title, "relationship": "componentOf"}, mime_type, io.BytesIO(content))
        builder.sign(key, mime_type, io.BytesIO(data), signed)
    return signed.getvalue()


def sign_with_expired(data: bytes, mime_type: str, signer: Signer) -> bytes:
    """
    Return the media *data* signed with a certificate whose time was over.

    The library refuses to sign so. It signs with the valid certificate, which is then replaced by the expired one of
    the same length, and the signature by one of the same key over what a signer would have signed.
    """
    old, new = (one.public_bytes(serialization.Encoding.DER) for one in (signer.certificate, signer.expired))
    if len(old) != len(new):
        raise ValueError("the certificates differ in length")
    made: list[tuple[bytes, bytes]] = []

    def sign_bytes(content: bytes) -> bytes:
        made.append((signer.key.sign(content), signer.key.sign(content.replace(old, new))))
        return made[-1][0]

    signed = io.BytesIO()
    with (
        c2pa.Signer.from_callback(sign_bytes, c2pa.C2paSigningAlg.ED25519, signer.chain_pem) as key,
        c2pa.Builder(json.dumps({"title": "example"}), context=c2pa.Context.from_dict(QUIET)) as builder,
    ):
        builder.sign(key, mime_type, io.BytesIO(data), signed)
    content = signed.getvalue().replace(old, new)
    for before, after in made:
        content = content.replace(before, after)
    return content


def add_unbound_manifest(signed: bytes, other: bytes) -> bytes:
    """
    Return the PNG *signed* with the manifest of the PNG *other* beside its own, which needs no key.

    The space for a time stamp, which no signature covers, is shortened by as much, so that all sizes stay as they were.
    The manifest that is added loses its signature and the digest of its media, so that it fits.
    """
    own_store, other_store = (dict(_chunks(file))[b"caBX"] for file in (signed, other))
    description, *manifests = _boxes(_boxes(own_store)[0][1])
    added = next(content for kind, content in _boxes(_boxes(other_store)[0][1]) if kind == b"jumb")
    stripped = b""
    for kind, content in _boxes(added):
        kept = content
        if kind == b"jumb" and _label(content) == b"c2pa.signature":
            header, (inner, _) = _boxes(content)
            kept = _box(*header) + _box(inner, b"\x40")
        elif kind == b"jumb" and _label(content) == b"c2pa.assertions":
            boxes = _boxes(content)
            kept = b"".join(_box(*box) for box in boxes if box[0] != b"jumb" or _label(box[1]) != b"c2pa.hash.data")
        stripped += _box(kind, kept)
    foreign = _box(b"jumb", stripped)
    own = b"".join(
        _box(
            kind, _shorten_padding(content, len(foreign)) if _label_of(kind, content) == b"c2pa.signature" else content
        )
        for kind, content in _boxes(manifests[-1][1])
    )
    store = _box(b"jumb", _box(*description) + foreign + _box(b"jumb", own))
    if len(store) != len(own_store):
        raise ValueError("the store has another size")
    made = b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in ((kind, store if kind == b"caBX" else content) for kind, content in _chunks(signed))
    )
    return signed[:8] + made


def _chunks(png: bytes) -> list[tuple[bytes, bytes]]:
    at, found = 8, []
    while at < len(png):
        (size,) = struct.unpack_from(">I", png, at)
        found.append((png[at + 4 : at + 8], png[at + 8 : at + 8 + size]))
        at += 12 + size
    return found


def _boxes(content: bytes) -> list[tuple[bytes, bytes]]:
    at, found = 0, []
    while at < len(content):
        (size,) = struct.unpack_from(">I", content, at)
        found.append((content[at + 4 : at + 8], content[at + 8 : at + size]))
        at += size
    return found


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + kind + content


def _label(content: bytes) -> bytes:
    return _boxes(content)[0][1][17:].split(b"\0")[0]


def _label_of(kind: bytes, content: bytes) -> bytes:
    return _label(content) if kind == b"jumb" else b""


def _shorten_padding(signature: bytes, count: int) -> bytes:
    """Take *count* bytes from the text of zeros "pad" (CBOR, with a length of two bytes) of a signature."""
    header, (kind, cose) = _boxes(signature)
    at = cose.index(b"\x63pad") + 4
    (size,) = struct.unpack_from(">H", cose, at + 1)
    shorter = cose[: at + 1] + struct.pack(">H", size - count) + cose[at + 3 + count :]
    return _box(*header) + _box(kind, shorter)


def made_by(source: str, action: str = "c2pa.created", **fields: Any) -> dict[str, Any]:
    """Return the assertion that the media came to be by *action*, from the IPTC's digital source type *source*."""
    return {"label": "c2pa.actions", "data": {"actions": [{"action": action, "digitalSourceType": source, **fields}]}}


def _name(name: str) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, name), x509.NameAttribute(NameOID.ORGANIZATION_NAME, f"{name} Org")]
    )


def _certificate(
    subject: x509.Name,
    key: Ed25519PrivateKey,
    issuer: x509.Name,
    issuer_key: Ed25519PrivateKey,
    valid_days: tuple[int, int],
    *,
    is_authority: bool,
    serial: int | None = None,
) -> x509.Certificate:
    now = datetime.now(UTC)
    public = key.public_key()
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(now + timedelta(days=valid_days[0]))
        .not_valid_after(now + timedelta(days=valid_days[1]))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .add_extension(
            x509.KeyUsage(
                digital_signature=not is_authority,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=is_authority,
                crl_sign=is_authority,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
    )
    if not is_authority:
        # C2PA refuses signing certificates without one of a few purposes; this is the one that SDKs accept by default.
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
    return builder.sign(issuer_key, None)


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
