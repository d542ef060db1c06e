import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tests.unit.worker.training.rule_data import Darkness, checkpoint
from tests.unit.worker.training.tiny_runs import tiny
from worker.training.errors import DataError
from worker.training.evaluation.pseudo_fakes import (
    PairScores,
    evaluate_pseudo_fakes,
    format_table,
    list_pseudo_fake_kinds,
    make_pseudo_fakes,
)
from worker.training.fakes.transcoding import VIEWS

JUDGE = checkpoint(Darkness(middle=0.45, slope=10.0))
SOURCES = [{"kind": "real", "path": "faces"}, {"kind": "labelled", "path": "blended", "seen": True}]


def recipe(**changes):
    mixture = {"textbook": 1.0, "restored": 1.0, "labelled": 1.0, "originals": 1.0, "swap": 0.0}
    given = {"sources": SOURCES, "restorers": [{}], "stages": [{"images": 2, "mixture": mixture}]}
    return tiny(**(given | changes))


def test_kinds_made_from_real_faces_are_evaluated():
    assert list_pseudo_fake_kinds(recipe()) == ["restored", "textbook"]


def test_every_kind_is_scored_in_every_view_by_every_checkpoint(crops):
    found = evaluate_pseudo_fakes(recipe(), [crops.folder], [JUDGE], painted=crops.painted, count=3)
    assert [(one.kind, one.view) for one in found] == [
        (kind, view) for kind in ("restored", "textbook") for view in VIEWS
    ]
    for one in found:
        assert (len(one.real), len(one.fake)) == (3, 3)
        labels = [0] * 3 + [1] * 3
        assert one.auc == pytest.approx(roc_auc_score(labels, [*one.real, *one.fake]))
    # The very same pairs are judged in each view: compression hardly changes how dark they are.
    clean, half = found[0], found[3]
    assert np.abs(clean.real - half.real).max() < 0.5
    again = evaluate_pseudo_fakes(recipe(), [crops.folder], [JUDGE], painted=crops.painted, count=3)
    assert np.array_equal(again[0].fake, clean.fake)


def test_pairs_are_made_from_held_out_faces_of_unseen_data_sets(crops):
    crop = JUDGE.manifest.preprocessing
    pairs = list(make_pseudo_fakes(recipe(), [crops.folder], "textbook", crop, count=2))
    assert {picture.shape for pair in pairs for picture in pair} == {(crop.crop_size_px, crop.crop_size_px, 3)}
    # One held-out face is there, so its real crop is the same unless it was changed itself.
    restored = list(make_pseudo_fakes(recipe(), [crops.folder], "restored", crop, painted=crops.painted, count=3))
    assert all(np.array_equal(real, restored[0][0]) for real, _ in restored)
    seen = recipe(sources=[SOURCES[0] | {"seen": True}, SOURCES[1] | {"seen": False}])
    with pytest.raises(DataError, match="no cache holds a real face of the set 'validation'"):
        next(make_pseudo_fakes(seen, [crops.folder], "textbook", crop, count=2))


def test_the_table_has_a_row_for_each_kind_and_checkpoint():
    logits = np.array([0.0, 1.0, 2.0, 3.0])
    found = [
        PairScores(name, "textbook", view, logits, logits + (1.5 if view == "clean" else -10.0))
        for name in ("one", "two")
        for view in VIEWS
    ]
    lines = format_table(found).splitlines()
    assert len(lines) == 4
    assert lines[2].startswith("| `textbook` | `one` | 4 | 0.812 | 0.000 |")
    assert lines[3].endswith("| 1.00 |")
