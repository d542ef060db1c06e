"""What the probes and a submission say of storage, and how often they bother it."""

from structlog.testing import capture_logs

from shared.storage import FileStorage
from tests.broken_s3 import break_off, listening
from tests.clips import noise_picture


def test_a_flood_of_readiness_probes_reaches_storage_once_and_writes_nothing(make_api, monkeypatch):
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


def test_a_read_of_storage_that_breaks_off_is_an_error_of_storage_and_may_be_tried_again(make_api, tmp_path):
    # The events say why, with all of the library's frames: rendering them would take longer than the rest.
    with capture_logs(), listening(break_off) as (settings, _):
        api = make_api(storage=settings.model_copy(update={"cache_dir": tmp_path}))
        answer = api.submit(api.key()[0], noise_picture())
    assert (answer.status_code, answer.json["code"]) == (503, "storage_error")
