"""
MTCNN: a cascade of three small networks that finds faces and five landmarks in each.

Zhang, Zhang, Li and Qiao, "Joint Face Detection and Alignment using Multi-task Cascaded Convolutional Networks",
IEEE Signal Processing Letters 2016. The networks and weights are facenet-pytorch's; the cascade around them is
ours and finds the same faces as ``facenet_pytorch.MTCNN.detect``. It is batched over all frames that are given; and
frames without faces, frames of several sizes and frames below the minimum face size are nothing special.
"""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import cv2
import numpy as np
import torch
from facenet_pytorch.models.mtcnn import ONet, RNet
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.ops import batched_nms

from worker.detection.faces import DetectedFace
from worker.detection.networks import Proposals, from_last_channels
from worker.detection.views import PIXEL_MIDDLE, PIXEL_RANGE, DeviceViews, HostViews, Picture, Views
from worker.inference import Engine, make_engine

CELL_PX: Final = 12
"""Side of the window that P-Net judges."""
STRIDE_PX: Final = 2
PYRAMID_FACTOR: Final = 0.709
REFINED_PX: Final = 24
FINISHED_PX: Final = 48
"""Sides of the pictures that R- and O-Net see."""
CANDIDATE_BATCH: Final = 512
"""Candidates that R- and O-Net see at once."""
LEAST_FACE_PX: Final = 20
WHOLE_PIXELS: Final = 4 * 3840 * 2160
"""Frames of so many pixels, and larger ones, are looked at in half their size: their tables would take 400 MB each."""


