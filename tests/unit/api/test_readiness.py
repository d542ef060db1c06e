"""Frequency of the readiness checks of dependencies."""

import threading

import pytest

from api.readiness import Readiness


class Part:
    """A dependency that is available or not, and counts its checks."""

    def __init__(self):
        self.asked, self.is_away = 0, False

    def check(self):
        self.asked += 1
        if self.is_away:
            raise RuntimeError("away")


class Clock:
    def __init__(self):
        self.now_s = 1000.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def part():
    return Part()


@pytest.fixture
def clock():
    return Clock()


def test_checks_run_at_most_once_within_the_ttl(part, clock):
    readiness = Readiness({"storage": part.check}, ttl_s=3.0, clock=clock)
    for _ in range(60):
        assert readiness.checks() == {"storage": "ok"}
        clock.now_s += 0.1
    assert part.asked == 2


@pytest.mark.parametrize("is_away", [True, False], ids=["a failure", "a success"])
def test_an_outcome_is_not_kept_longer_than_the_ttl(part, clock, is_away):
    readiness = Readiness({"storage": part.check}, ttl_s=3.0, clock=clock)
    outcomes = {True: "failed", False: "ok"}
    part.is_away = is_away
    assert readiness.checks() == {"storage": outcomes[is_away]}
    part.is_away = not is_away
    clock.now_s += 2.9
    assert readiness.checks() == {"storage": outcomes[is_away]}
    clock.now_s += 0.1
    assert readiness.checks() == {"storage": outcomes[not is_away]}


def test_concurrent_first_requests_share_one_check(part):
    begun, answers = threading.Barrier(8), []

    def ask(readiness):
        begun.wait()
        answers.append(readiness.checks())

    readiness = Readiness({"storage": part.check})
    threads = [threading.Thread(target=ask, args=[readiness]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (part.asked, answers) == (1, [{"storage": "ok"}] * 8)


def test_a_first_check_that_hangs_blocks_one_thread_alone():
    begun, go_on, answers = threading.Event(), threading.Event(), []

    def hang():
        begun.set()
        go_on.wait(30)

    readiness = Readiness({"database": lambda: None, "storage": hang}, ttl_s=0.1)
    threads = [threading.Thread(target=lambda: answers.append(readiness.checks())) for _ in range(2)]
    threads[0].start()
    begun.wait(30)
    threads[1].start()
    threads[1].join(5)
    assert answers == [{"database": "ok", "storage": "failed"}]
    go_on.set()
    threads[0].join()
    assert readiness.checks() == {"database": "ok", "storage": "ok"}


def test_a_hanging_check_blocks_one_thread_and_counts_as_failed(part, clock):
    hanging, go_on = threading.Event(), threading.Event()

    def hang():
        if part.asked:
            hanging.set()
            go_on.wait(30)
        part.check()

    readiness = Readiness({"database": lambda: None, "storage": hang}, ttl_s=3.0, clock=clock)
    assert readiness.checks() == {"database": "ok", "storage": "ok"}
    clock.now_s += 3.0
    thread = threading.Thread(target=readiness.checks)
    thread.start()
    hanging.wait(30)
    assert readiness.checks() == {"database": "ok", "storage": "ok"}
    clock.now_s += 3.0
    assert readiness.checks() == {"database": "ok", "storage": "failed"}
    go_on.set()
    thread.join()
    assert readiness.checks() == {"database": "ok", "storage": "ok"}
    assert part.asked == 2
