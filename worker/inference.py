"""
Inference engines: networks run by OpenVINO on CPUs and by PyTorch elsewhere, in the lowest precision that is accurate.

Inputs are pictures with channels last, as bytes or floats; their normalisation is part of the network.
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


def _disable_openvino_telemetry() -> None:
    """
    Make the package ``openvino_telemetry`` appear missing, so that OpenVINO falls back to its own stub.

    With the package, OpenVINO reports every import, from a forked process, and every conversion to its makers.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


_disable_openvino_telemetry()

import openvino  # noqa: E402
from openvino.frontend import FrontEndManager  # noqa: E402
from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder  # noqa: E402

Precision = Literal["float32", "bfloat16", "float16"]
Pictures = NDArray[np.uint8] | NDArray[np.float32]
EngineInput = Pictures | Tensor
"""Pictures in main memory, or a tensor on the engine's device."""
Outputs = tuple[NDArray[np.float32], ...]
RunNetwork = Callable[[EngineInput], Outputs]
RunOnDevice = Callable[[EngineInput], tuple[Tensor, ...]]

TRACED_PICTURES: Final = 2
AMPERE: Final = (8, 0)
"""The first compute capability of NVIDIA's GPUs that multiply in bfloat16 (A100). T4 and V100 are 7.5 and 7.0."""
PRECISION_HINTS: Final[dict[Precision, str]] = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}


class ChannelsLastInput(nn.Module):
    """
    Adapter that gives pictures with channels last to a network with channels first.

    Args:
        network: Takes (N, C, H, W) float32.
        divisor: Each value is divided by it.
    """

    def __init__(self, network: nn.Module, *, divisor: float) -> None:
        super().__init__()
        self.network = network
        self.divisor = divisor

    def forward(self, pictures: Tensor) -> Any:
        """Run the network on (N, H, W, C) pictures."""
        return self.network(pictures.permute(0, 3, 1, 2).to(torch.float32) / self.divisor)


@dataclass(frozen=True, slots=True)
class Engine:
    """A network that is ready to run. Concurrent calls are serialised where the runtime needs it."""

    run: RunNetwork
    """Runs the network on (N, H, W, C) pictures, at least one; returns its outputs as float32."""
    runtime: Literal["openvino", "torch"]
    precision: Precision
    run_on_device: RunOnDevice | None = None
    """Runs it likewise, but leaves the outputs on the device and does not wait for them; None with OpenVINO."""

    @property
    def description(self) -> str:
        """Runtime and precision, for instance ``openvino-bfloat16``."""
        return f"{self.runtime}-{self.precision}"


def make_engine(network: nn.Module, example: Pictures, device: torch.device, precision: Precision) -> Engine:
    """
    Prepare *network* for *device*.

    Args:
        network: In eval mode, on *device*.
        example: Example pictures; the number and size of later ones may differ.
    """
    return _engine_maker(network, example, device)(precision)


def best_engine(
    network: nn.Module, examples: Pictures, device: torch.device, is_close: Callable[[Outputs, Outputs], bool]
) -> Engine:
    """
    Prepare *network* in the hardware's lower precision if its outputs are close enough on *examples*, or in float32.

    The choice does not depend on timing, so that all processes of a machine choose the same precision.

    Args:
        is_close: Returns whether outputs in the lower precision (first) are close enough to those in float32 (second).
    """
    make = _engine_maker(network, examples, device)
    exact = make("float32")
    precision = find_lower_precision(device)
    if precision is None:
        return exact
    fast = make(precision)
    return fast if is_close(fast.run(examples), exact.run(examples)) else exact


def find_lower_precision(device: torch.device) -> Precision | None:
    """Return the precision in which the device multiplies faster than in float32, if any."""
    if device.type == "cuda":
        return "float16"  # As fast as bfloat16, with eight times the resolution.
    return "bfloat16" if _has_fast_bfloat16() else None


