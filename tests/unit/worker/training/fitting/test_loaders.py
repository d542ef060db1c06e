import pickle

import pytest
import torch

from tests.unit.worker.training.tiny_runs import PLAIN, make_data, write_caches
from worker.training.fakes.augmentation import Augmentation
from worker.training.fakes.kinds import Stage
from worker.training.fakes.pair_stream import RealFakePairStream
from worker.training.fitting import loaders
from worker.training.fitting.loaders import DeviceBatches, start_loaders


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    caches = write_caches(make_data(tmp_path_factory.mktemp("data")), tmp_path_factory.mktemp("caches"))
    stages = [Stage(1, {"textbook": 1.0})]
    return RealFakePairStream(caches, stages, Augmentation(**PLAIN), size_px=64, margin=0.2, batch=2, seed=5, first=3)


def same(one, other):
    return all(torch.equal(left, right) for left, right in zip(one, other, strict=True))


def test_a_pickled_stream_holds_its_arguments_and_not_its_faces(pairs):
    sent = pickle.dumps(pairs)
    assert len(sent) < 3000
    assert same(pickle.loads(sent).make_batch(4), pairs.make_batch(4))  # noqa: S301 - our own


@pytest.mark.parametrize("cuda_in_use", [False, True], ids=["forked", "from a server"])
def test_loader_processes_yield_the_same_batches_in_order(cuda_in_use, pairs, monkeypatch):
    monkeypatch.setattr(loaders.torch.cuda, "is_initialized", lambda: cuda_in_use)
    assert loaders.choose_context().get_start_method() == ("forkserver" if cuda_in_use else "fork")
    batches = start_loaders(pairs, 2)
    for number in range(3, 8):
        assert same(next(batches), pairs.make_batch(number))


def test_device_batches_prefetch_once_and_lose_no_batch():
    asked = []

    def batches():
        for number in range(5):
            asked.append(number)
            yield (torch.tensor(number),) * 3

    feed = DeviceBatches(batches(), torch.device("cpu"))
    assert asked == []
    assert feed.next_batch()[0] == 0
    assert asked == [0]
    feed.prefetch()
    feed.prefetch()
    assert asked == [0, 1]
    assert [int(feed.next_batch()[0]) for _ in range(2)] == [1, 2]
