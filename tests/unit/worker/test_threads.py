"""How many threads PyTorch has where a container may use fewer cores than its machine has."""

import multiprocessing

import pytest
import torch

from worker import threads
from worker.benchmark import measuring, running
from worker.benchmark.run_setup import Setup
from worker.threads import bound_threads
from worker.training.__main__ import main


@pytest.fixture(autouse=True)
def _machine(monkeypatch):
    """Run on a machine with four cores, of which the process may use two."""
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    monkeypatch.setattr(threads, "available_cores", lambda: 2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("given", "used"), [(None, 2), (1, 1), (3, 3)])
def test_there_are_as_many_threads_as_cores_unless_told_otherwise(given, used):
    bound_threads(given)
    assert torch.get_num_threads() == used


def test_fewer_threads_than_cores_stay_so():
    torch.set_num_threads(1)
    bound_threads()
    assert torch.get_num_threads() == 1


def test_commands_of_training_keep_to_the_cores(tmp_path):
    assert main(["train", "--help"]) == 0
    assert torch.get_num_threads() == 4
    # There is no such recipe.
    assert main(["train", str(tmp_path / "recipe.yaml"), str(tmp_path), "--run", str(tmp_path)]) == 2
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(("given", "used"), [(None, 2), (1, 1)])
def test_contenders_of_the_benchmark_keep_to_the_cores(tmp_path, monkeypatch, given, used):
    monkeypatch.setitem(measuring.CONTENDERS, "nothing", lambda _setup: None)
    ours, theirs = multiprocessing.Pipe()
    ours.send(None)
    measuring._run_contender(theirs, "nothing", Setup(tmp_path, "none", threads=given))
    assert torch.get_num_threads() == used
    assert running._describe_machine(given)["threads"] == used
