"""
Running networks: OpenVINO on the processor, PyTorch elsewhere, each in the best precision that is exact enough.

Pictures go in as they lie in memory, bytes or floats with their channels last; what a network does to them first is
part of it. OpenVINO's own reporting, which tells its makers of every import and conversion, is kept from loading.
"""

import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

# Without this package OpenVINO takes a stub in its place. Importing OpenVINO with it sends a message, from a fork.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino  # noqa: E402
from openvino.frontend import FrontEndManager  # noqa: E402
from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder  # noqa: E402

Precision = Literal["float32", "bfloat16", "float16"]
Pictures = NDArray[np.uint8] | NDArray[np.float32]
Given = Pictures | Tensor
"""Tensors where they lie on the engine's device already."""
Outputs = tuple[NDArray[np.float32], ...]
Run = Callable[[Given], Outputs]

HINTS: Final[dict[Precision, str]] = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}


class FromLastChannels(nn.Module):
    """
    A network that is shown pictures with their channels last.

    Args:
        network: Sees (N, C, H, W) float32.
        span: Divides each value.
    """

    def __init__(self, network: nn.Module, *, span: float) -> None:
        super().__init__()
        self.network = network
        self.span = span

    def forward(self, pictures: Tensor) -> Any:
        """(N, H, W, C) → what the network says."""
        return self.network(pictures.permute(0, 3, 1, 2).to(torch.float32) / self.span)


@dataclass(frozen=True, slots=True)
class Engine:
    """A network that is ready to run, by one thread at a time; others wait."""

    run: Run
    """(N, H, W, C) pictures, one at least → the network's outputs as float32."""
    runtime: Literal["openvino", "torch"]
    precision: Precision

    @property
    def description(self) -> str:
        """For instance ``openvino-bfloat16``."""
        return f"{self.runtime}-{self.precision}"


def make_engine(network: nn.Module, example: Pictures, device: torch.device, precision: Precision) -> Engine:
    """
    Prepare *network* for *device*.

    Args:
        network: In eval mode, on *device*.
        example: Pictures like those to come; their number and size may differ.
    """
    if device.type == "cpu":
        return Engine(_openvino(network, example, precision), "openvino", precision)
    return Engine(_torch(network, device, precision), "torch", precision)


def best_engine(
    network: nn.Module, examples: Pictures, device: torch.device, is_alike: Callable[[Outputs, Outputs], bool]
) -> Engine:
    """
    Prepare *network* in the lower precision of the hardware if that is close enough on *examples*, or in float32.

    Nothing is timed, so that processes side by side decide alike.

    Args:
        is_alike: Whether outputs, the second of which are in float32, are close enough.
    """
    exact = make_engine(network, examples, device, "float32")
    precision = _lower(device)
    if precision is None:
        return exact
    quick = make_engine(network, examples, device, precision)
    return quick if is_alike(quick.run(examples), exact.run(examples)) else exact


def _lower(device: torch.device) -> Precision | None:
    """The precision that the hardware multiplies faster than float32, if any."""
    if device.type == "cuda":
        return "float16"  # As fast as bfloat16, and eight times as exact.
    return "bfloat16" if "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES") else None


@lru_cache(maxsize=1)
def _core() -> Any:
    return openvino.Core()


def _openvino(network: nn.Module, example: Pictures, precision: Precision) -> Run:
    frontend = FrontEndManager().load_by_framework("pytorch")
    with warnings.catch_warnings():
        # PyTorch advises to export instead, and that sizes seen in tracing are kept; neither matters here.
        warnings.simplefilter("ignore")
        # Traced here and not by the decoder, which does it with three times as many steps.
        traced = torch.jit.trace(network, torch.from_numpy(example), check_trace=False)  # type: ignore[no-untyped-call]
        decoder = TorchScriptPythonDecoder(traced)  # It has to live until all is converted.
        model = frontend.convert(frontend.load(decoder))
    compiled = _core().compile_model(
        model,
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
            # Processes side by side would each choose the first cores.
            "ENABLE_CPU_PINNING": False,
        },
    )
    request = compiled.create_infer_request()
    # A request that two threads use at once gives one the other's answer.
    lock = threading.Lock()

    def run(pictures: Given) -> Outputs:
        given = pictures.numpy() if isinstance(pictures, Tensor) else pictures
        with lock:
            answer = request.infer([given], share_inputs=True)
            return tuple(np.array(answer[place], np.float32) for place in range(len(compiled.outputs)))

    return run


def _torch(network: nn.Module, device: torch.device, precision: Precision) -> Run:
    dtype = getattr(torch, precision)

    @torch.inference_mode()
    def run(pictures: Given) -> Outputs:
        given = pictures if isinstance(pictures, Tensor) else torch.from_numpy(pictures)
        if device.type == "cuda" and given.device.type == "cpu":
            given = given.pin_memory().to(device, non_blocking=True)
        # What is called float32 has its 23 bits, and not TensorFloat's ten.
        exactly = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
        with exactly, nullcontext() if precision == "float32" else torch.autocast(device.type, dtype):
            answer: Tensor | Sequence[Tensor] = network(given)
        parts = [answer] if isinstance(answer, Tensor) else answer
        return tuple(part.float().numpy(force=True) for part in parts)

    return run
