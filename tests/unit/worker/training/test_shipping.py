import csv

import pytest
import torch

from shared.manifests import read_manifest
from tests.unit.worker.training.runs import make_data, tiny, write_caches
from worker.model.checkpoint import load_checkpoint
from worker.training.errors import TrainingError
from worker.training.evaluate import recipe_sources
from worker.training.shipping import ship
from worker.training.train import Trainer

SOURCES = [{"kind": "labelled", "path": "tinted", "about": "Tinted portraits", "terms": "public domain"}]


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """Recipe, run, sources and the folder that the run was shipped to."""
    threads = torch.get_num_threads()
    root = tmp_path_factory.mktemp("ship")
    data = make_data(root / "data", train=8, validation=4)
    caches = write_caches(data, root / "caches")
    recipe = tiny(sources=SOURCES, licence="CC0-1.0")
    Trainer(recipe, caches, root / "run").run()
    sources = recipe_sources(recipe, data, root / "caches")
    ship(recipe, sources, root / "run", root / "out")
    yield recipe, root / "run", sources, root / "out"
    torch.set_num_threads(threads)


def test_what_is_shipped_is_called_trained_and_loads_with_the_weights_of_the_best_state(shipped):
    recipe, run, _, out = shipped
    checkpoint = load_checkpoint(out, recipe.name)
    assert checkpoint.manifest.trained
    assert checkpoint.manifest.licence == "CC0-1.0"
    assert checkpoint.manifest.training_data == ["Tinted portraits (public domain)"]
    best = load_checkpoint(run, "best")
    assert not best.manifest.trained
    assert checkpoint.manifest.weights.sha256 == best.manifest.weights.sha256


def test_the_card_says_what_the_manifest_and_the_curves_say(shipped):
    recipe, run, _, out = shipped
    manifest = read_manifest(out / recipe.name)
    card = (out / recipe.name / "MODEL_CARD.md").read_text()
    with (run / "curves.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    best = max(rows, key=lambda row: float(row["selection"]))
    assert f"threshold {manifest.calibration.threshold:g}" in card
    assert f"after {int(best['images']):,} images" in card
    assert f"{int(rows[-1]['images']):,} images that were seen" in card
    assert "Tinted portraits (public domain)" in card
    assert f"{manifest.metrics['validation_roc_auc']:.3f}" in card
    assert "## How weak it is" not in card, "there are no pairs"
    assert "ImageNet" not in card, "the start was random"
    assert (out / recipe.name / "curves.svg").read_text().lstrip().startswith("<?xml")
    assert (run / "report" / "report.html").exists()


def test_a_run_of_another_recipe_is_refused(shipped, tmp_path):
    _, run, sources, _ = shipped
    with pytest.raises(TrainingError, match="another recipe"):
        ship(tiny(sources=SOURCES, seed=7), sources, run, tmp_path)


def test_a_run_that_has_not_validated_is_refused(shipped, tmp_path):
    recipe, _, sources, _ = shipped
    with pytest.raises(TrainingError, match="train first"):
        ship(recipe, sources, tmp_path, tmp_path / "out")
