"""Replaces what differs from run to run in a record, such as ids, times and addresses, by values that look alike."""

import hashlib
import re
import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from shared.cursors import write_cursor
from shared.manifests import PACKAGED_MODELS_DIR, list_manifests
from tests.examples.recording import METRICS_SHOWN

BEGIN: Final = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)
STEP: Final = timedelta(seconds=0.25)
"""Between two times that follow each other in the record."""

_UUID: Final = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")
_HEX: Final = re.compile(r"(?<![0-9a-f])(?:[0-9a-f]{64}|[0-9a-f]{32})(?![0-9a-f])")
_TIME: Final = re.compile(r"\b(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?)(Z|\+00:00)")
_DAY: Final = re.compile(r"\d{4}-\d\d-\d\d")
_LOCAL: Final = re.compile(r"\b(http|rtmp)://127\.0\.0\.1:(\d+)(/[\w./…-]*)?")
_SECRETS: Final = re.compile(r"\b(dfs_live_|token=)[\w-]{20,}")
_SIGNED_AT: Final = re.compile(r"(?<=%2F)\d{8}(?=%2F)|\d{8}(?=T\d{6}Z&X-Amz)|(?<=T)\d{6}(?=Z&X-Amz)")


def stabilise(record: Any, service_url: str) -> Any:
    """
    Return *record*, plain JSON, with stable values, and without the longest texts.

    Args:
        service_url: The address of the service that answered.
    """
    return _Stabiliser(record, service_url).replace(_shorten(record))


class _Stabiliser:
    def __init__(self, record: Any, service_url: str) -> None:
        self._service_port = urlsplit(service_url).port
        self._ids: dict[str, uuid.UUID] = {}
        key = Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key()
        public_key = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        self._fixed = {"public_key": public_key, "next_cursor": write_cursor(_id(1))}
        key_id = hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()
        evidence_key = record["operations"]["getEvidenceKey"]["200"]["application/json"]["recorded"]
        # Digests of weights are the same everywhere.
        weights = [manifest.weights.sha256 for manifest in list_manifests(PACKAGED_MODELS_DIR).values()]
        self._digests = {**{digest: digest for digest in weights}, evidence_key["id"]: key_id}
        moments = {_moment(found[1]) for text in _texts(record) for found in _TIME.finditer(text)}
        times = sorted(moment for moment in moments if moment < min(moments) + timedelta(minutes=30))
        self._first, self._times = times[0], {moment: BEGIN + STEP * place for place, moment in enumerate(times)}

    def replace(self, value: Any, name: str = "") -> Any:
        """Return *value*, the field *name* of what it is in, with stable values."""
        if isinstance(value, dict):
            return {key: self.replace(item, key) for key, item in value.items()}
        if isinstance(value, list):
            return [self.replace(item) for item in value]
        if isinstance(value, str):
            return self._fixed.get(name) or self._replace_text(value)
        return value

    def _replace_text(self, text: str) -> str:
        if _DAY.fullmatch(text):
            return (BEGIN.date() + (date.fromisoformat(text) - self._first.date())).isoformat()
        for pattern, replacement in (
            (_UUID, lambda found: str(self._same_id(found[0].replace("-", "")))),
            (_HEX, self._digest),
            (_TIME, lambda found: self._time(_moment(found[1])).isoformat(timespec="milliseconds")[:-6] + found[2]),
            (_LOCAL, self._address),
            (_SECRETS, lambda found: f"{found[1]}…"),
            (_SIGNED_AT, lambda found: BEGIN.strftime("%Y%m%d" if len(found[0]) == len("20260131") else "%H%M%S")),
        ):
            text = pattern.sub(replacement, text)
        return text

    def _same_id(self, digits: str) -> uuid.UUID:
        return self._ids.setdefault(digits, _id(len(self._ids) + 1))

    def _digest(self, found: re.Match[str]) -> str:
        if len(found[0]) == len(uuid.UUID(int=0).hex):
            return self._same_id(found[0]).hex
        number = len(self._digests)
        return self._digests.setdefault(found[0], hashlib.sha256(f"example {number}".encode()).hexdigest())

    def _time(self, moment: datetime) -> datetime:
        """Return the stable time of *moment*; what is later than the record keeps its distance in whole hours."""
        if moment in self._times:
            return self._times[moment]
        hours = (moment - self._first) // timedelta(hours=1)
        return self._times.get(moment - timedelta(hours=hours), BEGIN) + timedelta(hours=hours)

    def _address(self, found: re.Match[str]) -> str:
        scheme, port, path = found[1], int(found[2]), found[3] or ""
        if scheme == "rtmp":
            return f"rtmps://deepfakes.example{path}"
        host = "deepfakes" if port == self._service_port else "receiver" if path == "/hook" else "media"
        return f"https://{host}.example{path}"


def _shorten(record: Any) -> Any:
    """Keep the default checkpoint alone, the first line of its card, and some of the metrics."""
    operations = {**record["operations"]}
    [default] = [
        {**item, "model_card": item["model_card"].splitlines()[0]}
        for item in operations["listModels"]["200"]["application/json"]["recorded"]["items"]
        if item["is_default"]
    ]
    operations["listModels"] = {"200": {"application/json": {"recorded": {"items": [default]}}}}
    lines = operations["metrics"]["200"]["text/plain"]["recorded"].splitlines(keepends=True)
    shown = [line for line in lines if line.removeprefix("# HELP ").removeprefix("# TYPE ").startswith(METRICS_SHOWN)]
    operations["metrics"] = {"200": {"text/plain": {"recorded": "".join(shown)}}}
    return {**record, "operations": operations}


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)
    elif isinstance(value, str):
        yield value


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def _id(number: int) -> uuid.UUID:
    return uuid.UUID(f"019c1430-0c00-7000-8000-{number:012x}")
