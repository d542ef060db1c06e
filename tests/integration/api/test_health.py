"""Probes and submissions when storage or the broker fails, and how often they access them."""

import pytest
from kombu.exceptions import OperationalError
from structlog.testing import capture_logs

from shared.config import Broker, Jobs
from shared.queues import Sender, make_celery
from shared.storage import FileStorage
from tests.broken_s3 import break_off, listening, say_nothing
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


def test_a_broker_that_is_away_makes_the_service_unavailable(make_api):
    api = make_api()
    api.redis.stop()
    with capture_logs():
        answer = api.call("GET", "/readyz", {})
    checks = {"database": "ok", "broker": "failed", "storage": "ok"}
    assert (answer.status_code, answer.json) == (503, {"status": "unavailable", "checks": checks})


@pytest.mark.parametrize("serve", [break_off, say_nothing])
@pytest.mark.parametrize("ask", [Sender.check, Sender.depths], ids=["probe", "metrics"])
def test_a_broker_that_is_no_help_is_asked_once(serve, ask):
    with listening(serve) as (settings, arrived):
        address = settings.endpoint_url.removeprefix("http://")
        sender = Sender(make_celery(Broker(url=f"redis://{address}/0"), Jobs()))
        with pytest.raises(OperationalError):
            ask(sender)
        assert len(arrived) == 1


def test_an_interrupted_read_of_storage_is_a_retryable_storage_error(make_api, tmp_path):
    # Log events contain long tracebacks of the library, and rendering them would take most of the time.
    with capture_logs(), listening(break_off) as (settings, _):
        api = make_api(storage=settings.model_copy(update={"cache_dir": tmp_path}))
        answer = api.submit(api.key()[0], noise_picture())
    assert (answer.status_code, answer.json["code"]) == (503, "storage_error")
