"""
The Ed25519 keys of a deployment, and in-toto statements signed with them in a DSSE envelope.

``python -m api.signing create FILE`` makes a private key. Flask is not needed here. The client verifies what is signed
here with code of its own (``deepfakestream.verification``), since the two packages share none.
"""

import base64
import hashlib
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import click
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from api.config import Evidence
from shared.config import ConfigurationError

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
MAX_KEY_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key with the id by which envelopes name it."""

    id: str
    """SHA-256 of the key as DER-encoded SubjectPublicKeyInfo, in hexadecimal."""
    pem: str

    @classmethod
    def of(cls, key: Ed25519PublicKey) -> Self:
        """Return *key* with its id."""
        digest = hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()
        return cls(digest, key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii"))


class SigningKey:
    """The private key that signs evidence bundles."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = PublicKey.of(private.public_key())

    def sign(self, statement: dict[str, Any]) -> bytes:
        """
        Sign an in-toto *statement*.

        Returns:
            A DSSE envelope as one line of JSON. Ed25519 is deterministic: the same statement gives the same bytes.
        """
        payload = json.dumps(statement, separators=(",", ":"), sort_keys=True).encode("ascii")
        signature = self._private.sign(pre_authentication_encoding(PAYLOAD_TYPE, payload))
        envelope = {
            "payload": base64.b64encode(payload).decode("ascii"),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"keyid": self.public.id, "sig": base64.b64encode(signature).decode("ascii")}],
        }
        return json.dumps(envelope, separators=(",", ":")).encode("ascii") + b"\n"


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of a deployment."""

    current: SigningKey | None
    """Signs new bundles; None where no key is configured."""
    retired: tuple[PublicKey, ...] = ()
    """Signed earlier bundles."""


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """Return the bytes that a DSSE signature is made of (DSSE protocol 1.0, "PAE")."""
    return b"DSSEv1 %d %s %d %s" % (len(payload_type.encode()), payload_type.encode(), len(payload), payload)


def load_keys(settings: Evidence) -> Keys:
    """
    Read the keys that *settings* name.

    Raises:
        ConfigurationError: A file cannot be read, or does not hold an Ed25519 key in PEM form.
    """
    current = None
    if settings.key is not None:
        current = read_signing_key(settings.key.get_secret_value().encode(), "evidence.key")
    elif settings.key_file is not None:
        current = load_signing_key(settings.key_file)
    return Keys(current, tuple(_load_public_key(path) for path in settings.retired_key_files))


def load_signing_key(path: Path) -> SigningKey:
    """
    Read the private key in the PEM file *path*.

    Raises:
        ConfigurationError: The file cannot be read, or does not hold an unencrypted Ed25519 private key.
    """
    return read_signing_key(_read(path, "evidence.key_file"), f"evidence.key_file: {path}")


def read_signing_key(pem: bytes, where: str) -> SigningKey:
    """
    Read a private key in PEM form.

    Args:
        where: Names its place, for the sentence.

    Raises:
        ConfigurationError: It is no unencrypted Ed25519 private key.
    """
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigurationError(
            f"{where} holds no unencrypted private key in PEM form; make one with 'openssl genpkey -algorithm ed25519'"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError(f"{where} holds a private key of another kind than Ed25519")
    return SigningKey(key)


def create_signing_key(path: Path) -> SigningKey:
    """
    Make a private key and write it to the new file *path*, which only its owner may read.

    Raises:
        FileExistsError: There is a file already; it is left as it is.
        OSError: The file cannot be written; there is none then.
    """
    private = Ed25519PrivateKey.generate()
    content = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
    except BaseException:
        # On a full disk, an empty file would be refused as a key, and as the place of another attempt.
        path.unlink(missing_ok=True)
        raise
    return SigningKey(private)


def _load_public_key(path: Path) -> PublicKey:
    content = _read(path, "evidence.retired_key_files")
    try:
        key = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigurationError(f"evidence.retired_key_files: {path} holds no public key in PEM form") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigurationError(f"evidence.retired_key_files: {path} holds a key of another kind than Ed25519")
    return PublicKey.of(key)


def _read(path: Path, setting: str) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_KEY_BYTES)
    except OSError as error:
        raise ConfigurationError(f"{setting}: {path} cannot be read ({error.strerror})") from error


def _print_public_key(key: SigningKey) -> None:
    click.echo(f"{key.public.id}\n{key.public.pem}", nl=False)


@click.group("signing")
def commands() -> None:
    """Keys that sign evidence bundles."""


@commands.command("create")
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE")
def create(path: Path) -> None:
    """Make a private key in the new FILE, and print its public key with the id."""
    try:
        key = create_signing_key(path)
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written ({error.strerror})") from error
    _print_public_key(key)


@commands.command("show")
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE")
def show(path: Path) -> None:
    """Print the public key, with its id, of the private key in FILE."""
    try:
        key = load_signing_key(path)
    except ConfigurationError as error:
        raise click.ClickException(str(error)) from error
    _print_public_key(key)


if __name__ == "__main__":
    sys.exit(commands())
