"""
Content Credentials (C2PA) of a file, read in a child process (``credentials.py``): the library parses hostile input.

Nothing here fails a job: whatever goes wrong is a state with a reason.
"""

import json
import mmap
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from shared.documents.provenance import ProvenanceDocument
from shared.errors import DecodeTimeoutError
from shared.observability import get_logger
from shared.states import ProvenanceReason, ProvenanceState
from worker.media.process import BoundedProcess, read_exactly

log = get_logger(__name__)

SCRIPT: Final = Path(__file__).with_name("credentials.py")
MAX_ANSWER_BYTES: Final = 256 * 1024
"""More than the longest answer within the bounds, 95 texts of 200 characters as JSON escapes of 12 bytes."""
FORMATS: Final = {
    "jpeg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "gif": "image/gif",
    "tiff": "image/tiff",
    "heic": "image/heic",
    "avif": "image/avif",
    "jxl": "image/jxl",
    "mp4": "video/mp4",
    "mov": "video/quicktime",
    "3gp": "video/mp4",
    "avi": "video/avi",
}
"""Container → media type, for those in which the library can find a manifest."""
MARKS: Final = {
    # A segment APP11, and the reference of XMP to a manifest elsewhere. The reference may also be in extended XMP.
    "jpeg": (b"\xff\xeb", b"ns.adobe.com/x"),
    # The chunk of a manifest, and that of XMP, which may be compressed.
    "png": (b"caBX", b"iTXt"),
    "webp": (b"C2PA", b"XMP "),
}
"""Container → byte strings of which at least one is in every file that has a manifest or refers to one."""
MAX_SEARCHED_BYTES: Final = 32 * 1024**2
"""Larger files go to the child process at once, since the search takes as long then."""


def read_provenance(
    path: Path, container: str, *, trust_anchors_file: Path | None, timeout_s: float
) -> ProvenanceDocument:
    """
    Read and validate the Content Credentials in the file at *path*.

    Args:
        container: The container's name in ``shared.containers``.
        trust_anchors_file: PEM file of the certificates that vouch for signers; None if there are none.
        timeout_s: Wall-clock limit of the child process.
    """
    if container not in FORMATS:
        return _not_checked(ProvenanceReason.FORMAT)
    if not may_have_credentials(path, container):
        return ProvenanceDocument(state=ProvenanceState.NONE)
    if find_spec("c2pa") is None:
        return _not_checked(ProvenanceReason.LIBRARY)
    try:
        found = _run_reader(path, FORMATS[container], trust_anchors_file, timeout_s)
    except DecodeTimeoutError:
        found = _unreadable(ProvenanceReason.TIMED_OUT)
    except OSError:
        log.exception("provenance_reader_failed")
        found = _unreadable(ProvenanceReason.CRASHED)
    if found.reason in (ProvenanceReason.CRASHED, ProvenanceReason.TRUST_ANCHORS):
        log.warning("provenance_not_read", reason=found.reason)
    return found


def may_have_credentials(path: Path, container: str) -> bool:
    """
    Search a picture for the bytes that precede every manifest, or reference to one, in its format.

    Returns:
        False only if the library cannot find anything in the file. It costs a few milliseconds, a child process 60.
    """
    marks = MARKS.get(container)
    if marks is None or not 0 < path.stat().st_size <= MAX_SEARCHED_BYTES:
        return True
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return any(content.find(mark) >= 0 for mark in marks)


def _run_reader(path: Path, media_type: str, trust_anchors_file: Path | None, timeout_s: float) -> ProvenanceDocument:
    anchors = None if trust_anchors_file is None else str(trust_anchors_file.absolute())
    request = json.dumps({"format": media_type, "trust_anchors_file": anchors})
    # -I: nothing is imported from the environment or the current folder. -B: the child may not write files.
    arguments = [sys.executable, "-I", "-B", str(SCRIPT), str(path.absolute()), request]
    with BoundedProcess(arguments, timeout_s=timeout_s) as child:
        answer = read_exactly(child.stdout, MAX_ANSWER_BYTES)
        if len(answer) == MAX_ANSWER_BYTES:
            return _unreadable(ProvenanceReason.CRASHED)
        status = child.wait()
    if status != 0:
        return _unreadable(ProvenanceReason.CRASHED)
    try:
        return ProvenanceDocument.model_validate_json(answer)
    except ValidationError:
        # The library may have been taken over by the file that it read, and its answer is not to be trusted either.
        return _unreadable(ProvenanceReason.CRASHED)


def _not_checked(reason: ProvenanceReason) -> ProvenanceDocument:
    return ProvenanceDocument(state=ProvenanceState.NOT_CHECKED, reason=reason)


def _unreadable(reason: ProvenanceReason) -> ProvenanceDocument:
    return ProvenanceDocument(state=ProvenanceState.UNREADABLE, reason=reason)
