import copy
import csv
import json
import shutil
from bisect import bisect_right
from dataclasses import replace
from functools import partial

import pytest
import torch
import yaml
from click.testing import CliRunner

from shared.inputs import EDGES, INPUT_BINS, Property
from shared.manifests import read_manifest
from shared.references import REFERENCE_FILE, read_reference
from tests.unit.worker.training.tiny_runs import make_data, tiny, write_caches
from worker.model.checkpoint import load_checkpoint
from worker.training.commands import commands
from worker.training.errors import DataError, TrainingError
from worker.training.evaluation import shipping
from worker.training.evaluation.evaluate import evaluate
from worker.training.evaluation.report import MEASURES
from worker.training.evaluation.shipping import render_card, ship
from worker.training.evaluation.sources import recipe_sources
from worker.training.fitting.recipes import ExternalTraining
from worker.training.fitting.trainer import Trainer
from worker.training.scoring.scored_media import score_caches

pytestmark = pytest.mark.usefixtures("narrow_backbone")
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
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shipping, "evaluate", partial(evaluate, rounds=20))
        ship(recipe, sources, root / "run", root / "out")
    yield recipe, root / "run", sources, root / "out"
    torch.set_num_threads(threads)


@pytest.fixture
def no_report(monkeypatch):
    """Neither disturb faces nor draw plots, which takes most of the time of shipping."""
    monkeypatch.setattr(shipping, "evaluate", partial(evaluate, rounds=20, robustness=False))
    monkeypatch.setattr(shipping, "write_report", lambda *_: None)
    monkeypatch.setattr(shipping, "training_plot", lambda _: b"")


def test_a_shipped_checkpoint_is_marked_trained_and_has_the_best_weights(shipped):
    recipe, run, _, out = shipped
    checkpoint = load_checkpoint(out, recipe.name)
    assert checkpoint.manifest.trained
    assert checkpoint.manifest.licence == "CC0-1.0"
    assert checkpoint.manifest.training_data == ["Tinted portraits (public domain)"]
    best = load_checkpoint(run, "best")
    assert not best.manifest.trained
    assert checkpoint.manifest.weights.sha256 == best.manifest.weights.sha256


def test_the_card_agrees_with_the_manifest_and_the_curves(shipped):
    recipe, run, _, out = shipped
    manifest = read_manifest(out / recipe.name)
    card = (out / recipe.name / "MODEL_CARD.md").read_text()
    with (run / "curves.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    best = max(rows, key=lambda row: float(row["selection"]))
    assert f"`threshold` is {manifest.calibration.threshold:g}" in card
    assert f"after {int(best['images']):,} images" in card
    assert f"{int(rows[-1]['images']):,} images that were seen" in card
    assert "Tinted portraits (public domain)" in card
    assert f"{manifest.metrics['validation_roc_auc']:.3f}" in card
    assert "- **tinted**, " in card
    assert "ImageNet" not in card, "the start was random"
    assert (out / recipe.name / "curves.svg").read_text().lstrip().startswith("<?xml")
    assert (run / "report" / "report.html").exists()


def test_a_shipped_reference_describes_the_validation_set_as_the_service_counts(shipped):
    recipe, _, sources, out = shipped
    manifest = read_manifest(out / recipe.name)
    found = read_reference(out, manifest)
    media = score_caches(load_checkpoint(out, recipe.name), [sources[0].cache], sets={"validation"})
    assert {kind: part.media for kind, part in found.kinds.items()} == {"image": len(media)}
    assert found.kinds["image"].faces == sum(len(medium.faces) for medium in media)
    sizes = [0.0] * INPUT_BINS
    for face in (face for medium in media for face in medium.faces):
        sizes[bisect_right(EDGES[Property.SIZE], face.size_px)] += 1
    assert found.kinds["image"].size_px == tuple(sizes)
    assert {label: judged.media for label, judged in found.judged.items()} == {"real": 4, "fake": 4}
    assert all(sum(judged.verdicts.values()) == judged.media for judged in found.judged.values())


def test_a_reference_is_made_for_a_checkpoint_without_one_and_changes_nothing_else(shipped, tmp_path):
    recipe, _, sources, out = shipped
    folder = tmp_path / recipe.name
    shutil.copytree(out / recipe.name, folder)
    written = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / REFERENCE_FILE).unlink()
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json", exclude_defaults=True)))
    arguments = ["reference", folder, tmp_path / "recipe.yaml", sources[0].data, "--caches", sources[0].cache.parent]
    result = CliRunner().invoke(commands, [str(each) for each in arguments])
    assert result.exit_code == 0, result.output
    assert "image: 8 media" in result.output
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == written
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json") | {"name": "other"}))
    result = CliRunner().invoke(commands, [str(each) for each in arguments])
    assert "was not shipped by the recipe other" in result.output


