from statistics import fmean

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from shared.config import Limits
from shared.manifests import DEFAULT_CHECKPOINT, PACKAGED_MODELS_DIR, Scale
from tests.clips import astronaut, hopper
from tests.unit.worker.training.rule_data import MANIFEST, Darkness, checkpoint, face, logit, medium
from worker.media.frames import read_frames
from worker.media.probe import probe
from worker.media.segments import plan_segments
from worker.model.checkpoint import load_checkpoint
from worker.pipeline.detector import Detector
from worker.training.data.cache import CropCache
from worker.training.errors import TrainingError
from worker.training.scoring.scored_media import draw_media, score_caches, score_crops, select_faces

SETS = ("train", "validation", "test")


def test_a_video_scores_as_the_service_scores_it(judged):
    judge = checkpoint(Darkness(middle=0.45, slope=10.0))
    (scored,) = score_caches(judge, [judged.source().cache], sets=["validation"])
    detector, path = Detector(judge, "cpu"), judged.root / "validation/real/clip.mp4"
    facts = probe(path, Limits().for_media())
    segments = []
    for part in plan_segments(facts.duration_s, 2.0):
        frames = read_frames(path, facts, start_s=part.start_s, end_s=part.end_s, sample_fps=2.0, timeout_s=60.0)
        segments.append(detector.score_segment(frames))
    assert [len(segment.people) for segment in segments] == [2, 2, 2]
    assert {(one.segment, one.person) for one in scored.faces} == {(s, p) for s in range(3) for p in range(2)}
    assert len(scored.faces) == sum(segment.faces_scored for segment in segments)
    assert scored.fake_score(Scale(1.0)) == pytest.approx(fmean(segment.fake_score for segment in segments), abs=0.005)
    people = [person.fake_score for person in segments[0].people]
    assert max(people) - min(people) > 0.1


def test_a_medium_is_the_mean_of_its_segments_highest_people():
    faces = [
        face(logit(0.2), segment=0, person=0, time_s=0.0),
        face(logit(0.6), segment=0, person=1, time_s=0.0),
        face(logit(0.8), segment=0, person=1, time_s=0.5),
        face(logit(0.1), segment=1, person=0, time_s=2.0),
    ]
    scored = medium("real", *faces, is_video=True)
    assert scored.fake_score(Scale(1.0)) == pytest.approx((0.7 + 0.1) / 2, abs=1e-6)
    assert scored.frame_scores(Scale(1.0)) == pytest.approx([0.6, 0.8, 0.1])


def test_temperature_divides_logits():
    scored = medium("fake", face(2.0))
    assert scored.fake_score(Scale(2.0)) == pytest.approx(1 / (1 + np.exp(-1.0)), abs=1e-6)
    assert medium("fake", face(5000.0)).fake_score(Scale(0.001)) == 1.0


@pytest.mark.parametrize("sets", [["test"], ["validation"], ["train"], SETS], ids=str)
def test_only_media_of_the_requested_sets_are_scored(judged, sets):
    scored = score_caches(checkpoint(Darkness()), [judged.source().cache], sets=sets)
    assert {one.set for one in scored} == {"test", "validation"}.intersection(sets)
    assert len(scored) == 8 * ("test" in sets) + ("validation" in sets)


def test_the_size_of_a_batch_changes_nothing(judged):
    caches = [judged.source().cache]
    at_once, singly = (score_caches(checkpoint(Darkness()), caches, sets=SETS, batch=batch) for batch in (64, 1))
    assert [one.key for one in at_once] == [one.key for one in singly]
    logits = [[found.logit for one in scored for found in one.faces] for scored in (at_once, singly)]
    assert logits[0] == pytest.approx(logits[1], abs=1e-4)


def test_faces_are_taken_at_the_checkpoints_sampling(judged):
    cache = CropCache(judged.source().cache)

    def times(sample_fps, max_faces=None):
        sampling = MANIFEST.sampling.model_copy(update={"sample_fps": sample_fps})
        manifest = MANIFEST.model_copy(update={"sampling": sampling})
        (faces,) = select_faces(cache, ["validation"], manifest, max_faces)
        return [found.time_s for found in faces]

    assert sorted(set(times(2.0))) == pytest.approx(np.arange(12) / 2)
    assert sorted(set(times(1.0))) == pytest.approx(np.arange(6.0))
    assert len(times(2.0, 3)) == 3
    assert times(2.0, 1)[0] == pytest.approx(3.0)


@pytest.mark.parametrize("limit", [{"min_face_px": 400}, {"min_sharpness": 1e6}], ids=str)
def test_faces_below_the_quality_limits_are_left_out(judged, limit):
    preprocessing = MANIFEST.preprocessing.model_copy(update=limit)
    manifest = MANIFEST.model_copy(update={"preprocessing": preprocessing})
    assert score_caches(checkpoint(Darkness(), manifest), [judged.source().cache], sets=SETS) == []


def test_a_face_carries_its_brightness_and_size(judged):
    scored = score_caches(checkpoint(Darkness()), [judged.source().cache], sets=["test"])
    by_key = {one.key: one for one in scored}
    real, fake = (by_key[f"test/{label}/{label}-hopper-False.png"] for label in ("real", "fake"))
    assert fake.luma == pytest.approx(real.luma / 3, rel=0.05)
    assert 100 < real.size_px < 200


def test_a_logit_that_is_not_a_number_is_an_error():
    class Broken(nn.Module):
        def forward(self, faces):
            return torch.full((len(faces),), torch.nan)

    with pytest.raises(TrainingError, match="not a number"):
        score_crops(Broken(), [np.zeros((64, 64, 3), np.uint8)], "cpu")


@torch.inference_mode()
def test_the_engine_agrees_with_the_network():
    shipped = load_checkpoint(PACKAGED_MODELS_DIR, DEFAULT_CHECKPOINT)
    side = shipped.manifest.preprocessing.crop_size_px
    crops = [
        cv2.GaussianBlur(cv2.resize(picture, (side, side)), (0, 0), sigma)
        for picture in (astronaut(), hopper())
        for sigma in (0.1, 1.0, 2.0)
    ]
    wanted = shipped.network(torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255.0)
    # More than one batch, and a last one that is smaller.
    found = score_crops(shipped.network, crops, "cpu", batch=4)
    assert found == pytest.approx(wanted.tolist(), abs=5e-3)
    assert np.ptp(found) > 0.5


def test_a_network_is_compiled_once():
    class Counting(Darkness):
        calls = 0

        def forward(self, faces):
            Counting.calls += 1
            return super().forward(faces)

    dark, bright = Counting().eval(), Counting(slope=-40.0).eval()
    crops = [np.zeros((64, 64, 3), np.uint8)] * 3
    first, second, inverted = (score_crops(network, crops, "cpu", batch=2) for network in (dark, dark, bright))
    assert Counting.calls == 2
    assert first == second == [-value for value in inverted]


def test_no_crops_have_no_logits():
    assert score_crops(Darkness(), [], "cpu") == []


def test_drawn_media_are_balanced_and_deterministic():
    media = [medium(label, face(0.0), key=f"{label}{row}") for label in ("real", "fake") for row in range(9)]
    drawn = draw_media(media, 3)
    assert [one.label for one in drawn] == ["fake"] * 3 + ["real"] * 3
    assert {one.key for one in draw_media(media[::-1], 3)} == {one.key for one in drawn}
