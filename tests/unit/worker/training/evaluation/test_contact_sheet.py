import shutil
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.unit.worker.training.conftest import AUTOENCODERS, SETTINGS
from worker.training.__main__ import main
from worker.training.errors import DataError
from worker.training.evaluation.contact_sheet import COLUMNS, GAP_PX, HEADER_PX, LABEL_PX, draw_sheet, write_sheet
from worker.training.fakes.kinds import Kind
from worker.training.fitting.recipes import Recipe

RECIPE = Path(__file__).parents[5] / "configs" / "train" / "swap-lite0-painted.yaml"


@pytest.fixture
def recipe():
    return Recipe.read(RECIPE)


def tiles(sheet, row, side):
    top = HEADER_PX + row * (side + GAP_PX)
    lefts = [LABEL_PX + place * (side + GAP_PX) for place in range(len(COLUMNS))]
    return [sheet[top : top + side, left : left + side].astype(int) for left in lefts]


def test_a_sheet_shows_pairs_of_every_kind(recipe, crops):
    side = recipe.preprocessing.crop_size_px
    sheet = draw_sheet(recipe, [crops.folder], painted=crops.painted, count=2)
    rows = 2 * len(get_args(Kind))
    assert sheet.shape == (HEADER_PX + rows * (side + GAP_PX), LABEL_PX + len(COLUMNS) * (side + GAP_PX), 3)
    assert sheet.dtype == np.uint8
    for row in range(rows):
        real, fake, difference, _, _ = tiles(sheet, row, side)
        assert np.abs(real - fake).max() > 8
        if row < rows - 2:
            assert np.array_equal(difference, np.minimum(4 * np.abs(real - fake), 255))
        else:
            # The two of a labelled pair have nothing to do with each other.
            assert difference.min() == 255
        # The kind is written beside the row.
        label = sheet[HEADER_PX + row * (side + GAP_PX) :, :LABEL_PX][:side]
        assert label.min() < 100


def test_the_same_seed_draws_the_same_sheet(recipe, crops):
    first, again, other = (draw_sheet(recipe, [crops.folder], count=1, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_kinds_without_faces_are_named_at_the_end(recipe, crops, tmp_path):
    for name in ("00000.jsonl", "00000.tar"):
        shutil.copy(crops.folder / name, tmp_path)
    side = recipe.preprocessing.crop_size_px
    sheet = draw_sheet(recipe, [tmp_path], count=1)
    # Stills of two people make self-blended and swapped pairs, and no others.
    assert sheet.shape[0] == HEADER_PX + 3 * (side + GAP_PX) + HEADER_PX
    assert sheet[-HEADER_PX:].min() < 100


def test_an_unknown_format_is_an_error(tmp_path):
    with pytest.raises(DataError, match="written"):
        write_sheet(np.zeros((8, 8, 3), np.uint8), tmp_path / "sheet.docx")
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_only_the_sheet(crops, tmp_path):
    # The folder of media and a cache of it that is complete.
    shutil.copytree(crops.media[0].path.parent, tmp_path / "data" / "faces")
    shutil.copytree(crops.folder, tmp_path / "crops" / "faces")
    content = yaml.safe_load(RECIPE.read_text())
    content |= {"sources": [{"kind": "real", "path": "faces"}], "cache": SETTINGS.model_dump(mode="json")}
    content["autoencoders"] = [each.model_dump() for each in AUTOENCODERS[:1]]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content))
    out = tmp_path / "made" / "sheet.png"
    given = ["sheet", str(tmp_path / "recipe.yaml"), str(tmp_path / "data"), "--caches", str(tmp_path / "crops")]
    assert main([*given, "--out", str(out), "--count", "1", "--seed", "3"]) == 0
    assert [path.name for path in out.parent.iterdir()] == ["sheet.png"]
    painted = sorted((tmp_path / "crops").glob("painted-*"))
    assert len(painted) == 1
    recipe = Recipe.read(tmp_path / "recipe.yaml")
    drawn = draw_sheet(recipe, [tmp_path / "crops" / "faces"], painted=painted, count=1, seed=3)
    assert np.array_equal(np.asarray(Image.open(out)), drawn)


def test_the_command_reports_missing_faces(tmp_path, capsys):
    assert main(["sheet", str(RECIPE), str(tmp_path), "--caches", str(tmp_path), "--out", str(tmp_path / "a.png")]) == 2
    assert "faces" in capsys.readouterr().err
