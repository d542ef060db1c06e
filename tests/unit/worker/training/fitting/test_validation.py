import json

import pytest
import torch
from torch import nn

from tests.unit.worker.training.tiny_runs import make_data, tiny, write_caches
from worker.training.errors import DataError
from worker.training.fitting.validation import ValidationFaces

CPU = torch.device("cpu")


class Redness(nn.Module):
    """Judges by colour, which is what the fakes of ``tinted`` differ in."""

    def __init__(self, sign=1.0):
        super().__init__()
        self.sign = sign

    def forward(self, faces):
        means = faces.float().mean(dim=(2, 3))
        return self.sign * (means[:, 0] - means[:, 1]) / means.sum(dim=1)


@pytest.fixture
def caches(tmp_path):
    return write_caches(make_data(tmp_path / "data", train=2, validation=8), tmp_path / "caches")


@pytest.mark.parametrize(("sign", "area"), [(1.0, 1.0), (-1.0, 0.0)], ids=["right", "wrong"])
def test_a_data_set_with_both_classes_is_measured_by_medium(sign, area, caches):
    measured = ValidationFaces(tiny(), caches).measure(Redness(sign), CPU)
    # An area of nothing is nothing, and not as if nobody had looked.
    assert measured["tinted_auc"] == area
    assert measured["stills_auc"] == area
    assert measured.keys() == {"tinted_auc", "stills_auc", "made_auc", "selection"}
    assert measured["selection"] == pytest.approx((measured["stills_auc"] + measured["made_auc"]) / 2)


def test_swapped_halves_are_compared_with_originals_and_all_real_videos(caches):
    for index in caches[0].glob("*.jsonl"):
        faces = [json.loads(line) for line in index.read_text().splitlines()]
        for face in faces:
            number = face["key"].rsplit("-", 1)[1]
            face["key"] = f"clip-{number}#{'right' if face['label'] == 'fake' else 'left'}"
            face["dataset"], face["is_video"] = "halves", True
            face["original"] = f"clip-{number}#left"
        index.write_text("".join(f"{json.dumps(face)}\n" for face in faces))
    right = ValidationFaces(tiny(), caches).measure(Redness(), CPU)
    assert (right["above"], right["halves_auc"], right["video_auc"]) == (1.0, 1.0, 1.0)
    assert "stills_auc" not in right
    wrong = ValidationFaces(tiny(), caches).measure(Redness(-1.0), CPU)
    assert (wrong["above"], wrong["halves_auc"], wrong["video_auc"]) == (0.0, 0.0, 0.0)


def test_validation_always_uses_the_same_faces_and_fakes(caches):
    faces = [ValidationFaces(tiny(seed=seed), caches) for seed in (1, 2)]
    measured = [each.measure(Redness(), CPU) for each in (*faces, faces[0])]
    assert measured[0] == measured[1] == measured[2]


def test_validation_without_a_real_face_is_an_error(tmp_path):
    caches = write_caches(make_data(tmp_path / "data", train=2, validation=0), tmp_path / "caches")
    with pytest.raises(DataError, match="validation"):
        ValidationFaces(tiny(), caches)


def test_states_are_chosen_by_the_mean_over_all_views(caches):
    views = ["clean", "crf35", "half"]
    recipe = tiny(validation={"every_images": 12, "blended_couples": 4, "views": views})
    measured = ValidationFaces(recipe, caches).measure(Redness(), CPU)
    each = [measured[f"selection_{view}"] for view in views]
    assert measured["selection"] == pytest.approx(sum(each) / 3)
    assert each[0] == ValidationFaces(tiny(), caches).measure(Redness(), CPU)["selection"]
    assert len(set(each)) > 1


def test_the_limit_of_media_selects_the_same_ones_every_time(caches):
    recipe = tiny(validation={"every_images": 12, "blended_couples": 4, "media": 3, "faces": 1})
    chosen = [set(ValidationFaces(recipe, caches).media) for _ in range(2)]
    assert chosen[0] == chosen[1]
    assert len(chosen[0]) == 6
