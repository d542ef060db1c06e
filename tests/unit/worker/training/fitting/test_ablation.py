import shutil
from dataclasses import replace

import pytest
import yaml

from tests.unit.worker.training.tiny_runs import make_data, settings, write_caches
from worker.model.checkpoint import load_checkpoint
from worker.training.errors import DataError, TrainingError
from worker.training.fitting import ablation
from worker.training.fitting.ablation import compare_variants, read_variants, run_ablations, slug
from worker.training.fitting.recipes import Recipe
from worker.training.fitting.states import read_index
from worker.training.fitting.trainer import Trainer
from worker.training.scoring.scored_media import score_caches


@pytest.fixture
def files(tmp_path):
    """Writes a recipe and changes to it."""

    def write(changes, **given):
        recipe, file = tmp_path / "recipe.yaml", tmp_path / "changes.yaml"
        recipe.write_text(yaml.safe_dump(settings(**given)))
        file.write_text(changes if isinstance(changes, str) else yaml.safe_dump(changes))
        return recipe, file

    return write


def test_changes_merge_objects_and_replace_lists(files):
    mixture = {"swap": 1.0}
    changes = {
        "base": {"optimisation": {"batch": 8, "clip": 1.0}, "seed": 7},
        "changes": {
            "as it is": {},
            "less": {"optimisation": {"clip": 2.0}},
            "swaps alone": {"stages": [{"images": 2, "mixture": mixture}], "seed": 8},
        },
    }
    made = {name: Recipe.model_validate(variant) for name, variant in read_variants(*files(changes)).items()}
    assert list(made) == ["as it is", "less", "swaps alone"]
    assert [recipe.optimisation.clip for recipe in made.values()] == [1.0, 2.0, 1.0]
    assert {recipe.optimisation.batch for recipe in made.values()} == {8}
    # What neither names stays as the recipe has it.
    assert {recipe.optimisation.warm_up_images for recipe in made.values()} == {8}
    assert [recipe.seed for recipe in made.values()] == [7, 7, 8]
    assert made["swaps alone"].stages[0].mixture == mixture
    assert len(made["swaps alone"].stages) == 1
    assert [recipe.name for recipe in made.values()] == [slug(name) for name in made]


def test_the_recipe_itself_is_not_changed_by_its_variants(files):
    recipe, changes = files({"changes": {"one": {"optimisation": {"clip": 1.0}}, "two": {}}})
    assert read_variants(recipe, changes)["two"] == settings(name="two")


def test_the_mistakes_of_all_variants_are_reported_before_any_is_trained(files, tmp_path):
    changes = {"changes": {"one": {"seed": "x"}, "two": {"surprise": 1}, "a b": {}, "a+b": {}}}
    with pytest.raises(DataError) as caught:
        run_ablations(*files(changes), tmp_path, tmp_path, tmp_path / "runs")
    for part in ("one", "seed", "two", "surprise", "folder a-b"):
        assert part in str(caught.value)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("changes", ["", "[]", "{", "base: {}", "changes: [rgb]"])
def test_a_file_without_changes_is_rejected(changes, files):
    with pytest.raises(DataError):
        read_variants(*files(changes))


@pytest.mark.nightly
def test_a_second_call_trains_only_the_failed_variants(files, tmp_path):
    data = make_data(tmp_path / "data", train=4, validation=2)
    caches = write_caches(data, tmp_path / "caches")[0].parent
    start, runs = tmp_path / "start", tmp_path / "runs"
    changes = {"changes": {"rgb alone": {"architecture": {"input_planes": "rgb"}}, "started": {"start": str(start)}}}
    stages = [{"images": 8, "mixture": {"textbook": 1.0}}]
    given = (*files(changes, stages=stages, validation={"every_images": 8}), data, caches, runs)
    with pytest.raises(TrainingError, match=r"log\.txt in their folders: started$"):
        run_ablations(*given, side_by_side=2)
    assert "cannot start from" in (runs / "started" / "log.txt").read_text()
    first = runs / "rgb-alone"
    assert load_checkpoint(first, "last").manifest.architecture.input_planes == "rgb"
    trained = read_index(first)["progress"]
    assert trained["step"] == 2
    written = (first / "curves.csv").read_bytes()
    # What the other one was to start from is there now.
    Recipe.read(runs / "started" / "recipe.yaml")
    shutil.copytree(first / "last", start)
    changes["changes"]["started"]["architecture"] = {"input_planes": "rgb"}
    (tmp_path / "changes.yaml").write_text(yaml.safe_dump(changes))
    run_ablations(*given, side_by_side=2)
    assert load_checkpoint(runs / "started", "last").manifest.name == "started"
    assert (first / "curves.csv").read_bytes() == written
    assert read_index(first)["progress"] == trained


@pytest.mark.usefixtures("narrow_backbone")
def test_the_table_has_a_column_for_each_data_set_of_videos_with_fakes(files, tmp_path, monkeypatch):
    data = make_data(tmp_path / "data", train=4, validation=2)
    caches, runs = write_caches(data, tmp_path / "caches"), tmp_path / "runs"
    given = files({"changes": {"trained": {}, "not trained": {}}}, stages=[{"images": 4, "mixture": {"labelled": 1.0}}])
    recipe = Recipe.model_validate(read_variants(*given)["trained"])
    Trainer(recipe, caches, runs / "trained").run()

    def with_videos(*arguments, **named):
        stills = score_caches(*arguments, **named)
        clips = [replace(medium, is_video=True, dataset="clips") for medium in stills]
        return [*stills, *clips, *(replace(medium, dataset="real") for medium in clips if not medium.is_fake)]

    monkeypatch.setattr(ablation, "score_caches", with_videos)
    heads, _, row = compare_variants(*given, caches, runs).splitlines()
    columns = ("made fakes, AUC", "clips, AUC", "video, AUC", "stills, AUC")
    assert heads == f"| variant | images | minutes | {' | '.join(columns)} | above original |"
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:2] == ["trained", "4"]
    # The clips are the stills; among all videos each real one counts twice, which does not change the area.
    assert cells[4].split()[0] == cells[5].split()[0] == cells[6].split()[0] != "–"
    assert cells[7] == "–"
