from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from api.embedded.demo_videos import ASTRONAUT_LANDMARKS, HOPPER_LANDMARKS, swap_face
from shared.config import Limits
from shared.errors import JobCancelledError, ModelError
from shared.evidence import Evidence
from shared.manifests import DEFAULT_CHECKPOINT, PACKAGED_MODELS_DIR
from tests.clips import astronaut, hopper, make_clip, scene
from tests.hdr import as_hdr
from worker.inference import Engine, make_engine
from worker.media.frames import Frame, read_frames
from worker.media.probe import probe
from worker.model.checkpoint import load_checkpoint, save_checkpoint
from worker.model.network import ForgeryNetwork
from worker.pipeline import detector as module
from worker.pipeline.detector import Detector
from worker.pipeline.scoring import score_job


@pytest.fixture(scope="module")
def detector():
    return Detector.load(PACKAGED_MODELS_DIR, DEFAULT_CHECKPOINT, "cpu")


def clip(count=6, faces=None, size=(320, 240)):
    return [Frame(number / 2, scene(number, faces=faces, size=size)) for number in range(count)]


def test_frames_become_people_faces_and_one_score(detector):
    result = detector.score_segment(clip(faces=(astronaut(), hopper()), size=(640, 360)))
    assert result.frames_decoded == 6
    assert len(result.people) == 2
    assert [len(person.faces) for person in result.people] == [6, 6]
    assert 0.0 <= result.fake_score <= 1.0
    assert result.fake_score == max(person.fake_score for person in result.people)
    assert {face.time_s for face in result.people[0].faces} == {number / 2 for number in range(6)}


def test_a_picture_of_each_persons_newest_face_is_made_if_asked_for(detector):
    frames = clip(count=3, faces=(astronaut(), hopper()), size=(640, 360))
    assert detector.score_segment(frames).newest_faces == ()
    result = detector.score_segment(frames, keeps_faces=True)
    assert [(face.person, face.time_s) for face in result.newest_faces] == [(0, 1.0), (1, 1.0)]
    moved = result.shifted(100.0)
    assert [face.time_s for face in moved.newest_faces] == [101.0, 101.0]
    first, second = (cv2.imdecode(np.frombuffer(face.jpeg, np.uint8), 1) for face in result.newest_faces)
    assert first.shape == second.shape == (112, 112, 3)
    assert np.abs(first.astype(int) - second).mean() > 10, "two people"
    assert "newest_faces" not in result.to_json()


def test_an_untrained_checkpoint_scores_but_never_decides(detector, tmp_path):
    torch.manual_seed(1)
    manifest = detector.manifest.model_copy(update={"name": "untrained", "trained": False})
    network = ForgeryNetwork(manifest.architecture, manifest.preprocessing.crop_size_px)
    save_checkpoint(tmp_path / "untrained", manifest, network, "# untrained\n")
    untrained = Detector.load(tmp_path, "untrained", "cpu")
    result = untrained.score_segment(clip())
    assert 0.0 <= result.fake_score <= 1.0
    judged = score_job([(result.fake_score, result.reasons)], 0, untrained.manifest, Evidence("image", 1, 1))
    assert (judged.fake_score, judged.verdict) == (result.fake_score, "inconclusive")
    assert judged.reasons == ("untrained_model",)


def test_boxes_are_in_pixels_of_the_full_size(detector):
    [frame] = clip(count=1)
    alike, smaller = (
        detector.score_segment([Frame(0.0, frame.pixels, scale)]).people[0].faces[0]
        for scale in ((1.0, 1.0), (2.0, 4.0))
    )
    assert np.array(smaller.box_px).reshape(2, 2) / (2, 4) == pytest.approx(np.array(alike.box_px).reshape(2, 2))
    assert smaller.landmarks_px == tuple((2 * x, 4 * y) for x, y in alike.landmarks_px)
    assert (smaller.size_px, smaller.fake_score) == (2 * alike.size_px, alike.fake_score)


