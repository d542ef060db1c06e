import json

import pytest

from shared.manifests import DEFAULT_CHECKPOINT, PACKAGED_MODELS_DIR, list_manifests
from tests.unit.client.services import answer, running_state

INSTALLED = list_manifests(PACKAGED_MODELS_DIR)


def named(name, *, is_default=False):
    return {"name": name, "version": "1", "trained": True, "is_default": is_default, "model_card": f"card of {name}"}


@pytest.fixture
def serving(server, tmp_path):
    server.answers = [answer({"items": [named("a"), named("b", is_default=True), named("c")]})]
    with running_state(tmp_path / "state", server.url) as state:
        yield state


def test_the_default_model_is_listed_first(command, serving):
    said = command("--state", serving, "models", "--card").output
    assert said.index("card of b") < said.index("card of a") < said.index("card of c")


def test_one_model_can_be_selected(command, serving, server):
    said = command("--state", serving, "models", "--card", "--model", "c").output
    assert "card of c" in said
    assert "card of a" not in said
    server.answers = [answer({"items": [named("a")]})]
    done = command("--state", serving, "models", "--model", "nonsense")
    assert done.exit_code == 2
    assert "unknown model 'nonsense'; available: a" in done.output


@pytest.mark.usefixtures("no_pauses")
@pytest.mark.parametrize("runs", [False, True], ids=["no service", "a service that does not answer"])
def test_cards_can_be_read_without_a_service(command, tmp_path, runs):
    with running_state(tmp_path / "state", "http://127.0.0.1:9"):
        done = command("--state", tmp_path / ("state" if runs else "none"), "models", "--card")
    assert done.exit_code == 0, done.output
    assert "installed here" in done.stderr
    assert done.stdout.startswith(DEFAULT_CHECKPOINT)
    for name in INSTALLED:
        assert f"# {name}" in done.stdout
    listed = command("--state", tmp_path / "none", "models", "--json").stdout.splitlines()
    assert {json.loads(line)["name"] for line in listed} == set(INSTALLED)


@pytest.mark.usefixtures("no_pauses")
def test_a_service_that_is_named_is_not_replaced(command):
    done = command("--url", "http://127.0.0.1:9", "--api-key", "dfs_a", "models")
    assert done.exit_code == 1
    assert "no answer from http://127.0.0.1:9" in done.output
