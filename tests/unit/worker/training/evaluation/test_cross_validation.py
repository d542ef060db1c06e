import json
import math
from pathlib import Path

import pytest

from tests.unit.worker.training.conftest import AUTOENCODERS
from tests.unit.worker.training.rule_data import face, medium
from tests.unit.worker.training.tiny_runs import make_data, tiny, train_here, write_caches
from worker.training.errors import DataError
from worker.training.evaluation.cross_validation import Fold, cross_validate, divide_into_folds, format_table


def test_every_group_is_in_one_fold_and_folds_are_balanced():
    sizes = {"a": 8, "b": 4, "c": 4, "d": 4, "e": 2, "f": 1, "g": 1}
    folds = divide_into_folds(sizes, 3)
    assert sorted(group for fold in folds for group in fold) == sorted(sizes)
    assert [sum(sizes[group] for group in fold) for fold in folds] == [8, 8, 8]
    assert divide_into_folds(dict(reversed(sizes.items())), 3) == folds


@pytest.mark.parametrize("count", [0, 1, 3])
def test_impossible_folds_are_an_error(count):
    with pytest.raises(DataError, match=f"2 groups cannot be divided into {count}"):
        divide_into_folds({"a": 1, "b": 1}, count)


def test_the_table_lists_each_fold_and_the_spread():
    def judged(*logits):
        """Pairs of a fake and its original."""
        return tuple(
            medium(label, face(logit), key=key, original="" if label == "real" else f"real {number}")
            for number, pair in enumerate(logits)
            for label, logit, key in zip(("fake", "real"), pair, (f"fake {number}", f"real {number}"), strict=True)
        )

    folds = [Fold(("a", "b"), judged((2.0, 1.0), (3.0, 0.0))), Fold(("c",), judged((1.0, 2.0), (3.0, 0.0)))]
    assert [fold.auc for fold in folds] == [1.0, 0.75]
    rows = format_table(folds).splitlines()[2:]
    assert rows == [
        "| 0 | 2 | 2 | 1.000 | 2 of 2 |",
        "| 1 | 1 | 2 | 0.750 | 1 of 2 |",
        f"| all | 3 | 4 | 0.875 ± {0.25 / math.sqrt(2):.3f} | 3 of 4 |",
    ]


@pytest.mark.nightly
def test_each_run_is_evaluated_on_the_people_of_its_own_fold(tmp_path):
    data = make_data(tmp_path / "data", train=4, validation=2)
    caches = write_caches(data, tmp_path / "caches")[0].parent
    recipe = tiny(
        stages=[{"images": 400, "mixture": {"labelled": 1.0, "painted": 1.0}}],
        autoencoders=[AUTOENCODERS[0].model_dump()],
    )
    given = {"path": Path("tinted"), "folds": 2, "images": 16, "train": train_here}
    index = (caches / "tinted" / "00000.jsonl").read_bytes()
    folds = cross_validate(recipe, data, caches, tmp_path / "runs", **given)
    everybody = {json.loads(line)["group"] for line in (caches / "tinted" / "00000.jsonl").read_text().splitlines()}
    assert sorted(group for fold in folds for group in fold.groups) == sorted(everybody)
    for number, fold in enumerate(folds):
        run = tmp_path / "runs" / f"fold-{number}"
        rows = [json.loads(line) for line in (run / "crops" / "tinted" / "00000.jsonl").read_text().splitlines()]
        assert {row["group"] for row in rows if row["set"] == "validation"} == set(fold.groups)
        assert {each.group for each in fold.media} == set(fold.groups)
        # 16 images and no more, and no other autoencoder was trained for it.
        assert (run / "curves.csv").read_text().splitlines()[-1].startswith("16,")
        assert [path.is_symlink() for path in (run / "crops").glob("painted-*")] == [True]
    assert (caches / "tinted" / "00000.jsonl").read_bytes() == index
    # A second call trains nothing: curves tell how long training took.
    curves = [(tmp_path / "runs" / f"fold-{number}" / "curves.csv").read_text() for number in range(2)]
    assert format_table(cross_validate(recipe, data, caches, tmp_path / "runs", **given)) == format_table(folds)
    assert [(tmp_path / "runs" / f"fold-{number}" / "curves.csv").read_text() for number in range(2)] == curves
    with pytest.raises(DataError, match="another division"):
        cross_validate(recipe, data, caches, tmp_path / "runs", **{**given, "folds": 3})
    folder = tmp_path / "runs" / "fold-0" / "crops" / "tinted"
    rows = [json.loads(line) for line in (folder / "00000.jsonl").read_text().splitlines()]
    assert {row["group"] for row in rows if row["set"] == "validation"} == set(folds[0].groups)


@pytest.mark.parametrize("setting", ["start", "teacher"])
def test_folds_that_learn_from_a_checkpoint_are_rejected(setting, tmp_path):
    data = make_data(tmp_path / "data", train=2, validation=1)
    caches = write_caches(data, tmp_path / "caches")[0].parent
    checkpoint = "shared/checkpoints/swap-lite0"
    recipe = tiny(**({"start": checkpoint} if setting == "start" else {"distillation": {"teacher": checkpoint}}))
    with pytest.raises(DataError, match="may have been trained on the held-out people"):
        cross_validate(recipe, data, caches, tmp_path / "runs", path=Path("tinted"), folds=2, images=16)


def test_a_data_set_that_the_recipe_lacks_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no data set pairs"):
        cross_validate(tiny(), tmp_path, tmp_path, tmp_path, path=Path("pairs"), folds=2, images=16)
