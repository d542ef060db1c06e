"""Fixtures for every folder of tests: the research clips, Postgres, Redis, and a migrated database."""

import os
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from deepfakestream import Client
from sqlalchemy import Engine

from api.embedded.stack import EmbeddedStack
from migrations.schema import migrate
from shared.config import Database, StorageSettings
from shared.db import SessionFactory, make_engine
from tests.clips import make_clip
from tests.rings import Scheduler, arrange, bound_threads
from tests.servers import (
    RedisServer,
    free_port,
    new_database,
    running_postgres,
    running_redis,
    running_s3,
    state_folder,
)

SHORT_LEASES = {"JOBS__LEASE_S": "3", "JOBS__SWEEP_EVERY_S": "1", "JOBS__RESEND_AFTER_S": "3"}
ONE_SCORER = {"WORKER__PROCESSES_PER_DEVICE": "1"}
MANY_REFUSALS = {"API__REFUSALS_PER_MINUTE": "60000"}
MANY_WAITING = {"STREAMS__MAX_WAITING": "100"}
RESEARCH_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


hypothesis.settings.register_profile("tests", deadline=None)
hypothesis.settings.load_profile("tests")
"""No deadline: an example that takes 170 ms on an idle machine takes 264 ms beside another process of tests."""


def pytest_configure() -> None:
    """Limit the threads of libraries before any is imported, so that test processes do not compete for cores."""
    if processes := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
        bound_threads(int(processes))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test its ring, before ``-m`` selects by it."""
    arrange(items, is_spread="PYTEST_XDIST_WORKER" in os.environ)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduler:
    """Keep each group in one process, whatever ``--dist`` says."""
    return Scheduler(config, log)


@pytest.fixture(scope="session")
def research_data() -> Path:
    """The folder of research clips, which is beside the checkout and never in it."""
    if not (RESEARCH_DATA / "videos").is_dir():
        pytest.skip("the research clips are not beside this checkout (../shared/data)")
    return RESEARCH_DATA


@pytest.fixture(scope="session")
def stack() -> Iterator[EmbeddedStack]:
    """
    The whole service as ``deepfakestream up`` runs it: every server and process a real one.

    Leases are short, so that tests that kill workers do not wait long until a step is leased again. One process
    scores, so that they know which one to kill. Requests without a valid key are not limited, since a test sends many.
    No segment of a live stream is dropped, however slow the machine is.
    """
    with ExitStack() as running:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in (SHORT_LEASES | ONE_SCORER | MANY_REFUSALS | MANY_WAITING).items():
                patch.setenv(f"DEEPFAKESTREAM_{name}", value)
            state = running.enter_context(state_folder())
            stack = running.enter_context(
                EmbeddedStack(state, **{name: free_port() for name in ("port", "flower_port", "push_port")})
            )
        yield stack


@pytest.fixture
def client(stack: EmbeddedStack) -> Iterator[Client]:
    """The SDK with the stack's first key."""
    with Client(stack.url, stack.api_key_file.read_text().strip()) as connected:
        yield connected


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A six-second H.264 clip with one face."""
    return make_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", seconds=6.0)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A real Postgres server, one for the whole run."""
    with running_postgres() as url:
        yield url


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A real Redis server, one for the whole run."""
    with running_redis() as server:
        yield server


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorageSettings]:
    """A real S3 server, one for the whole run."""
    with running_s3(tmp_path_factory.mktemp("s3") / "log") as settings:
        yield settings


@pytest.fixture
def s3_settings(s3_server: StorageSettings) -> StorageSettings:
    """A place on the S3 server that no other test uses."""
    return s3_server.model_copy(update={"url": f"{s3_server.url}/{uuid.uuid4().hex}"})


@pytest.fixture(scope="session")
def template_url(postgres_url: str) -> Iterator[str]:
    """A database with the schema that the migrations make, and nobody connected: the template of others."""
    with new_database(postgres_url) as url:
        engine = make_engine(Database(url=url))
        migrate(engine)
        engine.dispose()
        yield url


@pytest.fixture(scope="session")
def migrated_url(postgres_url: str, template_url: str) -> Iterator[str]:
    """A database with this schema, shared by tests that keep to rows of their own."""
    with new_database(postgres_url, template_url) as url:
        yield url


@pytest.fixture
def engine(migrated_url: str) -> Iterator[Engine]:
    """An engine on the migrated database."""
    engine = make_engine(Database(url=migrated_url))
    yield engine
    engine.dispose()


@pytest.fixture
def sessions(engine: Engine) -> SessionFactory:
    """Transactions on the migrated database."""
    return SessionFactory(engine)
