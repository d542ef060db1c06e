"""
What this installation can do, for ``deepfakestream doctor``: its packages, inference engine, checkpoints and decoder.

Every check is made by the code that scans, so that it fails as a scan would.
"""

import subprocess
import tempfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, Literal

import torch

from shared.errors import ModelError
from shared.manifests import DEFAULT_CHECKPOINT, PACKAGED_MODELS_DIR, check_manifests, list_manifests
from worker.cores import available_cores
from worker.local import scan
from worker.media.ffmpeg import find_ffmpeg
from worker.media.sandbox import Sandbox, sandbox
from worker.model.checkpoint import load_checkpoint
from worker.pipeline.detector import Detector

State = Literal["ok", "warning", "problem"]
PACKAGES: Final = ("torch", "openvino", "facenet-pytorch", "opencv-python-headless", "imageio-ffmpeg", "pillow")
OPTIONAL_PACKAGES: Final = {"c2pa-python": "Content Credentials are not read"}
"""Package that some platforms lack → what does not work without it."""
FFMPEG_TIMEOUT_S: Final = 30.0


def examine() -> list[dict[str, Any]]:
    """
    Check what a scan needs.

    Returns:
        For each check its ``name``, its ``state`` (``ok``, ``warning`` for a protection or an addition that is missing,
        or ``problem`` if scans fail) and a sentence, ``detail``.
    """
    checks: list[tuple[str, Callable[[], tuple[State, str]]]] = [
        ("packages", _check_packages),
        ("checkpoints", lambda: check_checkpoints(PACKAGED_MODELS_DIR, DEFAULT_CHECKPOINT)),
        ("engine", _check_engine),
        ("ffmpeg", _check_ffmpeg),
        ("sandbox", lambda: describe_sandbox(sandbox())),
        ("local scan", _check_scan),
    ]
    return [run_check(name, check) for name, check in checks]


def run_check(name: str, check: Callable[[], tuple[State, str]]) -> dict[str, Any]:
    """Return the outcome of *check*; an error is a problem."""
    state: State
    try:
        state, detail = check()
    except Exception as error:  # noqa: BLE001 - whatever fails here is what the command is to find, and it is printed
        state, detail = "problem", f"{type(error).__name__}: {error}"
    return {"name": name, "state": state, "detail": detail}


def _check_packages() -> tuple[State, str]:
    found = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    for name, lost in OPTIONAL_PACKAGES.items():
        try:
            found += f", {name} {version(name)}"
        except PackageNotFoundError:
            return "warning", f"{found}; without {name} {lost}"
    return "ok", found


def check_checkpoints(models_dir: Path, default: str) -> tuple[State, str]:
    """
    Load each checkpoint below *models_dir*, which compares the digest of its weights with its manifest.

    Raises:
        ModelError: The manifest of the checkpoint *default* cannot be read.
    """
    said, refused = [], check_manifests(models_dir, default)
    for manifest in list_manifests(models_dir).values():
        try:
            load_checkpoint(models_dir, manifest.name)
        except ModelError as error:
            refused.append(str(error))
        else:
            said.append(f"{manifest.name} {manifest.version} (weights sha256 {manifest.weights.sha256})")
    return ("problem" if refused else "ok"), "; ".join([*refused, *said])


def _check_engine() -> tuple[State, str]:
    engine = Detector.load(PACKAGED_MODELS_DIR, DEFAULT_CHECKPOINT, "cpu").engine.description
    said = f"{engine} on {available_cores()} cores of the processor"
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))
        said += f"; GPUs that workers with 'worker.device: cuda' use: {names}"
    return "ok", said


def _check_ffmpeg() -> tuple[State, str]:
    path = find_ffmpeg()
    done = subprocess.run([path, "-version"], capture_output=True, text=True, timeout=FFMPEG_TIMEOUT_S, check=True)
    return "ok", f"{' '.join(done.stdout.split()[:3])} at {path}"


def describe_sandbox(found: Sandbox) -> tuple[State, str]:
    """Describe what isolates decoders on this system, and what does not; scans work without it."""
    missing = [] if found.dies_with_parent else ["setpriv (util-linux)"]
    missing += [] if found.has_no_network else ["network namespaces (unshare, as root or with user namespaces)"]
    said = f"decoders run with: {found.describe()}"
    return ("warning", f"{said}; missing on this system: {', '.join(missing)}") if missing else ("ok", said)


def _check_scan() -> tuple[State, str]:
    """Scan a video of one second without a face, which runs decoder, detector and judgement."""
    with tempfile.TemporaryDirectory(prefix="deepfakestream-") as folder:
        clip = Path(folder, "clip.mkv")
        pattern = ["-f", "lavfi", "-i", "testsrc=size=160x120:rate=4:duration=1"]
        command = [find_ffmpeg(), "-nostdin", "-loglevel", "error", *pattern, "-c:v", "mjpeg", "-f", "matroska"]
        subprocess.run([*command, str(clip)], capture_output=True, timeout=FFMPEG_TIMEOUT_S, check=True)
        document = scan(clip)
    outcome = f"{document['status']}, {document['verdict']} ({', '.join(document['reasons'])})"
    return ("ok" if document["verdict"] == "not_applicable" else "problem"), f"a video without faces: {outcome}"
