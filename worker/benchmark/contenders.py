"""
The contenders that are measured: a baseline pipeline, the service's pipeline, and lower bounds for both.

Each processes a video from the file to one score per face, with the same checkpoint, sampled frames, smallest face,
detector thresholds and crops. Only the service's pipeline skips blurred faces, so it may score fewer.
"""

import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import cv2
import facenet_pytorch
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from shared.config import Limits
from shared.manifests import Preprocessing, read_manifest
from worker.benchmark.errors import BenchmarkError
from worker.benchmark.run_setup import CEILING, YUNET, Setup
from worker.detection.faces import Box, crop_face
from worker.detection.mtcnn import MTCNN
from worker.inference import Engine, EngineInput, Outputs
from worker.media.ffmpeg import THREADS, find_ffmpeg
from worker.media.frames import Frame, read_frames, read_segments
from worker.media.probe import MediaFacts, probe
from worker.media.segments import plan_segments
from worker.model.checkpoint import load_checkpoint
from worker.pipeline.detector import FACE_BATCH, Detector, split_into_chunks
from worker.pipeline.scanning import scan_segments

TIMEOUT_S: Final = 3600.0
CEILING_BATCHES: Final = {"cpu": (1, 2, 4, 8, 16, 32, 64), "cuda": (1, 4, 16, 32, 64, 128, 256, 512, 1024)}
CEILING_S: Final = 0.5
"""How long the network alone runs on batches of each size."""

FindFaces = Callable[[NDArray[np.uint8]], list[Box]]
"""Takes an (H, W, 3) RGB frame."""


@dataclass(slots=True)
class Scan:
    """Counts and times of one scan."""

    frames: int = 0
    faces: int = 0
    """Number of scored faces."""
    stages_s: dict[str, float] = field(default_factory=dict)
    seconds: float | None = None
    """The time to report, if it is not the wall time of the whole scan."""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the block's wall time to the stage *name*."""
        began = time.perf_counter()
        yield
        self.stages_s[name] = self.stages_s.get(name, 0.0) + time.perf_counter() - began


class BaselinePipeline:
    """
    The straightforward pipeline: OpenCV decodes the video, facenet-pytorch's MTCNN detects faces frame by frame, and
    PyTorch runs the network on batches of crops with default options.
    """

    def __init__(self, setup: Setup) -> None:
        checkpoint = load_checkpoint(setup.models_dir, setup.model, setup.device)
        self._manifest = checkpoint.manifest
        self._device = torch.device(setup.device)
        self._network = checkpoint.network.to(memory_format=torch.contiguous_format)
        self._find_faces = self._make_detector(setup)

    def _make_detector(self, setup: Setup) -> FindFaces:
        """Return the function that finds the faces of one frame."""
        preprocessing = self._manifest.preprocessing
        mtcnn = _make_reference_mtcnn(preprocessing, setup.device)

        def find(frame: NDArray[np.uint8]) -> list[Box]:
            boxes, probabilities = mtcnn.detect(frame)
            found = zip([] if boxes is None else boxes, probabilities, strict=False)
            return [_make_box(box) for box, probability in found if probability >= preprocessing.min_confidence]

        return find

    @torch.inference_mode()
    def __call__(self, path: Path, _faces: int) -> Scan:
        """Scan *path*."""
        scan = Scan()
        preprocessing = self._manifest.preprocessing
        crops: list[NDArray[np.uint8]] = []
        for frame in self._sampled(path, scan):
            with scan.stage("detection"):
                boxes = self._find_faces(frame)
            with scan.stage("crops"):
                size, margin = preprocessing.crop_size_px, preprocessing.crop_margin
                crops += [crop_face(frame, box, size_px=size, margin=margin) for box in boxes]
        with scan.stage("classification"):
            for start in range(0, len(crops), FACE_BATCH):
                batch = torch.from_numpy(np.stack(crops[start : start + FACE_BATCH])).permute(0, 3, 1, 2)
                torch.sigmoid(self._network(batch.to(self._device).float() / 255.0)).tolist()
        scan.faces = len(crops)
        return scan

    def _sampled(self, path: Path, scan: Scan) -> Iterator[NDArray[np.uint8]]:
        """Yield the first frame of each interval of 1 / sample_fps seconds."""
        capture = cv2.VideoCapture(str(path))
        step_s = 1.0 / self._manifest.sampling.sample_fps
        fps = capture.get(cv2.CAP_PROP_FPS) or 25.0
        number, cell = 0, -1
        while True:
            with scan.stage("decoding"):
                if not capture.grab():
                    break
                current = int(number / fps / step_s + 1e-6)
                number += 1
                if current == cell:
                    continue
                cell = current
                _, picture = capture.retrieve()
                frame = np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)
            scan.frames += 1
            yield frame
        capture.release()