@pytest.fixture(scope="module")
def rendered(shipped):
    """Renders the card again, with changes to the recipe and to the report."""
    recipe, run, _, out = shipped
    report = json.loads((run / "report" / "report.json").read_text())
    manifest = read_manifest(out / recipe.name)
    rows = [{"images": 12.0, "seconds": 60.0, "selection": 0.5}]

    def render(change=lambda _: None, **changes):
        changed = copy.deepcopy(report)
        change(changed)
        return render_card(recipe.model_copy(update=changes), manifest, changed, rows, "last")

    return render


@pytest.mark.usefixtures("no_report")
def test_weights_that_were_trained_elsewhere_are_shipped_under_the_recipes_name(shipped, tmp_path):
    recipe, run, sources, _ = shipped
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(run / "last", elsewhere)
    shutil.copy(run / "curves.csv", elsewhere)
    renamed = recipe.model_copy(
        update={"name": "other", "origin": ExternalTraining(data="a hundred more"), "min_bits_per_pixel": 0.03}
    )
    manifest = ship(renamed, sources, tmp_path / "run", tmp_path / "out", state="last", weights=elsewhere)
    assert (manifest.name, manifest.trained) == ("other", True)
    assert manifest.weights.sha256 == read_manifest(elsewhere).weights.sha256
    assert manifest.calibration.min_bits_per_pixel == 0.03
    card = (tmp_path / "out/other/MODEL_CARD.md").read_text()
    assert "trained elsewhere" in card
    assert "a hundred more" in card
    assert "fewer than 0.03 bits a pixel" in card


def test_weights_are_not_evaluated_on_seen_sources_and_need_their_curves(shipped, tmp_path):
    recipe, run, sources, _ = shipped
    with pytest.raises(TrainingError, match=r"curves\.csv is missing"):
        ship(recipe, sources, tmp_path / "run", tmp_path / "out", weights=run / "last")
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(run / "last", elsewhere)
    shutil.copy(run / "curves.csv", elsewhere)
    seen = [replace(source, source=source.source.model_copy(update={"seen": True})) for source in sources]
    with pytest.raises(DataError, match="real and fake"):
        ship(recipe, seen, tmp_path / "run", tmp_path / "out", weights=elsewhere)


@pytest.mark.usefixtures("no_report")
def test_a_local_run_is_not_described_as_trained_elsewhere(shipped, tmp_path):
    recipe, run, sources, _ = shipped
    external = recipe.model_copy(update={"origin": ExternalTraining(data="a hundred more")})
    ship(external, sources, run, tmp_path, state="last")
    assert "a hundred more" not in (tmp_path / recipe.name / "MODEL_CARD.md").read_text()


def test_weights_of_another_architecture_are_rejected(shipped, tmp_path):
    recipe, run, sources, _ = shipped
    wider = recipe.architecture.model_copy(update={"head_channels": 16})
    with pytest.raises(TrainingError, match="differs from the recipe"):
        ship(recipe.model_copy(update={"architecture": wider}), sources, run, tmp_path, weights=run / "last")


