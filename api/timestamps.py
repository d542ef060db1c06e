"""
RFC 3161 time stamps of evidence bundles, from an authority that the configuration names.

``rfc3161-client`` is needed here, which comes with the extra ``timestamps``.
"""

import hashlib
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from typing import TYPE_CHECKING, Final

from shared.config import ConfigurationError
from shared.observability import get_logger

if TYPE_CHECKING:
    from rfc3161_client import TimeStampRequest, TimeStampResponse

log = get_logger(__name__)

Stamp = Callable[[bytes], bytes | None]
"""Returns a time stamp of the bytes that it is given, as DER; None where there is none."""

TIMEOUT_S: Final = 5.0
MAX_ANSWER_BYTES: Final = 64 * 1024
GRANTED: Final = 0


def no_stamp(_: bytes) -> None:
    """Give no time stamp: no authority is configured."""


def make_stamp(url: str | None) -> Stamp:
    """
    Return what asks the authority at *url* for time stamps; without *url*, ``no_stamp``.

    A bundle is worth sending without a time stamp: where the authority fails, that is logged and None is given.

    Raises:
        ConfigurationError: There is a *url*, and ``rfc3161-client`` is not installed.
    """
    if url is None:
        return no_stamp
    try:
        import rfc3161_client
    except ImportError as error:
        raise ConfigurationError(
            "evidence.timestamp_url: time stamps need deepfakestream-server[timestamps], which is not installed"
        ) from error

    def stamp(message: bytes) -> bytes | None:
        request = (
            rfc3161_client.TimestampRequestBuilder()
            .data(message)
            .hash_algorithm(rfc3161_client.HashAlgorithm.SHA256)
            .cert_request(cert_request=True)
            .build()
        )
        try:
            answer = _ask(url, request.as_bytes())
            _check(rfc3161_client.decode_timestamp_response(answer), request, message)
        except (OSError, ValueError, HTTPException) as error:
            log.warning("no time stamp", reason=str(error))
            return None
        return answer

    return stamp


def _check(found: "TimeStampResponse", request: "TimeStampRequest", message: bytes) -> None:
    """Raise ValueError unless *found* answers the *request* to stamp *message*; whose it is the reader checks."""
    if found.status != GRANTED:
        raise ValueError(f"the authority refuses with status {found.status}")
    if found.tst_info.message_imprint.message != hashlib.sha256(message).digest():
        raise ValueError("the time stamp is of other data")
    if found.tst_info.nonce != request.nonce:
        raise ValueError("the time stamp answers another request")


def _ask(url: str, query: bytes) -> bytes:
    request = urllib.request.Request(  # noqa: S310 - the settings take http and https alone
        url, data=query, headers={"Content-Type": "application/timestamp-query"}
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310 - as above
        answer: bytes = response.read(MAX_ANSWER_BYTES)
    return answer