class YuNetPipeline(BaselinePipeline):
    """The straightforward pipeline with OpenCV's detector YuNet, with OpenCV's thresholds, on whole frames."""

    def _make_detector(self, setup: Setup) -> FindFaces:
        if setup.yunet is None:
            raise BenchmarkError("YuNet needs its file")
        net = cv2.FaceDetectorYN.create(str(setup.yunet), "", (0, 0))
        smallest_px = self._manifest.preprocessing.min_face_px

        def find(frame: NDArray[np.uint8]) -> list[Box]:
            net.setInputSize((frame.shape[1], frame.shape[0]))
            _, rows = net.detect(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
            # Each row begins with left, top, width and height; YuNet also finds smaller faces than are scored.
            found = [row[:4] for row in ([] if rows is None else rows) if max(row[2:4]) >= smallest_px]
            return [_make_box((left, top, left + width, top + height)) for left, top, width, height in found]

        return find


class ServedPipeline:
    """The pipeline of the service."""

    def __init__(self, setup: Setup) -> None:
        self._detector = Detector.load(setup.models_dir, setup.model, setup.device)

    def __call__(self, path: Path, _faces: int) -> Scan:
        """Scan *path*."""
        scan = Scan()
        sampling = self._detector.manifest.sampling
        facts = _probe(path)
        plan = plan_segments(facts.duration_s, sampling.segment_seconds, first_s=facts.first_s)
        results = scan_segments(self._detector, path, facts, plan, sample_fps=sampling.sample_fps, timeout_s=TIMEOUT_S)
        for result in results:
            scan.frames += result.frames_decoded
            scan.faces += result.faces_scored
        return scan


class _CropScorer:
    """Base of contenders that run the service's network on crops of noise."""

    def __init__(self, setup: Setup) -> None:
        self._detector = Detector.load(setup.models_dir, setup.model, setup.device)
        size = self._detector.manifest.preprocessing.crop_size_px
        self._crop = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)

    def _classify(self, scan: Scan, faces: int) -> None:
        scan.faces = faces
        with scan.stage("classification"):
            self._detector.score_crops([self._crop] * faces)


class Floor(_CropScorer):
    """The floor: decoding, then the network, one after the other, each with all cores."""

    def __call__(self, path: Path, faces: int) -> Scan:
        """Decode *path*, and score *faces* crops."""
        scan = Scan()
        step_s = 1.0 / self._detector.manifest.sampling.sample_fps
        chosen = f"select=isnan(prev_selected_t)+gt(floor(t/{step_s}+1e-6)\\,floor(prev_selected_t/{step_s}+1e-6))"
        command = [
            *(find_ffmpeg(), "-v", "error", "-nostdin", "-threads", str(THREADS), "-i", str(path)),
            *("-map", "0:V:0", "-vf", chosen, "-fps_mode", "passthrough", "-f", "null", "-"),
        ]
        with scan.stage("decoding"):
            subprocess.run(command, check=True)
        self._classify(scan, faces)
        return scan


class Ceiling:
    """
    The network alone, on batches of noise that are in the device's memory: the most faces a second that it can score.

    The reported time is that of the best size of a batch; ``stages_s`` has the seconds a face of every size.
    """

    def __init__(self, setup: Setup) -> None:
        self._engine = Detector.load(setup.models_dir, setup.model, setup.device).engine
        self._device = torch.device(setup.device)
        self._side = read_manifest(setup.models_dir / setup.model).preprocessing.crop_size_px

    def __call__(self, _path: Path, _faces: int) -> Scan:
        """Measure each size of a batch for ``CEILING_S``; sizes that do not fit the memory are left out."""
        scan = Scan()
        for size in CEILING_BATCHES[self._device.type]:
            try:
                count, seconds = self._measure(size)
            except torch.OutOfMemoryError:
                break
            scan.stages_s[str(size)] = seconds / count
            if scan.seconds is None or count / seconds > scan.faces / scan.seconds:
                scan.faces, scan.seconds = count, seconds
        return scan

    def _measure(self, size: int) -> tuple[int, float]:
        """Return the number of faces that were scored in batches of *size*, and the time."""
        noise = np.random.default_rng(0).integers(0, 256, (size, self._side, self._side, 3), np.uint8)
        batch = torch.from_numpy(noise).to(self._device)
        self._engine.run(batch)
        count, began = 0, time.perf_counter()
        while (seconds := time.perf_counter() - began) < CEILING_S or not count:
            self._engine.run(batch)
            count += size
        return count, seconds


class _RecordingMTCNN(MTCNN):
    """An MTCNN that records the calls of its networks, so that they can be repeated."""

    def __init__(self, preprocessing: Preprocessing, device: str) -> None:
        self.calls: list[Callable[[], object]] = []
        super().__init__(
            min_face_px=preprocessing.min_face_px, thresholds=preprocessing.detector_thresholds, device=device
        )

    def _prepare(self, network: nn.Module, side_px: int) -> Engine:
        engine = super()._prepare(network, side_px)

        def run(pictures: EngineInput) -> Outputs:
            kept = pictures.clone() if isinstance(pictures, torch.Tensor) else pictures.copy()
            self.calls.append(partial(engine.run, kept))
            return engine.run(pictures)

        return replace(engine, run=run, run_on_device=None)


