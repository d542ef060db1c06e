import time

import pytest
import torch

from worker.pipeline.devices import read_device_state
from worker.pipeline.stages import Stages


def test_times_of_a_stage_add_up_also_when_it_fails():
    stages = Stages()
    for _ in range(2):
        with stages.measure("a"):
            time.sleep(0.01)

    def fail():
        with stages.measure("b"):
            time.sleep(0.01)
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    assert stages.seconds["a"] >= 0.02
    assert stages.seconds["b"] >= 0.01


def test_waiting_counts_what_getting_takes_and_not_what_using_does():
    def slow():
        for number in range(3):
            time.sleep(0.01)
            yield number

    stages = Stages()
    found = []
    for number in stages.measure_iteration("decode", slow()):
        found.append(number)
        time.sleep(0.05)
    assert found == [0, 1, 2]
    assert 0.03 <= stages.seconds["decode"] < 0.15


def test_an_error_of_the_source_comes_through():
    def broken():
        yield 1
        raise OSError("broken")

    with pytest.raises(OSError, match="broken"):
        list(Stages().measure_iteration("decode", broken()))


def test_a_processor_has_no_state():
    assert read_device_state(torch.device("cpu")) is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_tells_its_memory():
    state = read_device_state(torch.device("cuda"))
    assert 0 < state.used_bytes <= state.total_bytes
