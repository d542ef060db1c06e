"""RFC 3161 time stamps of bundles, which ``rfc3161-client`` reads; it comes with the extra ``timestamps``."""

import hashlib
from datetime import datetime
from pathlib import Path
from typing import Final

from deepfakestream.errors import BundleError, MissingPartError

MAX_ROOT_BYTES: Final = 1024 * 1024


def read_roots(path: Path) -> bytes:
    """Return the PEM file of an authority's root certificates. Raises BundleError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_ROOT_BYTES)
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error.strerror})") from error


def check_timestamp(time_stamp: bytes, envelope: bytes, roots: bytes) -> datetime:
    """
    Check that an authority below *roots* has stamped *envelope*.

    Args:
        time_stamp: The authority's answer, as DER.
        roots: One or more certificates in PEM form.

    Returns:
        When it was stamped.

    Raises:
        BundleError: It is no time stamp, is of other data, or is not by such an authority.
        MissingPartError: ``rfc3161-client`` is not installed.
    """
    try:
        import rfc3161_client
        from cryptography.x509 import load_pem_x509_certificates
    except ImportError as error:
        raise MissingPartError(
            "checking time stamps needs the package rfc3161-client: install deepfakestream[timestamps];"
            " from a checkout: pip install './client[timestamps]'"
        ) from error
    try:
        certificates = load_pem_x509_certificates(roots)
    except ValueError as error:
        raise BundleError("the root of the time stamp authority is no certificate in PEM form") from error
    try:
        found = rfc3161_client.decode_timestamp_response(time_stamp)
        if found.tst_info.message_imprint.message != hashlib.sha256(envelope).digest():
            raise BundleError("the time stamp is of another envelope than that of the bundle")
        rfc3161_client.VerifierBuilder(roots=certificates).build().verify_message(found, envelope)
    except (ValueError, rfc3161_client.VerificationError) as error:
        raise BundleError(f"the time stamp is not acceptable ({error})") from error
    return found.tst_info.gen_time