def test_the_card_has_every_metric_and_the_precision_at_low_shares_of_fakes(rendered):
    def weaken(report):
        report["by_video"]["by_fake_share"][0]["precision"] = 0.0749

    card = rendered(weaken)
    for title in MEASURES.values():
        assert f"| {title} | " in card
    assert "| 1 % | 0.075" in card
    assert "about 93 of 100 alarms would be false" in card


def test_the_card_names_failures_and_unmeasured_generators(rendered):
    def fail(report):
        (row,) = [row for row in report["slices"] if row["by"] == "method"]
        row.update(name="face2face", recall=0.1)

    assert "**It fails on:** face2face" in rendered(fail)
    assert "were not measured" in rendered()


def test_the_card_marks_groups_too_small_to_compare(rendered):
    def few(report):
        row = copy.deepcopy(report["slices"][0])
        report["slices"].append({**row, "by": "skin tone estimate", "name": "dark", "too_few": ["real", "fake"]})

    card = rendered(few)
    assert "| dark | " in card
    assert "few real, few fake |" in card
    assert "It is not\na person's skin" in card


def test_the_card_describes_external_training(rendered):
    assert "trained elsewhere" not in rendered()
    card = rendered(
        origin=ExternalTraining(data="37,804 crops", hardware="one H100", measured=["five further parts, F1 0.848"])
    )
    assert "on more than that.** 37,804 crops\n" in card
    assert "What their makers say of it:\n\n- Hardware: one H100\n" in card
    assert "Seconds of training" not in card
    weak = card.split("## ")[1]
    assert weak.startswith("How weak it is")
    assert "its makers measured:\n\n- five further parts, F1 0.848\n" in weak
    assert card.index("These weights were trained elsewhere") < card.index("The recipe `tiny`")


def test_the_card_states_how_many_fakes_are_called_real(rendered):
    def mistake(report):
        report["verdicts"]["fake"] = {"real": 24, "inconclusive": 50, "fake": 176}

    weak = rendered(mistake).split("## ")[1]
    sentence = "Of all 250 fake media here, of every data set, **9.6 % are called `real`** (24), 20.0 % `inconclusive`."
    assert sentence in weak


def test_the_card_has_the_division_and_the_terms_of_every_source(rendered):
    assert "| tinted | 16 | 8 | 8 | – | 0 | public domain |" in rendered()


def test_scored_and_unscored_media_add_up_to_the_validation_set(rendered):
    def lose(report):
        report["by_source"]["tinted"] = {"judged": 5, "unscored": 3}
        report["by_video"]["count"] = 5

    card = rendered(lose)
    assert "| tinted | 16 | 8 | 5 | 3: no usable face | 0 | public domain |\n| all | 16 | 8 | 5 | 3 | 0 | |" in card
    seen = {**SOURCES[0], "seen": True}
    card = rendered(
        lambda report: report.update(by_source={}),
        origin=ExternalTraining(data="more"),
        sources=tiny(sources=[seen]).sources,
    )
    assert "| tinted | 16 | 8 | 0 | 8: seen in training elsewhere | 0 | public domain |" in card


def test_every_table_of_the_card_has_rows_of_equal_length(rendered):
    blocks = [block.strip("\n").split("\n") for block in rendered().split("\n\n")]
    tables = [block for block in blocks if any(line.startswith("|") for line in block)]
    assert len(tables) > 6
    for rows in tables:
        assert len(rows) > 2
        assert rows[1].startswith("| ---")
        assert {row.count("|") for row in rows} == {rows[0].count("|")}
        assert all(row.startswith("|") and row.endswith("|") for row in rows)


def test_a_run_of_another_recipe_is_rejected(shipped, tmp_path):
    _, run, sources, _ = shipped
    with pytest.raises(TrainingError, match="another recipe"):
        ship(tiny(sources=SOURCES, seed=7), sources, run, tmp_path)


def test_a_run_without_a_validation_is_rejected(shipped, tmp_path):
    recipe, _, sources, _ = shipped
    with pytest.raises(TrainingError, match="train first"):
        ship(recipe, sources, tmp_path, tmp_path / "out")
