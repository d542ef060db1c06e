"""Probes and submissions when storage fails, and how often they access it."""

from structlog.testing import capture_logs

from shared.storage import FileStorage
from tests.broken_s3 import break_off, listening
from tests.clips import noise_picture


def test_many_readiness_probes_check_storage_once_and_write_nothing(make_api, monkeypatch):
    asked, ping = [], FileStorage.ping
    monkeypatch.setattr(FileStorage, "ping", lambda storage: asked.append(storage) or ping(storage))
    monkeypatch.setattr("api.readiness.OUTCOME_TTL_S", 600.0)
    api = make_api()
    before = sorted(api.storage.rglob("*")), api.storage.stat().st_mtime_ns
    for _ in range(100):
        assert api.call("GET", "/readyz", {}).json == {
            "status": "ok",
            "checks": {"database": "ok", "broker": "ok", "storage": "ok"},
        }
    assert len(asked) == 1
    assert (sorted(api.storage.rglob("*")), api.storage.stat().st_mtime_ns) == before


def test_an_interrupted_read_of_storage_is_a_retryable_storage_error(make_api, tmp_path):
    # Log events contain long tracebacks of the library, and rendering them would take most of the time.
    with capture_logs(), listening(break_off) as (settings, _):
        api = make_api(storage=settings.model_copy(update={"cache_dir": tmp_path}))
        answer = api.submit(api.key()[0], noise_picture())
    assert (answer.status_code, answer.json["code"]) == (503, "storage_error")