class MTCNN:
    """
    Finds faces of at least *min_face_px* in frames.

    Args:
        min_face_px: Smallest side of a face, 20 or more. Halving it makes detection about four times as slow.
        thresholds: Probabilities that a candidate needs to pass P-, R- and O-Net.
        device: Where the networks run, and where frames are cut and shrunk.
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
        self._pnet = self._engine(Proposals(), 64)
        self._rnet = self._engine(RNet(), REFINED_PX)
        self._onet = self._engine(ONet(), FINISHED_PX)
        # OpenCV and numpy let go of the interpreter while they work.
        self._threads = ThreadPoolExecutor(torch.get_num_threads(), "mtcnn")
        self._memory = threading.local()

    def _look_at(self, frames: Sequence[Picture]) -> Views:
        if self.device.type != "cpu":
            return DeviceViews(frames, self.device)
        if not hasattr(self._memory, "tables"):
            self._memory.tables = []
        return HostViews(frames, self._threads.map, self._memory.tables)

    def _engine(self, network: nn.Module, side_px: int) -> Engine:
        network = from_last_channels(network.eval().requires_grad_(requires_grad=False), self.device)
        network = network.to(self.device).to(memory_format=torch.channels_last)
        # Views are in the networks' range already.
        example = np.zeros((2, side_px, side_px, 3), np.float32)
        return make_engine(network, example, self.device, "float32")

    @torch.inference_mode()
    def detect(self, frames: Sequence[Picture]) -> list[list[DetectedFace]]:
        """
        Find the faces in each frame.

        Args:
            frames: (H, W, 3) uint8 RGB each; sizes may differ.

        Returns:
            For each frame, its faces, largest first.
        """
        found: list[list[DetectedFace]] = [[] for _ in frames]
        by_size: dict[tuple[int, ...], list[int]] = {}
        for index, frame in enumerate(frames):
            by_size.setdefault(frame.shape, []).append(index)
        for indexes in by_size.values():
            for index, faces in zip(indexes, self._detect([frames[i] for i in indexes]), strict=True):
                found[index] = faces
        return found

    def likelihoods(self, pictures: Picture) -> NDArray[np.float32]:
        """
        Say how likely each of *pictures* is a face that stands upright and fills it.

        Args:
            pictures: (N, 48, 48, 3) uint8 RGB.

        Returns:
            O-Net's probabilities, (N,).
        """
        parts = []
        for start in range(0, len(pictures), CANDIDATE_BATCH):
            values = (pictures[start : start + CANDIDATE_BATCH].astype(np.float32) - PIXEL_MIDDLE) / PIXEL_RANGE
            parts.append(self._onet.run(values)[2][:, 1])
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def _detect(self, frames: list[Picture]) -> list[list[DetectedFace]]:
        """Likewise, for frames of one size."""
        found: list[list[DetectedFace]] = [[] for _ in frames]
        shrinking = self._shrinking(frames[0])
        views = self._look_at([_shrunk(frame, shrinking) for frame in frames])
        boxes, owners = self._propose(views, shrinking)
        if len(boxes):
            boxes, owners = self._refine(views, boxes, owners)
        if len(boxes):
            for owner, face in self._finish(views, boxes, owners):
                found[owner].append(_enlarged(face, shrinking))
        for faces in found:
            faces.sort(key=lambda face: face.area_px, reverse=True)
        return found

    def _shrinking(self, frame: Picture) -> int:
        """
        By how much frames are shrunk before they are looked at.

        P-Net sees the same faces, at the same sizes: it looks for those of 40 px in a picture of three tenths the size.
        """
        is_large = frame.shape[0] * frame.shape[1] >= WHOLE_PIXELS
        return 2 if is_large and self.min_face_px >= 2 * LEAST_FACE_PX else 1

    def _scales(self, height_px: int, width_px: int, shrinking: int = 1) -> list[float]:
        """Factors of the image pyramid: at each, P-Net's window sees faces of another size."""
        scale = CELL_PX / self.min_face_px * shrinking
        scales = []
        while min(height_px, width_px) * scale >= CELL_PX:
            scales.append(scale)
            scale *= PYRAMID_FACTOR
        return scales

    def _propose(self, views: Views, shrinking: int = 1) -> tuple[Tensor, Tensor]:
        """First stage: (N, 5) square candidate boxes with their scores, and the (N,) frame of each."""
        scales = self._scales(views.height_px, views.width_px, shrinking)
        if not scales:
            return torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64)
        all_boxes, all_owners, all_levels = [], [], []
        for number, (scale, level) in enumerate(zip(scales, views.pyramid(scales), strict=True)):
            [answers] = self._pnet.run(level)
            boxes, owners = _windows(answers, scale, self.thresholds[0])
            all_boxes.append(boxes)
            all_owners.append(owners)
            all_levels.append(torch.full_like(owners, number))
        boxes, owners, levels = torch.cat(all_boxes), torch.cat(all_owners), torch.cat(all_levels)
        # Within each level of each frame first, then within each frame.
        kept = batched_nms(boxes[:, :4], boxes[:, 4], owners * len(scales) + levels, 0.5)
        boxes, owners = boxes[kept], owners[kept]
        kept = batched_nms(boxes[:, :4], boxes[:, 4], owners, 0.7)
        boxes, owners = boxes[kept], owners[kept]
        # P-Net's offsets are shares of the box; unlike the later stages it does not count the last pixel.
        width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
        sides = torch.stack([width, height, width, height], dim=1)
        moved = torch.cat([boxes[:, :4] + boxes[:, 5:9] * sides, boxes[:, 4:5]], dim=1)
        return _squared(moved), owners

    def _refine(self, views: Views, boxes: Tensor, owners: Tensor) -> tuple[Tensor, Tensor]:
        """Second stage: R-Net rejects most candidates and moves the others."""
        boxes, owners, (offsets, probabilities) = self._judge(self._rnet, REFINED_PX, views, boxes, owners)
        passed = probabilities[:, 1] > self.thresholds[1]
        boxes = torch.cat([boxes[passed, :4], probabilities[passed, 1:]], dim=1)
        owners, offsets = owners[passed], offsets[passed]
        kept = batched_nms(boxes[:, :4], boxes[:, 4], owners, 0.7)
        return _squared(_moved(boxes[kept], offsets[kept])), owners[kept]

    def _finish(self, views: Views, boxes: Tensor, owners: Tensor) -> list[tuple[int, DetectedFace]]:
        """Third stage: O-Net judges once more and places the landmarks."""
        boxes, owners, (offsets, points, probabilities) = self._judge(self._onet, FINISHED_PX, views, boxes, owners)
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
        found = _moved(boxes, offsets).numpy()
        places = landmarks.numpy()
        frame_of = owners.numpy()
        faces = []
        for owner in np.unique(frame_of):
            of_frame = np.flatnonzero(frame_of == owner)
            for index in of_frame[_distinct(found[of_frame], 0.7)]:
                left, top, right, bottom, confidence = (float(value) for value in found[index])
                face = DetectedFace(
                    box_px=(left, top, right, bottom),
                    landmarks_px=tuple((float(x), float(y)) for x, y in places[index]),
                    confidence=confidence,
                )
                faces.append((int(owner), face))
        return faces

    def _judge(
        self, network: Engine, side_px: int, views: Views, boxes: Tensor, owners: Tensor
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Show the pictures in *boxes* to *network*; boxes without a pixel inside their frame are dropped."""
        edges = boxes[:, :4].trunc().to(torch.int64).numpy()
        begins = np.maximum(edges[:, :2], 1) - 1
        ends = np.minimum(edges[:, 2:], (views.width_px, views.height_px))
        inside = np.flatnonzero((ends > begins).all(axis=1))
        outputs = []
        for start in range(0, len(inside), CANDIDATE_BATCH):
            rows = inside[start : start + CANDIDATE_BATCH]
            crops = views.crops(np.concatenate([begins, ends], axis=1)[rows], owners.numpy()[rows], side_px)
            outputs.append(network.run(crops))
        if not outputs:
            # The shapes of an empty answer are the network's own business.
            shown = network.run(np.zeros((1, side_px, side_px, 3), np.float32))
            outputs = [tuple(part[:0] for part in shown)]
        answers = [torch.from_numpy(np.concatenate(parts)) for parts in zip(*outputs, strict=True)]
        kept = torch.from_numpy(inside)
        return boxes[kept], owners[kept], answers


def _shrunk(frame: Picture, shrinking: int) -> Picture:
    if shrinking == 1:
        return frame
    size = frame.shape[1] // shrinking, frame.shape[0] // shrinking
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)


def _enlarged(face: DetectedFace, shrinking: int) -> DetectedFace:
    """The face in pixels of the frame that was shrunk."""
    if shrinking == 1:
        return face
    left, top, right, bottom = (value * shrinking for value in face.box_px)
    marks = tuple((x * shrinking, y * shrinking) for x, y in face.landmarks_px)
    return DetectedFace((left, top, right, bottom), marks, face.confidence)


def _windows(answers: NDArray[np.float32], scale: float, threshold: float) -> tuple[Tensor, Tensor]:
    """P-Net's windows of at least *threshold*: (N, 9) box, score and offsets, and the (N,) frame of each."""
    least = torch.logit(torch.tensor(threshold, dtype=torch.float64)).item()
    owners, rows, columns = np.nonzero(answers[:, 0] >= least)
    passed = answers[owners, :, rows, columns]
    corner = np.stack([columns, rows], axis=1).astype(np.float32)
    begin = np.floor((STRIDE_PX * corner + 1) / np.float32(scale))
    end = np.floor((STRIDE_PX * corner + CELL_PX) / np.float32(scale))
    boxes = torch.from_numpy(np.concatenate([begin, end, passed], axis=1))
    boxes[:, 4].sigmoid_()
    return boxes, torch.from_numpy(owners)


def _squared(boxes: Tensor) -> Tensor:
    """Boxes grown about their centres to squares of their longer side."""
    sides = boxes[:, 2:4] - boxes[:, :2]
    longest = sides.amax(dim=1, keepdim=True)
    begin = boxes[:, :2] + sides * 0.5 - longest * 0.5
    return torch.cat([begin, begin + longest, boxes[:, 4:]], dim=1)


def _moved(boxes: Tensor, offsets: Tensor) -> Tensor:
    """Boxes moved by what R- or O-Net says, in shares of their sides."""
    sides = (boxes[:, 2:4] - boxes[:, :2] + 1).repeat(1, 2)
    return torch.cat([boxes[:, :4] + offsets * sides, boxes[:, 4:]], dim=1)


def _distinct(boxes: NDArray[np.float32], threshold: float) -> list[int]:
    """
    Non-maximum suppression by overlap over the smaller box, so that a face inside a face goes.

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
