"""
MTCNN: a cascade of three small networks that detects faces and five landmarks of each.

Zhang, Zhang, Li and Qiao, "Joint Face Detection and Alignment using Multi-task Cascaded Convolutional Networks",
IEEE Signal Processing Letters 2016. The networks and weights are those of facenet-pytorch. The cascade is implemented
here and finds the same faces as ``facenet_pytorch.MTCNN.detect``. It is batched over all given frames; these may be of
several sizes, without faces, or smaller than the minimum face size.
"""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from worker.detection.faces import DetectedFace
from worker.detection.networks import ONet, Proposals, RNet, from_channels_last
from worker.detection.resampling import PIXEL_OFFSET, PIXEL_SCALE, CPUResampler, Picture, Resampler, TorchResampler
from worker.detection.suppression import suppress_overlaps
from worker.inference import Engine, EngineInput, make_engine

CELL_PX: Final = 12
"""Side of P-Net's window."""
STRIDE_PX: Final = 2
PYRAMID_FACTOR: Final = 0.709
REFINED_PX: Final = 24
FINISHED_PX: Final = 48
"""Sides of the inputs of R-Net and O-Net."""
CANDIDATE_BATCH: Final = 512
"""Batch size of R-Net and O-Net."""
MIN_FACE_PX: Final = 20
HALVED_FROM_PIXELS: Final = 4 * 3840 * 2160
"""Frames with this many pixels or more are searched at half their size: their summed-area tables would take 400 MB."""


