import time

import pytest
import torch

from worker.pipeline.devices import read_device_state
from worker.pipeline.stages import Stages


def test_stage_times_add_up_also_after_an_error():
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


def test_measure_iteration_counts_only_the_time_of_getting_items():
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


def test_errors_of_the_source_are_passed_on():
    def broken():
        yield 1
        raise OSError("broken")

    with pytest.raises(OSError, match="broken"):
        list(Stages().measure_iteration("decode", broken()))


def test_a_cpu_has_no_device_state():
    assert read_device_state(torch.device("cpu")) is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_reports_its_memory():
    state = read_device_state(torch.device("cuda"))
    assert 0 < state.used_bytes <= state.total_bytes
