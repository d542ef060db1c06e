import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

from worker import inference
from worker.inference import ChannelsLastInput, autocast, best_engine, is_bfloat16_fast, make_engine

CPU = torch.device("cpu")
PICTURES = np.random.default_rng(0).integers(0, 256, (3, 20, 24, 3), np.uint8)


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.look = nn.Conv2d(3, 8, 3)

    def forward(self, pictures):
        seen = self.look(pictures).relu()
        return seen, seen.mean(dim=(1, 2, 3))


@pytest.fixture
def network():
    return ChannelsLastInput(Network().eval().requires_grad_(requires_grad=False), divisor=16.0)


def wanted(network, pictures):
    with torch.inference_mode():
        return [part.numpy() for part in network(torch.from_numpy(pictures))]


@pytest.mark.parametrize("runtime", ["openvino", "torch"])
@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_an_engine_equals_the_network_for_any_batch_and_size(network, runtime, kind):
    pictures = PICTURES.astype(kind)
    if runtime == "openvino":
        engine = make_engine(network, pictures, CPU, "float32")
    else:
        engine = inference.make_torch_engine(network, CPU, "float32")
    assert engine.description == f"{runtime}-float32"
    for given in (pictures, pictures[:1], np.ascontiguousarray(pictures[:, :14, :17])):
        for ours, theirs in zip(engine.run(given), wanted(network, given), strict=True):
            assert ours.dtype == np.float32
            assert ours == pytest.approx(theirs, abs=1e-5)


def test_outputs_survive_the_next_run(network):
    engine = make_engine(network, PICTURES, CPU, "float32")
    first = engine.run(PICTURES)
    kept = [part.copy() for part in first]
    engine.run(255 - PICTURES)
    assert all(np.array_equal(part, copy) for part, copy in zip(first, kept, strict=True))


@pytest.mark.parametrize(("is_alike", "precision"), [(True, "bfloat16"), (False, "float32")])
def test_a_lower_precision_has_to_be_close(network, monkeypatch, is_alike, precision):
    monkeypatch.setattr(inference, "find_lower_precision", lambda _device: "bfloat16")
    assert best_engine(network, PICTURES, CPU, lambda _quick, _exact: is_alike).precision == precision


def test_hardware_without_a_lower_precision_runs_in_float32(network, monkeypatch):
    monkeypatch.setattr(inference, "find_lower_precision", lambda _device: None)
    assert best_engine(network, PICTURES, CPU, lambda _quick, _exact: True).precision == "float32"


@pytest.mark.parametrize("is_fast", [True, False])
def test_pytorch_multiplies_in_bfloat16_only_where_that_is_fast(monkeypatch, is_fast):
    monkeypatch.setattr(inference, "_has_fast_bfloat16", lambda: is_fast)
    with autocast(CPU):
        made = torch.ones(2, 2) @ torch.ones(2, 2)
    assert made.dtype == (torch.bfloat16 if is_fast else torch.float32)
    assert is_bfloat16_fast(CPU) == is_fast


@pytest.mark.parametrize(
    ("capability", "hip", "is_fast"),
    [
        ((7, 0), None, False),
        ((7, 5), None, False),
        ((8, 0), None, True),
        ((8, 6), None, True),
        ((9, 0), None, True),
        ((10, 0), None, True),
        ((7, 5), "6.2", True),
    ],
    ids=["V100", "T4", "A100", "A10", "H100", "B200", "of AMD"],
)
def test_gpus_before_ampere_do_not_multiply_in_bfloat16(monkeypatch, capability, hip, is_fast):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    monkeypatch.setattr(torch.version, "hip", hip)
    assert is_bfloat16_fast(torch.device("cuda")) == is_fast


def test_bfloat16_is_compared_with_float32(network, monkeypatch):
    monkeypatch.setattr(inference, "find_lower_precision", lambda _device: "bfloat16")
    seen = []
    best_engine(network, PICTURES, CPU, lambda quick, exact: bool(seen.append((quick, exact))))
    ((_quick, exact),) = seen
    assert exact[1] == pytest.approx(wanted(network, PICTURES)[1], abs=1e-5)


def test_threads_that_share_an_engine_get_their_own_outputs(network):
    engine = make_engine(network, PICTURES, CPU, "float32")
    given = [np.full((4, 120, 120, 3), grey, np.uint8) for grey in (10, 240)]
    wanted_means = [engine.run(pictures)[1][0] for pictures in given]
    assert abs(wanted_means[0] - wanted_means[1]) > 0.01
    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(lambda number: engine.run(given[number % 2])[1], range(40)))
    for number, answer in enumerate(answers):
        assert answer == pytest.approx(wanted_means[number % 2], abs=1e-5)


REPORTING = """
import sys
import numpy as np, torch
from worker.inference import ChannelsLastInput, make_engine
network = ChannelsLastInput(torch.nn.Conv2d(3, 4, 3), divisor=255.0)
make_engine(network, np.zeros((1, 8, 8, 3), np.uint8), torch.device("cpu"), "float32")
print([name for name, module in sys.modules.items() if "openvino_telemetry" in name and module is not None])
"""


def test_openvino_sends_no_telemetry(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name not in {"CI", "TF_BUILD", "JENKINS_URL"}}
    done = subprocess.run(
        [sys.executable, "-c", REPORTING],
        env={**environment, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=240,
    )
    assert done.stdout.splitlines()[-1] == "[]"
    # Where OpenVINO would store the id of the installation.
    assert not (tmp_path / "intel").exists()
