"""
Checks of this installation and of the service that commands use, for ``deepfakestream doctor``.

What is part of an installed server is checked by the server itself, since this package may be installed alone.
"""

import json
import platform
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import entry_points, version
from itertools import chain
from pathlib import Path
from typing import Any, Final, Literal

import httpx

from deepfakestream.addresses import is_loopback, parse_origin
from deepfakestream.client import Client
from deepfakestream.connection import Connection
from deepfakestream.errors import DeepfakeStreamError, MissingPartError
from deepfakestream.local import LOCAL_GROUP

State = Literal["ok", "warning", "problem", "absent"]
SERVER: Final = "deepfakestream-server"
TIMEOUT_S: Final = 10.0
SCAN_TIMEOUT_S: Final = 120.0
MAX_DOCUMENT_BYTES: Final = 16 * 2**20
"""The most of the OpenAPI document that is read; it has less than a megabyte."""
PICTURE_PX: Final = 64


@dataclass(frozen=True, slots=True)
class Check:
    """The outcome of one check."""

    name: str
    state: State
    """``absent`` for a part that is not installed or not chosen, and need not be."""
    detail: str

    def to_json(self) -> dict[str, str]:
        """Return the fields as JSON."""
        return asdict(self)


def diagnose(find: Callable[[], Connection], *, is_named: bool, with_scan: bool = True) -> Iterator[Check]:
    """
    Make all checks, one after the other.

    Args:
        find: Finds the service and the key, as for every command.
        is_named: Whether a person named the service; otherwise none needs to run.
        with_scan: Let the service scan a tiny picture, and erase that job.
    """
    yield Check("client", "ok", f"deepfakestream {version('deepfakestream')}, Python {platform.python_version()}")
    yield Check("system", "ok", f"{platform.platform()}, {platform.machine()}")
    is_absent = True
    for check in chain(_check_installed_server(), _check_service(find, is_named=is_named, with_scan=with_scan)):
        # The server's own package scans nothing.
        is_absent &= check.state == "absent" or check.name == "server"
        yield check
    if is_absent:
        yield Check(
            "use",
            "problem",
            "nothing can scan: install the server beside this package, start 'deepfakestream up', or name a service"
            " with DEEPFAKESTREAM_URL and DEEPFAKESTREAM_API_KEY",
        )


def is_well(checks: list[Check]) -> bool:
    """Whether no check found a problem; warnings and absent parts are none."""
    return all(check.state != "problem" for check in checks)


def _check_installed_server() -> Iterator[Check]:
    found = next(iter(entry_points(group=LOCAL_GROUP, name="doctor")), None)
    if found is None or found.dist is None:
        yield Check("server", "absent", f"{SERVER} is not installed here: --local and 'up' need it")
        return
    installed, own = found.dist.version, version("deepfakestream")
    if installed == own:
        yield Check("server", "ok", f"{SERVER} {installed}")
    else:
        yield Check("server", "problem", f"{SERVER} {installed} beside deepfakestream {own}: install the same release")
    try:
        examine = found.load()
    except ModuleNotFoundError as error:
        yield Check("pipeline", "absent", f"no scan in this process: the extra 'worker' is not installed ({error})")
        return
    except (ImportError, OSError) as error:
        yield Check("pipeline", "problem", f"the worker's packages cannot be loaded ({error}): install them again")
        return
    for outcome in examine():
        yield Check(**outcome)


def _check_service(find: Callable[[], Connection], *, is_named: bool, with_scan: bool) -> Iterator[Check]:
    try:
        connection = find()
    except DeepfakeStreamError as error:
        is_absent = isinstance(error, MissingPartError) and not is_named
        yield Check("service", "absent" if is_absent else "problem", str(error))
        return
    try:
        found = _request_release(connection.url)
    except (httpx.HTTPError, OSError, ValueError) as error:
        yield Check("service", "problem", f"{connection.url} does not answer as a service ({error})")
        return
    own = version("deepfakestream")
    if found == own:
        yield Check("service", "ok", f"release {found} at {connection.url}")
    else:
        yield Check("service", "warning", f"release {found} at {connection.url}, and this client is {own}")
    yield from _check_use(connection, with_scan=with_scan)


def _request_release(url: str) -> str:
    """
    Return the release that the service at *url* names in its OpenAPI document, which needs no key.

    Raises:
        httpx.HTTPError: No answer, or one that is not a success.
        ValueError: The document is not that of such a service.
    """
    is_remote = not is_loopback(parse_origin(url)[1])
    with (
        httpx.Client(timeout=TIMEOUT_S, trust_env=is_remote) as connection,
        connection.stream("GET", f"{url.rstrip('/')}/openapi.json") as response,
    ):
        response.raise_for_status()
        content = bytearray()
        for block in response.iter_bytes():
            content += block
            if len(content) > MAX_DOCUMENT_BYTES:
                raise ValueError("its OpenAPI document is too long")
    try:
        return str(json.loads(content)["info"]["version"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError("its OpenAPI document cannot be read") from error


def _check_use(connection: Connection, *, with_scan: bool) -> Iterator[Check]:
    """Check that the key is accepted, and that a picture is scanned."""
    try:
        with Client(connection.url, connection.api_key) as client:
            named = ", ".join(f"{model.get('name')} {model.get('version')}" for model in client.models())
            yield Check("API key", "ok", f"accepted; the service has {named or 'no checkpoint'}")
            if with_scan:
                yield _check_remote_scan(client)
    except DeepfakeStreamError as error:
        yield Check("API key", "problem", str(error))


def _check_remote_scan(client: Client) -> Check:
    name = "service scan"
    with tempfile.TemporaryDirectory(prefix="deepfakestream-") as folder:
        picture = Path(folder, "doctor.png")
        picture.write_bytes(make_picture())
        try:
            job = client.submit(picture)
            try:
                job = client.wait(job.id, timeout_s=SCAN_TIMEOUT_S)
            finally:
                # Erasing it also cancels it.
                client.delete(job.id)
        except DeepfakeStreamError as error:
            return Check(name, "problem", str(error))
    outcome = f"a picture without faces: {job.status}, {job.verdict or 'no verdict'}"
    if job.error is not None:
        outcome += f" ({job.error.detail})"
    return Check(name, "ok" if job.status == "succeeded" else "problem", f"{outcome}; the job is erased")


def make_picture() -> bytes:
    """Make a grey PNG image of PICTURE_PX by PICTURE_PX pixels, without a face."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", PICTURE_PX, PICTURE_PX, 8, 0, 0, 0, 0)
    rows = b"".join(
        b"\0" + bytes(2 * (row + column) % 256 for column in range(PICTURE_PX)) for row in range(PICTURE_PX)
    )
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def describe(check: Check) -> str:
    """Return a line for people."""
    return f"{check.state:<8} {check.name:<13} {check.detail}"


def summarize(checks: list[Check]) -> dict[str, Any]:
    """Return all checks as JSON, and whether all is well."""
    return {"is_well": is_well(checks), "checks": [check.to_json() for check in checks]}