def autocast(device: torch.device) -> torch.autocast:
    """
    Return a context in which PyTorch multiplies in bfloat16, unless *device* only emulates that.

    With AVX2 networks that paint train six to eleven times slower in emulated bfloat16 than in float32, and those that
    judge about seventeen times.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=is_bfloat16_fast(device))


def is_bfloat16_fast(device: torch.device) -> bool:
    """
    Return False for a processor without instructions for bfloat16, or a GPU of NVIDIA before Ampere: they emulate it.

    This initialises CUDA if *device* is a GPU, after which loaders need a fork server, which starts more slowly.
    """
    if device.type == "cuda":
        # PyTorch for GPUs of AMD calls them by the same name, and all that it supports have bfloat16.
        return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= AMPERE
    return device.type != "cpu" or _has_fast_bfloat16()


@lru_cache(maxsize=1)
def _has_fast_bfloat16() -> bool:
    return "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@lru_cache(maxsize=1)
def _core() -> Any:
    return openvino.Core()


def _engine_maker(network: nn.Module, example: Pictures, device: torch.device) -> Callable[[Precision], Engine]:
    """Return a function that prepares *network* in a precision; what all precisions share is done once."""
    if device.type == "cpu":
        model = _convert_to_openvino(network, example)
        return lambda precision: Engine(_compile_openvino(model, precision), "openvino", precision)
    return lambda precision: make_torch_engine(network, device, precision)


def _convert_to_openvino(network: nn.Module, example: Pictures) -> Any:
    frontend = FrontEndManager().load_by_framework("pytorch")
    with warnings.catch_warnings():
        # PyTorch recommends torch.export, and warns that sizes in traces are constant; neither matters here.
        warnings.simplefilter("ignore")
        # Traced here because OpenVINO's decoder would trace it into three times as many operations.
        # Tracing runs the network in PyTorch, which is slow, so it gets only a few of the pictures.
        pictures = torch.from_numpy(example[:TRACED_PICTURES])
        traced = torch.jit.trace(network, pictures, check_trace=False)  # type: ignore[no-untyped-call]
        decoder = TorchScriptPythonDecoder(traced)  # Must stay alive until the conversion is done.
        return frontend.convert(frontend.load(decoder))


def _compile_openvino(model: Any, precision: Precision) -> RunNetwork:
    compiled = _core().compile_model(
        model,
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": PRECISION_HINTS[precision],
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
            # With pinning, every process would choose the first cores.
            "ENABLE_CPU_PINNING": False,
        },
    )
    request = compiled.create_infer_request()
    # Threads that use one request at the same time would get each other's outputs.
    lock = threading.Lock()

    def run(pictures: EngineInput) -> Outputs:
        array = pictures.numpy() if isinstance(pictures, Tensor) else pictures
        with lock:
            outputs = request.infer([array], share_inputs=True)
            return tuple(np.array(outputs[number], np.float32) for number in range(len(compiled.outputs)))

    return run


def make_torch_engine(network: nn.Module, device: torch.device, precision: Precision) -> Engine:
    """Return an engine that runs *network*, which is on *device*, with PyTorch in *precision*."""
    dtype = getattr(torch, precision)

    @torch.inference_mode()
    def run_on_device(pictures: EngineInput) -> tuple[Tensor, ...]:
        tensor = pictures if isinstance(pictures, Tensor) else torch.from_numpy(pictures)
        if device.type == "cuda" and tensor.device.type == "cpu":
            tensor = tensor.pin_memory().to(device, non_blocking=True)
        # cuDNN would use TensorFloat-32, with a mantissa of 10 bits instead of 23.
        without_tf32 = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
        with without_tf32, nullcontext() if precision == "float32" else torch.autocast(device.type, dtype):
            result: Tensor | Sequence[Tensor] = network(tensor)
        outputs = [result] if isinstance(result, Tensor) else result
        return tuple(output.float() for output in outputs)

    def run(pictures: EngineInput) -> Outputs:
        return tuple(output.numpy(force=True) for output in run_on_device(pictures))

    return Engine(run, "torch", precision, run_on_device)
