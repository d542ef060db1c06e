import facenet_pytorch
import numpy as np
import pytest
import torch

from shared.containers import MediaLimits
from tests.clips import astronaut, hopper, scene
from worker import inference
from worker.detection import mtcnn as module
from worker.detection.mtcnn import MTCNN
from worker.detection.resampling import TorchResampler
from worker.media.frames import read_frames
from worker.media.probe import probe

MIN_FACE_PX = 40
LIMITS = MediaLimits(max_bytes=2**31, max_duration_s=600.0, max_pixels=4096 * 4096, max_frame_rate=240.0)


@pytest.fixture(scope="module")
def detector():
    return MTCNN(min_face_px=MIN_FACE_PX)


@pytest.fixture(scope="module")
def reference():
    return facenet_pytorch.MTCNN(min_face_size=MIN_FACE_PX, keep_all=True)


def overlap(one, other):
    """Return the intersection over union of two boxes."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(0.0, width) * max(0.0, height)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return shared / (sum(areas) - shared)


def agreement(detector, reference, frames):
    """Return recall and precision of *detector* for faces of at least 40 px, and the number of faces."""
    found = wanted = right = confirmed = 0
    for ours, frame in zip(detector.detect(frames), frames, strict=True):
        theirs = reference.detect(frame)[0]
        theirs = [] if theirs is None else list(theirs)
        boxes = [face.box_px for face in ours]
        big = [box for box in theirs if min(box[2] - box[0], box[3] - box[1]) >= MIN_FACE_PX]
        ours_big = [box for box in boxes if min(box[2] - box[0], box[3] - box[1]) >= MIN_FACE_PX]
        wanted += len(big)
        found += sum(any(overlap(box, actual) >= 0.5 for actual in boxes) for box in big)
        right += len(ours_big)
        confirmed += sum(any(overlap(box, other) >= 0.5 for other in theirs) for box in ours_big)
    return found / wanted, confirmed / right, wanted


def test_it_finds_the_same_faces_as_facenet_pytorch_in_generated_scenes(detector, reference):
    frames = [
        scene(number, size=size, faces=faces)
        for size in ((320, 240), (640, 360), (1280, 720))
        for faces in ((astronaut(),), (hopper(),), (astronaut(), hopper()))
        for number in (0, 7)
    ]
    recall, precision, count = agreement(detector, reference, frames)
    assert count >= 20
    assert recall >= 0.99
    assert precision >= 0.99


@pytest.mark.shared_data
def test_it_finds_the_same_faces_as_facenet_pytorch_in_60_real_frames(detector, reference, research_data):
    frames = []
    for path in sorted((research_data / "videos").glob("*.mp4")):
        facts = probe(path, LIMITS)
        sampled = read_frames(path, facts, start_s=0.0, end_s=4.0, sample_fps=1.25, timeout_s=60)
        frames += [frame.pixels for frame in sampled]
    frames = frames[:60]
    assert len(frames) == 60
    recall, precision, count = agreement(detector, reference, frames)
    assert count >= 60
    assert recall >= 0.99
    assert precision >= 0.99


def test_faces_do_not_depend_on_the_batch(detector):
    frames = [scene(0), scene(9, faces=(hopper(),)), scene(3, faces=(astronaut(), hopper()), size=(640, 360))]
    together = detector.detect(frames)
    for frame, faces in zip(frames, together, strict=True):
        (alone,) = detector.detect([frame])
        assert len(alone) == len(faces)
        for one, other in zip(alone, faces, strict=True):
            assert one.box_px == pytest.approx(other.box_px, abs=0.01)


def test_landmarks_are_inside_the_face_with_eyes_above_the_mouth(detector):
    ((face,),) = detector.detect([scene(0)])
    left, top, right, bottom = face.box_px
    assert all(left <= x <= right and top <= y <= bottom for x, y in face.landmarks_px)
    eyes, mouth = face.landmarks_px[:2], face.landmarks_px[3:]
    assert max(y for _, y in eyes) < min(y for _, y in mouth)
    assert eyes[0][0] < eyes[1][0]
    assert 0.9 < face.confidence <= 1.0


@pytest.mark.parametrize(
    "shape", [(1, 1), (20, 20), (39, 500), (500, 39), (40, 40), (41, 300)], ids=lambda shape: f"{shape[0]}x{shape[1]}"
)
def test_frames_smaller_than_a_face_have_no_faces(detector, shape):
    assert detector.detect([np.full((*shape, 3), 90, np.uint8)]) == [[]]


def test_frames_with_and_without_faces_share_a_batch(detector):
    empty = scene(0, faces=())
    assert [len(faces) for faces in detector.detect([empty, scene(0), empty])] == [0, 1, 0]


def test_no_frames_have_no_faces(detector):
    assert detector.detect([]) == []


def test_the_largest_face_comes_first(detector):
    picture = scene(0, size=(640, 360), faces=(astronaut(), hopper())).copy()
    ((first, *rest),) = detector.detect([picture])
    assert rest
    assert all(first.area_px >= face.area_px for face in rest)


@pytest.fixture
def device_detector(monkeypatch):
    """Make a detector that works as on a GPU, but on the CPU."""
    cpu = torch.device("cpu")

    def make_engine(network, _example, _device, precision):
        return inference.make_torch_engine(network, cpu, precision)

    monkeypatch.setattr(module, "make_engine", make_engine)
    monkeypatch.setattr(MTCNN, "make_resampler", lambda _self, frames: TorchResampler(frames, cpu))
    return MTCNN(min_face_px=MIN_FACE_PX)


@pytest.mark.parametrize("way", ["detector", "device_detector"])
def test_boxes_and_confidences_match_the_reference(way, reference, request):
    chosen = request.getfixturevalue(way)
    frames = [scene(number, faces=(astronaut(), hopper()), size=(640, 360)) for number in range(4)]
    frames.append(scene(2, size=(320, 240)))
    for ours, frame in zip(chosen.detect(frames), frames, strict=True):
        theirs, confidences = reference.detect(frame)
        assert len(ours) == len(theirs) > 0
        for face, box, confidence in zip(ours, theirs, confidences, strict=True):
            assert face.box_px == pytest.approx(box, abs=0.05)
            assert face.confidence == pytest.approx(confidence, abs=1e-3)


def test_windows_selected_on_a_device_are_those_selected_on_the_host():
    rng = np.random.default_rng(3)
    answers = [rng.normal(size=(2, 5, *size)).astype(np.float32) for size in ((9, 14), (5, 8), (1, 1))]
    answers[1][:] = -9.0  # A level of which no window passes.
    scales = (0.3, 0.2, 0.1)
    found = list(module._select_windows_on_device([torch.from_numpy(level) for level in answers], scales, 0.6))
    assert [len(boxes) > 0 for boxes, _ in found[:2]] == [True, False]
    for (boxes, owners), level, scale in zip(found, answers, scales, strict=True):
        wanted_boxes, wanted_owners = module._select_windows(level, scale, 0.6)
        assert torch.equal(boxes, wanted_boxes)
        assert torch.equal(owners, wanted_owners)


@pytest.mark.gpu
def test_a_gpu_finds_the_same_faces(detector):
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    frames = [scene(number, faces=(astronaut(), hopper()), size=(640, 360)) for number in range(4)]
    on_gpu = MTCNN(min_face_px=MIN_FACE_PX, device="cuda").detect(frames)
    for ours, theirs in zip(detector.detect(frames), on_gpu, strict=True):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert overlap(one.box_px, other.box_px) > 0.98


def test_large_frames_are_searched_at_half_size_with_boxes_in_full_size(detector, monkeypatch):
    frames = [scene(number, size=(1280, 720), faces=(astronaut(), hopper())) for number in (0, 7)]
    wanted = detector.detect(frames)
    tables = []
    look = MTCNN.make_resampler
    monkeypatch.setattr(module, "HALVED_FROM_PIXELS", 1280 * 720)
    monkeypatch.setattr(MTCNN, "make_resampler", lambda self, given: tables.append(given[0].shape) or look(self, given))
    found = detector.detect(frames)
    assert tables == [(360, 640, 3)]
    for ours, theirs in zip(found, wanted, strict=True):
        assert len(ours) == len(theirs) == 2
        for one, other in zip(ours, theirs, strict=True):
            assert overlap(one.box_px, other.box_px) > 0.9
            assert np.abs(np.subtract(one.landmarks_px, other.landmarks_px)).max() < 8.0