@pytest.mark.parametrize("quarter_turns", [1, 2, 3])
def test_boxes_of_turned_faces_are_turned_back_before_scaling(detector, quarter_turns):
    [frame] = clip(count=1)
    [upright] = detector.score_segment([frame]).people[0].faces
    turned = np.ascontiguousarray(np.rot90(frame.pixels, quarter_turns))
    [face] = detector.score_segment([Frame(0.0, turned, (2.0, 4.0))]).people[0].faces
    assert face.turned_deg == (4 - quarter_turns) % 4 * 90
    assert face.fake_score == pytest.approx(upright.fake_score, abs=1e-4)
    # Scale back to the decoded picture, and turn back to the box that was found in the upright picture.
    corners = np.array(face.box_px).reshape(2, 2) / (2.0, 4.0)
    left, top, right, bottom = (round(value) for value in corners.ravel())
    mask = np.zeros(turned.shape[:2], np.bool_)
    mask[top:bottom, left:right] = True
    rows, columns = np.nonzero(np.rot90(mask, 4 - quarter_turns))
    found = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    assert found == pytest.approx(upright.box_px, abs=1.0)


def test_an_empty_scene_is_unscorable(detector):
    result = detector.score_segment(clip(faces=()))
    assert (result.fake_score, result.reasons, result.frames_decoded) == (None, ("no_face",), 6)


def test_no_frames_are_unscorable(detector):
    assert detector.score_segment([]).reasons == ("no_face",)


def test_scores_do_not_depend_on_how_frames_are_chunked(detector, monkeypatch):
    whole = detector.score_segment(clip())
    monkeypatch.setattr(module, "CHUNK_FRAMES", 1)
    monkeypatch.setattr(module, "FACE_BATCH", 1)
    single = detector.score_segment(clip())
    assert single.fake_score == pytest.approx(whole.fake_score, abs=1e-5)


@pytest.mark.parametrize("batch", [1, 4, 32])
def test_a_face_gets_the_score_of_its_own_crop(detector, monkeypatch, batch):
    seen = []

    def run(crops):
        seen.append(len(crops))
        return (crops.mean(axis=(1, 2, 3), dtype=np.float64).astype(np.float32) / 64.0,)

    monkeypatch.setattr(module, "FACE_BATCH", batch)
    monkeypatch.setattr(module, "CHUNK_FRAMES", 2)
    monkeypatch.setattr(detector, "engine", Engine(run, "torch", "float32"))
    monkeypatch.setattr(module, "score_segment", lambda faces, *_rest: faces)
    crops = []
    cut = module.crop_face
    monkeypatch.setattr(module, "crop_face", lambda *a, **k: crops.append(cut(*a, **k)) or crops[-1])
    # In every third frame the faces are too blurred to be scored.
    frames = clip(9, faces=(astronaut(), hopper()), size=(640, 360))
    frames = [
        Frame(frame.time_s, cv2.GaussianBlur(frame.pixels, (0, 0), 6)) if number % 3 == 1 else frame
        for number, frame in enumerate(frames)
    ]
    faces = detector.score_segment(frames)
    assert len(faces) == len(crops) > 12
    assert any(face.problem is not None for face in faces)
    assert max(seen) <= batch
    for face, crop in zip(faces, crops, strict=True):
        if face.problem is not None:
            assert face.fake_score is None
        else:
            wanted = detector.manifest.calibration.scale.probability(crop.mean() / 64.0)
            assert face.fake_score == pytest.approx(wanted, abs=1e-5)


