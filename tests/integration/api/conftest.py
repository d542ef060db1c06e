"""An api without an HTTP server, for tests with their own settings; database and Redis are real."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from flask_openapi3 import OpenAPI

from api.app import create_app
from api.config import APISettings
from api.keys import create_key
from shared.config import Database, StorageSettings
from shared.db import SessionFactory, make_engine
from shared.queues import Sender, make_celery
from tests.clips import noise_picture
from tests.servers import RedisServer, new_database, running_redis
from worker.config import WorkerSettings
from worker.tasks.context import Context


class OneAPI:
    """An application, and API keys for it."""

    def __init__(
        self, app: OpenAPI, settings: APISettings, sessions: SessionFactory, storage: Path, redis: RedisServer
    ) -> None:
        self.app, self.settings, self.sessions, self.storage, self.redis = app, settings, sessions, storage, redis

    def key(self, owner: str = "somebody", *scopes: str) -> tuple[dict[str, str], Any]:
        """Return headers with a new key, and the key's row."""
        with self.sessions.transaction() as session:
            made = create_key(session, owner=owner, name="test", scopes=[*scopes] or ["jobs:write", "jobs:read"])
        return {"Authorization": f"Bearer {made.secret}"}, made.row

    def call(self, method: str, path: str, headers: dict[str, str], address: str = "127.0.0.1", **given: Any) -> Any:
        """Send a request from *address* and return the response."""
        environment = {"REMOTE_ADDR": address}
        return self.app.test_client().open(
            path, method=method, headers=headers, environ_base=environment, buffered=True, **given
        )

    def submit(self, headers: dict[str, str], data: bytes | None = None, **given: Any) -> Any:
        """Submit an image and return the response."""
        body = noise_picture() if data is None else data
        return self.call("POST", "/v1/jobs", {**headers, "Content-Type": "image/jpeg"}, data=body, **given)

    def files(self) -> list[Path]:
        """Return the files in storage."""
        return [path for path in self.storage.rglob("*") if path.is_file()]


@pytest.fixture
def make_api(postgres_url: str, template_url: str, tmp_path: Path) -> Iterator[Callable[..., OneAPI]]:
    """Return a function that makes an api with given settings, with its own database and Redis."""
    with api_maker(postgres_url, template_url, tmp_path) as make:
        yield make


@contextmanager
def api_maker(postgres_url: str, template_url: str, storage_folder: Path) -> Iterator[Callable[..., OneAPI]]:
    """Give what ``make_api`` gives, for fixtures of a wider scope."""
    with ExitStack() as running:
        redis = running.enter_context(running_redis())
        url = running.enter_context(new_database(postgres_url, template_url))
        engine = make_engine(Database(url=url))
        running.callback(engine.dispose)

        def make(
            storage: StorageSettings | None = None,
            models: dict[str, Any] | None = None,
            evidence: dict[str, Any] | None = None,
            streams: dict[str, Any] | None = None,
            **api: Any,
        ) -> OneAPI:
            settings = APISettings(
                database={"url": url},
                broker={"url": redis.url},
                storage=storage or {"url": f"file://{storage_folder}"},
                models=models or {},
                evidence=evidence or {},
                streams=streams or {},
                api=api,
            )
            app = create_app(settings)
            running.callback(app.extensions["deepfakestream"].sessions.engine.dispose)
            running.callback(app.extensions["deepfakestream"].listener.close)
            return OneAPI(app, settings, SessionFactory(engine), storage_folder, redis)

        yield make


@pytest.fixture
def api(make_api: Callable[..., OneAPI]) -> OneAPI:
    """Return an api with its own settings as they are; a file that needs others replaces it."""
    return make_api()


@pytest.fixture
def headers(api: OneAPI) -> dict[str, str]:
    """Return headers with a key of the owner whose jobs a test looks at."""
    return api.key("owner")[0]


@pytest.fixture
def job(api: OneAPI, headers: dict[str, str]) -> uuid.UUID:
    """Return the job of a picture that has ended with three scores, of which one is missing, and no verdict."""
    # Here, since that module needs this one.
    from tests.integration.api.finished import succeed

    job_id = uuid.UUID(api.submit(headers, noise_picture(1)).json["id"])
    succeed(api, job_id, [0.1, None, 0.9], fake_score=0.5, verdict="inconclusive")
    return job_id


@pytest.fixture
def worker(api: OneAPI) -> Iterator[Context]:
    """Return the context of a cpu worker."""
    settings = WorkerSettings(
        database=api.settings.database, broker=api.settings.broker, storage=api.settings.storage, webhooks={}
    )
    context = Context.connect(settings, Sender(make_celery(settings.broker, settings.jobs)))
    yield context
    context.sessions.engine.dispose()
