import pickle

import pytest
import torch

from tests.unit.worker.training.runs import PLAIN, make_data, write_caches
from worker.training.fakes.augment import Augmentation
from worker.training.fakes.couples import Couples
from worker.training.fakes.kinds import Stage
from worker.training.fitting import loaders
from worker.training.fitting.loaders import Feed, start_loaders


@pytest.fixture(scope="module")
def couples(tmp_path_factory):
    caches = write_caches(make_data(tmp_path_factory.mktemp("data")), tmp_path_factory.mktemp("caches"))
    stages = [Stage(1, {"textbook": 1.0})]
    return Couples(caches, stages, Augmentation(**PLAIN), size_px=64, margin=0.2, batch=2, seed=5, first=3)


def same(one, other):
    return all(torch.equal(left, right) for left, right in zip(one, other, strict=True))


def test_what_another_process_is_sent_is_how_to_make_the_stream_not_its_faces(couples):
    sent = pickle.dumps(couples)
    assert len(sent) < 3000
    assert same(pickle.loads(sent).batch(4), couples.batch(4))  # noqa: S301 - our own


@pytest.mark.parametrize("cuda_in_use", [False, True], ids=["forked", "from a server"])
def test_loader_processes_give_the_batches_that_none_would_in_order(cuda_in_use, couples, monkeypatch):
    monkeypatch.setattr(loaders.torch.cuda, "is_initialized", lambda: cuda_in_use)
    assert loaders._context().get_start_method() == ("forkserver" if cuda_in_use else "fork")
    batches = start_loaders(couples, 2)
    for number in range(3, 8):
        assert same(next(batches), couples.batch(number))


def test_a_feed_asks_ahead_once_and_loses_no_batch():
    asked = []

    def batches():
        for number in range(5):
            asked.append(number)
            yield (torch.tensor(number),) * 3

    feed = Feed(batches(), torch.device("cpu"))
    assert asked == []
    assert feed.take()[0] == 0
    assert asked == [0]
    feed.advance()
    feed.advance()
    assert asked == [0, 1]
    assert [int(feed.take()[0]) for _ in range(2)] == [1, 2]