class RequiredWork(_CropScorer):
    """
    The indispensable work of the service's pipeline, one part after the other: the probe, decoding to memory, the
    detector's networks on their recorded inputs, and the network on the crops. Everything between is left out: image
    pyramids, candidates, non-maximum suppression.
    """

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self._mtcnn = _RecordingMTCNN(self._detector.manifest.preprocessing, setup.device)
        self._path: Path | None = None
        self._share = 1.0

    def __call__(self, path: Path, faces: int) -> Scan:
        """Process *path*, and score *faces* crops."""
        if path != self._path:
            self._record(path)
        scan = Scan()
        with scan.stage("probe"):
            facts = _probe(path)
        with scan.stage("decoding"):
            scan.frames = sum(1 for _ in self._read(path, facts))
        with scan.stage("detection"):
            for call in self._mtcnn.calls:
                call()
        scan.stages_s["detection"] /= self._share
        self._classify(scan, faces)
        scan.seconds = sum(scan.stages_s.values())
        return scan

    def _read(self, path: Path, facts: MediaFacts) -> Iterator[Frame]:
        sampling = self._detector.manifest.sampling
        plan = plan_segments(facts.duration_s, sampling.segment_seconds, first_s=facts.first_s)
        frames = read_segments(path, facts, plan, sample_fps=sampling.sample_fps, timeout_s=TIMEOUT_S)
        return (frame for frame in frames if frame is not None)

    def _record(self, path: Path) -> None:
        """Record the networks' inputs for at most ``FRAMES`` frames, and the share of all frames that these are."""
        self._mtcnn.calls.clear()
        self._path, total, looked_at = path, 0, 0
        for chunk in split_into_chunks(self._read(path, _probe(path))):
            total += len(chunk)
            if looked_at < FRAMES:
                looked_at += len(chunk)
                self._mtcnn.detect([frame.pixels for frame in chunk])
        self._share = looked_at / total


class Detection:
    """
    Detection only, on frames in memory.

    Args:
        reference: Use facenet-pytorch's MTCNN, frame by frame, instead of the service's.
    """

    def __init__(self, setup: Setup, *, reference: bool) -> None:
        manifest = read_manifest(setup.models_dir / setup.model)
        self._sampling, preprocessing = manifest.sampling, manifest.preprocessing
        self._frames: list[NDArray[np.uint8]] = []
        self._path: Path | None = None
        self._detect: Callable[[], list[int]]
        if reference:
            reference_mtcnn = _make_reference_mtcnn(preprocessing, setup.device)
            self._detect = lambda: [_count(reference_mtcnn.detect(frame)[0]) for frame in self._frames]
        else:
            ours = MTCNN(
                min_face_px=preprocessing.min_face_px,
                thresholds=preprocessing.detector_thresholds,
                device=setup.device,
            )
            self._detect = lambda: [len(faces) for faces in ours.detect(self._frames)]

    @torch.inference_mode()
    def __call__(self, path: Path, _faces: int) -> Scan:
        """Detect faces in at most ``FRAMES`` sampled frames; reading them is not timed."""
        if path != self._path:
            facts = _probe(path)
            read = read_frames(
                path,
                facts,
                start_s=0.0,
                end_s=facts.duration_s or 0.0,
                sample_fps=self._sampling.sample_fps,
                timeout_s=TIMEOUT_S,
            )
            self._frames = [frame.pixels for frame, _ in zip(read, range(FRAMES), strict=False)]
            self._path = path
        scan = Scan(frames=len(self._frames))
        with scan.stage("detection"):
            scan.faces = sum(self._detect())
        scan.seconds = scan.stages_s["detection"]
        return scan


FRAMES: Final = 16
"""Number of frames on which detection is measured separately."""
CONTENDERS: Final[dict[str, Callable[[Setup], Callable[[Path, int], Scan]]]] = {
    "straightforward": BaselinePipeline,
    YUNET: YuNetPipeline,
    "ours": ServedPipeline,
    "floor": Floor,
    "indispensable": RequiredWork,
    "detection, facenet-pytorch": partial(Detection, reference=True),
    "detection, ours": partial(Detection, reference=False),
    CEILING: Ceiling,
}


def _make_reference_mtcnn(preprocessing: Preprocessing, device: str) -> facenet_pytorch.MTCNN:
    return facenet_pytorch.MTCNN(
        min_face_size=preprocessing.min_face_px,
        thresholds=list(preprocessing.detector_thresholds),
        keep_all=True,
        device=torch.device(device),
    )


def _make_box(edges: Iterable[Any]) -> Box:
    left, top, right, bottom = (float(edge) for edge in edges)
    return left, top, right, bottom


def read_duration_s(path: Path) -> float:
    """Return the length of the clip at *path*, in seconds."""
    return _probe(path).duration_s or 0.0


def _count(boxes: Any) -> int:
    return 0 if boxes is None else len(boxes)


def _probe(path: Path) -> MediaFacts:
    return probe(path, Limits().for_media())
