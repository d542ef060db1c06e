import os

import pytest
from click.testing import CliRunner
from deepfakestream import drivers, retries
from deepfakestream.cli import main

from tests.clients import BOTH_CLIENTS, CLIENT_IDS
from tests.receiver import running_receiver


@pytest.fixture
def server():
    with running_receiver() as receiver:
        yield receiver


@pytest.fixture(autouse=True)
def nothing_configured(monkeypatch, tmp_path):
    """Remove the service, key and state of the person who runs the tests, and use an empty home folder."""
    for name in os.environ:
        if name.startswith("DEEPFAKESTREAM_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home-state"))


@pytest.fixture
def no_pauses(monkeypatch):
    """Repeat requests without a pause."""
    monkeypatch.setattr(retries, "_pause_s", lambda _: 0.0)


@pytest.fixture
def pauses(monkeypatch):
    """Record the pauses of both clients, in seconds, and make none."""
    recorded = []

    async def sleep(_, seconds):
        recorded.append(seconds)

    for driver in (drivers.BlockingDriver, drivers.AsyncioDriver):
        monkeypatch.setattr(driver, "sleep", sleep)
    return recorded


@pytest.fixture(params=BOTH_CLIENTS, ids=CLIENT_IDS)
def connect(request):
    """A test that makes its clients by this runs with both."""
    return request.param


@pytest.fixture
def command():
    """Run the command line in this process."""

    def run(*arguments, **environment):
        return CliRunner().invoke(main, [str(argument) for argument in arguments], env=environment)

    return run