class MTCNN:
    """
    Detector of faces of at least *min_face_px*.

    Args:
        min_face_px: Smallest side of a face, 20 or more. Halving it makes detection about four times as slow.
        thresholds: Probabilities that a candidate needs to pass P-Net, R-Net and O-Net.
        device: Device of the networks and of resampling.
    """

    def __init__(
        self,
        *,
        min_face_px: int = 40,
        thresholds: tuple[float, float, float] = (0.6, 0.7, 0.7),
        device: str | torch.device = "cpu",
    ) -> None:
        self.min_face_px = min_face_px
        self.thresholds = thresholds
        self.device = torch.device(device)
        self._pnet = self._prepare(Proposals(), 64)
        self._rnet = self._prepare(RNet(), REFINED_PX)
        self._onet = self._prepare(ONet(), FINISHED_PX)
        # OpenCV and numpy release the GIL while they work.
        self._threads = ThreadPoolExecutor(torch.get_num_threads(), "mtcnn")
        self._memory = threading.local()

    def make_resampler(self, frames: Sequence[Picture]) -> Resampler:
        """Return a resampler of *frames*, (H, W, 3) uint8 RGB each, for the detector's device."""
        if self.device.type != "cpu":
            return TorchResampler(frames, self.device)
        if not hasattr(self._memory, "tables"):
            self._memory.tables = []
        return CPUResampler(frames, self._threads.map, self._memory.tables)

    def _prepare(self, network: nn.Module, side_px: int) -> Engine:
        network = from_channels_last(network.eval().requires_grad_(requires_grad=False), self.device)
        network = network.to(self.device).to(memory_format=torch.channels_last)
        # The resampler's output is in the networks' range already.
        example = np.zeros((2, side_px, side_px, 3), np.float32)
        return make_engine(network, example, self.device, "float32")

    @torch.inference_mode()
    def detect(self, frames: Sequence[Picture]) -> list[list[DetectedFace]]:
        """
        Detect the faces in each frame.

        Args:
            frames: (H, W, 3) uint8 RGB each; sizes may differ.

        Returns:
            The faces of each frame, largest first.
        """
        found: list[list[DetectedFace]] = [[] for _ in frames]
        by_size: dict[tuple[int, ...], list[int]] = {}
        for index, frame in enumerate(frames):
            by_size.setdefault(frame.shape, []).append(index)
        for indexes in by_size.values():
            for index, faces in zip(indexes, self._detect([frames[i] for i in indexes]), strict=True):
                found[index] = faces
        return found

    def estimate_probabilities(self, pictures: Picture) -> NDArray[np.float32]:
        """
        Estimate the probability that each of *pictures* shows an upright face that fills it.

        Args:
            pictures: (N, 48, 48, 3) uint8 RGB.

        Returns:
            O-Net's probabilities, (N,).
        """
        parts = []
        for start in range(0, len(pictures), CANDIDATE_BATCH):
            values = (pictures[start : start + CANDIDATE_BATCH].astype(np.float32) - PIXEL_OFFSET) / PIXEL_SCALE
            parts.append(self._onet.run(values)[2][:, 1])
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def _detect(self, frames: list[Picture]) -> list[list[DetectedFace]]:
        """Detect the faces in each frame, for frames of one size."""
        found: list[list[DetectedFace]] = [[] for _ in frames]
        shrink_factor = self._choose_shrink_factor(frames[0])
        resampler = self.make_resampler([_shrink(frame, shrink_factor) for frame in frames])
        boxes, owners = self._propose(resampler, shrink_factor)
        if len(boxes):
            boxes, owners = self._refine(resampler, boxes, owners)
        if len(boxes):
            for owner, face in self._finish(resampler, boxes, owners):
                found[owner].append(_enlarge(face, shrink_factor))
        for faces in found:
            faces.sort(key=lambda face: face.area_px, reverse=True)
        return found

    def _choose_shrink_factor(self, frame: Picture) -> int:
        """
        Return the factor by which frames are shrunk before detection: 2 for very large frames, otherwise 1.

        P-Net's input stays the same, since it searches for faces of 40 px in a picture of three tenths the size anyway.
        """
        is_large = frame.shape[0] * frame.shape[1] >= HALVED_FROM_PIXELS
        return 2 if is_large and self.min_face_px >= 2 * MIN_FACE_PX else 1

    def _scales(self, height_px: int, width_px: int, shrink_factor: int = 1) -> list[float]:
        """Return the scales of the image pyramid; at each, P-Net's window detects faces of another size."""
        scale = CELL_PX / self.min_face_px * shrink_factor
        scales = []
        while min(height_px, width_px) * scale >= CELL_PX:
            scales.append(scale)
            scale *= PYRAMID_FACTOR
        return scales

    def _propose(self, resampler: Resampler, shrink_factor: int = 1) -> tuple[Tensor, Tensor]:
        """Run the first stage; return (N, 5) square candidate boxes with scores, and the (N,) frame of each."""
        scales = self._scales(resampler.height_px, resampler.width_px, shrink_factor)
        if not scales:
            return torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64)
        all_boxes, all_owners, all_levels = [], [], []
        for number, (boxes, owners) in enumerate(self._select_windows(resampler.pyramid(scales), scales)):
            all_boxes.append(boxes)
            all_owners.append(owners)
            all_levels.append(torch.full_like(owners, number))
        boxes, owners, levels = torch.cat(all_boxes), torch.cat(all_owners), torch.cat(all_levels)
        # First within each pyramid level of each frame, then within each frame.
        kept = suppress_overlaps(boxes[:, :4], boxes[:, 4], owners * len(scales) + levels, 0.5)
        boxes, owners = boxes[kept], owners[kept]
        kept = suppress_overlaps(boxes[:, :4], boxes[:, 4], owners, 0.7)
        boxes, owners = boxes[kept], owners[kept]
        # P-Net's offsets are shares of the box; unlike the later stages it does not count the last pixel.
        width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
        sides = torch.stack([width, height, width, height], dim=1)
        moved = torch.cat([boxes[:, :4] + boxes[:, 5:9] * sides, boxes[:, 4:5]], dim=1)
        return _make_square(moved), owners

    def _select_windows(
        self, levels: Sequence[EngineInput], scales: Sequence[float]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Run P-Net on each level of the pyramid, and yield the boxes and the frames of the windows that passed."""
        if self._pnet.run_on_device is None:
            for scale, level in zip(scales, levels, strict=True):
                [answers] = self._pnet.run(level)
                yield _select_windows(answers, scale, self.thresholds[0])
            return
        # All levels are queued before the first answer is waited for, and only what passed is copied to the host.
        kept = [self._pnet.run_on_device(level)[0] for level in levels]
        yield from _select_windows_on_device(kept, scales, self.thresholds[0])

    def _refine(self, resampler: Resampler, boxes: Tensor, owners: Tensor) -> tuple[Tensor, Tensor]:
        """Run the second stage: R-Net rejects most candidates and adjusts the boxes of the others."""
        boxes, owners, (offsets, probabilities) = self._run_stage(self._rnet, REFINED_PX, resampler, boxes, owners)
        passed = probabilities[:, 1] > self.thresholds[1]
        boxes = torch.cat([boxes[passed, :4], probabilities[passed, 1:]], dim=1)
        owners, offsets = owners[passed], offsets[passed]
        kept = suppress_overlaps(boxes[:, :4], boxes[:, 4], owners, 0.7)
        return _make_square(_apply_offsets(boxes[kept], offsets[kept])), owners[kept]

    def _finish(self, resampler: Resampler, boxes: Tensor, owners: Tensor) -> list[tuple[int, DetectedFace]]:
        """Run the third stage: O-Net rejects more candidates and locates the landmarks."""
        boxes, owners, (offsets, points, probabilities) = self._run_stage(
            self._onet, FINISHED_PX, resampler, boxes, owners
        )
        passed = probabilities[:, 1] > self.thresholds[2]
        boxes = torch.cat([boxes[passed, :4], probabilities[passed, 1:]], dim=1)
        owners, offsets, points = owners[passed], offsets[passed], points[passed]
        sides = boxes[:, 2:4] - boxes[:, :2] + 1
        landmarks = torch.stack(
            [
                points[:, :5] * sides[:, :1] + boxes[:, :1] - 1,
                points[:, 5:] * sides[:, 1:] + boxes[:, 1:2] - 1,
            ],
            dim=2,
        )  # (N, 5, 2)
        found = _apply_offsets(boxes, offsets).numpy()
        places = landmarks.numpy()
        frame_of = owners.numpy()
        faces = []
        for owner in np.unique(frame_of):
            of_frame = np.flatnonzero(frame_of == owner)
            for index in of_frame[_suppress_contained(found[of_frame], 0.7)]:
                left, top, right, bottom, confidence = (float(value) for value in found[index])
                face = DetectedFace(
                    box_px=(left, top, right, bottom),
                    landmarks_px=tuple((float(x), float(y)) for x, y in places[index]),
                    confidence=confidence,
                )
                faces.append((int(owner), face))
        return faces

    def _run_stage(
        self, network: Engine, side_px: int, resampler: Resampler, boxes: Tensor, owners: Tensor
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """
        Run *network* on the crops of *boxes*.

        Returns:
            The boxes that have a pixel inside their frame, the frame of each, and the network's outputs for them.
        """
        edges = boxes[:, :4].trunc().to(torch.int64).numpy()
        begins = np.maximum(edges[:, :2], 1) - 1
        ends = np.minimum(edges[:, 2:], (resampler.width_px, resampler.height_px))
        inside = np.flatnonzero((ends > begins).all(axis=1))
        outputs = []
        for start in range(0, len(inside), CANDIDATE_BATCH):
            rows = inside[start : start + CANDIDATE_BATCH]
            crops = resampler.crops(np.concatenate([begins, ends], axis=1)[rows], owners.numpy()[rows], side_px)
            outputs.append(network.run(crops))
        if not outputs:
            # The shapes of empty outputs are those of the network.
            example = network.run(np.zeros((1, side_px, side_px, 3), np.float32))
            outputs = [tuple(part[:0] for part in example)]
        answers = [torch.from_numpy(np.concatenate(parts)) for parts in zip(*outputs, strict=True)]
        kept = torch.from_numpy(inside)
        return boxes[kept], owners[kept], answers


def _shrink(frame: Picture, shrink_factor: int) -> Picture:
    if shrink_factor == 1:
        return frame
    size = frame.shape[1] // shrink_factor, frame.shape[0] // shrink_factor
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)


def _enlarge(face: DetectedFace, shrink_factor: int) -> DetectedFace:
    """Return the face in pixels of the frame before it was shrunk."""
    if shrink_factor == 1:
        return face
    left, top, right, bottom = (value * shrink_factor for value in face.box_px)
    marks = tuple((x * shrink_factor, y * shrink_factor) for x, y in face.landmarks_px)
    return DetectedFace((left, top, right, bottom), marks, face.confidence)


def _select_windows(answers: NDArray[np.float32], scale: float, threshold: float) -> tuple[Tensor, Tensor]:
    """
    Select P-Net's windows of at least the probability *threshold*.

    Returns:
        (N, 9) box, score and offsets of each, and the (N,) frame of each.
    """
    owners, rows, columns = np.nonzero(answers[:, 0] >= _find_min_logit(threshold))
    return _locate_windows(owners, rows, columns, answers[owners, :, rows, columns], scale)


def _select_windows_on_device(
    answers: Sequence[Tensor], scales: Sequence[float], threshold: float
) -> Iterator[tuple[Tensor, Tensor]]:
    """Select the windows of all levels where P-Net's answers are; yield for each what ``_select_windows`` returns."""
    flat = torch.cat([level.permute(0, 2, 3, 1).reshape(-1, level.shape[1]) for level in answers])
    [places] = torch.where(flat[:, 0] >= _find_min_logit(threshold))
    passed, flat_indexes = flat[places].numpy(force=True), places.numpy(force=True)
    begin = 0
    for level, scale in zip(answers, scales, strict=True):
        count, _, height, width = level.shape
        end = begin + count * height * width
        part = slice(*np.searchsorted(flat_indexes, (begin, end)))
        owners, rows, columns = np.unravel_index(flat_indexes[part] - begin, (count, height, width))
        yield _locate_windows(owners, rows, columns, passed[part], scale)
        begin = end


def _find_min_logit(threshold: float) -> float:
    return torch.logit(torch.tensor(threshold, dtype=torch.float64)).item()


def _locate_windows(
    owners: NDArray[np.int64],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    passed: NDArray[np.float32],
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Return the boxes with scores and offsets of windows at *rows* and *columns*, and their frames."""
    corner = np.stack([columns, rows], axis=1).astype(np.float32)
    begin = np.floor((STRIDE_PX * corner + 1) / np.float32(scale))
    end = np.floor((STRIDE_PX * corner + CELL_PX) / np.float32(scale))
    boxes = torch.from_numpy(np.concatenate([begin, end, passed], axis=1))
    boxes[:, 4].sigmoid_()
    return boxes, torch.from_numpy(owners)


def _make_square(boxes: Tensor) -> Tensor:
    """Enlarge boxes about their centres to squares of their longer side."""
    sides = boxes[:, 2:4] - boxes[:, :2]
    longest = sides.amax(dim=1, keepdim=True)
    begin = boxes[:, :2] + sides * 0.5 - longest * 0.5
    return torch.cat([begin, begin + longest, boxes[:, 4:]], dim=1)


def _apply_offsets(boxes: Tensor, offsets: Tensor) -> Tensor:
    """Move the edges of boxes by the offsets of R-Net or O-Net, which are shares of their sides."""
    sides = (boxes[:, 2:4] - boxes[:, :2] + 1).repeat(1, 2)
    return torch.cat([boxes[:, :4] + offsets * sides, boxes[:, 4:]], dim=1)


def _suppress_contained(boxes: NDArray[np.float32], threshold: float) -> list[int]:
    """
    Run non-maximum suppression by overlap over the smaller box, which also removes a face inside a face.

    Args:
        boxes: (N, 5) boxes and scores of one frame.

    Returns:
        Rows to keep, best first.
    """
    left, top, right, bottom, score = boxes.T
    area = (right - left + 1) * (bottom - top + 1)
    rest = np.argsort(score)
    kept = []
    while len(rest):
        best, rest = int(rest[-1]), rest[:-1]
        kept.append(best)
        width = np.minimum(right[best], right[rest]) - np.maximum(left[best], left[rest]) + 1
        height = np.minimum(bottom[best], bottom[rest]) - np.maximum(top[best], top[rest]) + 1
        shared = np.maximum(0, width) * np.maximum(0, height)
        rest = rest[shared / np.minimum(area[best], area[rest]) <= threshold]
    return kept
