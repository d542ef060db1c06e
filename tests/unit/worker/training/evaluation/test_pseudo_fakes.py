import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tests.unit.worker.training.rule_data import Darkness, checkpoint
from tests.unit.worker.training.tiny_runs import tiny
from worker.training.errors import DataError
from worker.training.evaluation.pseudo_fakes import Judged, judge_made, made_crops, made_kinds, table
from worker.training.fakes.transcoding import VIEWS

JUDGE = checkpoint(Darkness(middle=0.45, slope=10.0))
SOURCES = [{"kind": "real", "path": "faces"}, {"kind": "labelled", "path": "blended", "seen": True}]


def recipe(**changes):
    mixture = {"textbook": 1.0, "restored": 1.0, "labelled": 1.0, "originals": 1.0, "swap": 0.0}
    given = {"sources": SOURCES, "restorers": [{}], "stages": [{"images": 2, "mixture": mixture}]}
    return tiny(**(given | changes))


def test_kinds_that_are_made_of_real_faces_are_judged():
    assert made_kinds(recipe()) == ["restored", "textbook"]


def test_every_kind_is_judged_in_every_view_by_every_checkpoint(crops):
    found = judge_made(recipe(), [crops.folder], [JUDGE], painted=crops.painted, count=3)
    assert [(one.kind, one.view) for one in found] == [
        (kind, view) for kind in ("restored", "textbook") for view in VIEWS
    ]
    for one in found:
        assert (len(one.real), len(one.fake)) == (3, 3)
        labels = [0] * 3 + [1] * 3
        assert one.auc == pytest.approx(roc_auc_score(labels, [*one.real, *one.fake]))
    # The very same couples are judged in each view: compression hardly changes how dark they are.
    clean, half = found[0], found[3]
    assert np.abs(clean.real - half.real).max() < 0.5
    again = judge_made(recipe(), [crops.folder], [JUDGE], painted=crops.painted, count=3)
    assert np.array_equal(again[0].fake, clean.fake)


def test_couples_are_of_held_out_faces_that_were_not_seen(crops):
    crop = JUDGE.manifest.preprocessing
    couples = list(made_crops(recipe(), [crops.folder], "textbook", crop, count=2))
    assert {picture.shape for couple in couples for picture in couple} == {(crop.crop_size_px, crop.crop_size_px, 3)}
    # One held-out face is there, so its real crop is the same unless it was changed itself.
    restored = list(made_crops(recipe(), [crops.folder], "restored", crop, painted=crops.painted, count=3))
    assert all(np.array_equal(real, restored[0][0]) for real, _ in restored)
    seen = recipe(sources=[SOURCES[0] | {"seen": True}, SOURCES[1] | {"seen": False}])
    with pytest.raises(DataError, match="no cache holds a real face of the set 'validation'"):
        next(made_crops(seen, [crops.folder], "textbook", crop, count=2))


def test_the_table_has_a_row_for_each_kind_and_checkpoint():
    logits = np.array([0.0, 1.0, 2.0, 3.0])
    found = [
        Judged(name, "textbook", view, logits, logits + (1.5 if view == "clean" else -10.0))
        for name in ("one", "two")
        for view in VIEWS
    ]
    lines = table(found).splitlines()
    assert len(lines) == 4
    assert lines[2].startswith("| `textbook` | `one` | 4 | 0.812 | 0.000 |")
    assert lines[3].endswith("| 1.00 |")
