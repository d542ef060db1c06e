"""A short run of the mutants; ``make mutants`` is the long one."""

import pytest
from deepfakestream.errors import APIError

from tests.mutants.corpus import FILES, make_originals, mutants
from tests.mutants.running import process_all


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    return make_originals(tmp_path_factory.mktemp("originals"))


def test_the_originals_are_accepted(originals, tmp_path):
    outcome = process_all(originals.items(), tmp_path, 2, detector=False)
    assert dict(outcome.by_code) == {"result": FILES}


def test_the_same_seed_makes_the_same_files(originals):
    once, again, other = (list(mutants(originals, 60, seed)) for seed in (1, 1, 2))
    assert once == again != other
    assert sum(data != originals[name.split("-", 2)[2]] for name, data in once) > 50


def test_mutants_are_answered_and_kill_nobody(originals, tmp_path):
    outcome = process_all(mutants(originals, 112, seed=3), tmp_path, 2, detector=False)
    assert (outcome.files, outcome.answered, outcome.worker_deaths, outcome.hangs) == (112, 112, 0, 0), outcome.bad
    assert outcome.by_code["result"] > 0
    assert len(outcome.by_code) > 3


def test_mutants_sent_to_the_service_end_with_a_result_or_a_code(originals, client, tmp_path):
    for name, data in mutants(originals, 28, seed=4):
        path = tmp_path / name
        path.write_bytes(data)
        try:
            job = client.wait(client.submit(path).id, timeout_s=120)
        except APIError as error:
            assert 400 <= error.status < 500, f"{name}: {error}"  # noqa: PT017 - either outcome is right
            continue
        assert job.status in ("succeeded", "failed"), name
        assert job.error is None or job.error.code not in ("internal_error", "attempts_exhausted"), name