def test_scores_are_those_of_the_network_in_float32(detector, monkeypatch):
    checkpoint = load_checkpoint(PACKAGED_MODELS_DIR, DEFAULT_CHECKPOINT)
    side = checkpoint.manifest.preprocessing.crop_size_px
    crops = [
        np.ascontiguousarray(picture[:side, :side]) for picture in (astronaut(), hopper(), scene(0), scene(5, faces=()))
    ]
    with torch.inference_mode():
        faces = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255.0
        scale = checkpoint.manifest.calibration.scale
        wanted = torch.sigmoid((checkpoint.network(faces) - scale.offset) / scale.temperature)
    assert detector.score_crops(crops) == pytest.approx(wanted.tolist(), abs=5e-3)
    monkeypatch.setattr(
        module, "best_engine", lambda network, given, device, _: make_engine(network, given, device, "float32")
    )
    assert Detector(checkpoint, "cpu").score_crops(crops) == pytest.approx(wanted.tolist(), abs=1e-5)


def test_a_precision_that_changes_scores_is_rejected(detector):
    exact = (np.array([0.0, 1.0, -3.0], np.float32),)
    step = np.float32(4 * detector.manifest.calibration.temperature * module.MAX_SCORE_CHANGE)  # At the steepest place.
    assert detector.is_close((exact[0] + 0.9 * step,), exact)
    assert not detector.is_close((exact[0] + 1.2 * step,), exact)


def test_the_result_names_the_engine(detector):
    assert detector.score_segment(clip()).to_json()["engine"] in {"openvino-float32", "openvino-bfloat16"}


def test_frames_are_consumed_in_chunks(detector):
    taken = []

    def frames():
        for frame in clip(40, faces=()):
            taken.append(frame.time_s)
            yield frame

    seen = []
    with pytest.raises(JobCancelledError):
        detector.score_segment(frames(), should_stop=lambda: seen.append(len(taken)) or len(seen) > 1)
    assert len(taken) <= 2 * module.CHUNK_FRAMES


def test_large_frames_make_small_chunks():
    frames = (Frame(0.0, np.zeros((4320, 7680, 3), np.uint8)) for _ in range(3))
    assert [len(chunk) for chunk in module.split_into_chunks(frames)] == [1, 1, 1]


def test_a_score_that_is_not_a_number_is_an_error(detector, monkeypatch):
    broken = Engine(lambda faces: (np.full(len(faces), np.nan, np.float32),), "torch", "float32")
    monkeypatch.setattr(detector, "engine", broken)
    with pytest.raises(ModelError, match="not a number"):
        detector.score_crops([astronaut()[:224, :224]])


def test_an_unknown_checkpoint_is_an_error():
    with pytest.raises(ModelError):
        Detector.load(PACKAGED_MODELS_DIR, "absent", "cpu")


def swapped():
    """Make a (280, 280, 3) uint8 RGB face with a part of another one, so that its score is neither near 0 nor 1."""
    # The landmarks are those of a larger portrait of Grace Hopper.
    portraits = Image.fromarray(hopper()), Image.fromarray(astronaut())
    return np.asarray(swap_face(portraits[0], HOPPER_LANDMARKS, portraits[1], ASTRONAUT_LANDMARKS))


@pytest.mark.parametrize("dynamic_range", ["pq", "hlg"])
def test_a_scene_gets_the_same_score_in_sdr_and_in_hdr(detector, tmp_path, dynamic_range):
    def score(path, **changes):
        facts = replace(probe(path, Limits().for_media()), **changes)
        frames = read_frames(path, facts, start_s=0.0, end_s=facts.duration_s, sample_fps=2.0, timeout_s=60.0)
        return detector.score_segment(frames).fake_score

    clip = {"fps": 2.0, "seconds": 2.0, "size": (480, 360), "faces": (swapped(),), "extra": ("-qp", "0")}
    sdr = make_clip(tmp_path / "sdr.mp4", **clip)
    hdr = as_hdr(tmp_path / "hdr.mp4", sdr, dynamic_range)
    wanted = score(sdr)
    mapped, unmapped = score(hdr), score(hdr, dynamic_range="sdr")
    assert mapped == pytest.approx(wanted, abs=0.08)
    # Interpreted as SDR the picture differs so much that a face may not be found.
    assert abs((unmapped or 0.0) - wanted) > abs(mapped - wanted)
