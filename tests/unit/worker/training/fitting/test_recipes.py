from pathlib import Path

import pytest
import yaml

from shared.manifests import PACKAGED_MODELS_DIR, list_manifests, read_manifest
from tests.unit.worker.training.tiny_runs import settings, tiny
from worker.training.errors import DataError
from worker.training.fitting.ablation import read_variants
from worker.training.fitting.recipes import Recipe

CONFIGS = Path(__file__).parents[5] / "configs" / "train"
ABLATIONS = CONFIGS / "ablations.yaml"
RECIPES = sorted(set(CONFIGS.glob("*.yaml")) - set(CONFIGS.glob("ablations*.yaml")))


def write(path, data):
    path.write_text(data if isinstance(data, str) else yaml.safe_dump(data))
    return path


def test_the_project_has_recipes():
    assert RECIPES


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_every_recipe_that_comes_with_the_project_is_valid(path):
    recipe = Recipe.read(path)
    assert recipe.images == sum(stage.images for stage in recipe.stages)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_the_ablations_that_come_with_the_project_are_valid_and_differ_for_every_recipe(path):
    recipes = [Recipe.model_validate(variant) for variant in read_variants(path, ABLATIONS).values()]
    assert len(recipes) > 5
    assert len({recipe.model_copy(update={"name": "same"}).digest() for recipe in recipes}) == len(recipes)


def test_the_ablations_of_dfdc_are_valid_and_differ():
    variants = read_variants(CONFIGS / "swap-lite2.yaml", CONFIGS / "ablations-dfdc.yaml").values()
    recipes = [Recipe.model_validate(variant).model_copy(update={"name": "same"}) for variant in variants]
    assert len({recipe.digest() for recipe in recipes}) == len(recipes) == 7


@pytest.mark.parametrize("name", sorted(list_manifests(PACKAGED_MODELS_DIR)))
def test_a_shipped_checkpoint_and_its_card_agree_with_the_recipe(name):
    recipe, manifest = Recipe.read(CONFIGS / f"{name}.yaml"), read_manifest(PACKAGED_MODELS_DIR / name)
    assert (manifest.name, manifest.version) == (recipe.name, recipe.version)
    assert (manifest.architecture, manifest.preprocessing) == (recipe.architecture, recipe.preprocessing)
    assert manifest.calibration.min_bits_per_pixel == recipe.min_bits_per_pixel is not None
    assert manifest.training_data == [f"{source.about} ({source.terms})" for source in recipe.sources]
    card = (PACKAGED_MODELS_DIR / name / "MODEL_CARD.md").read_text()
    assert card.startswith(f"# {name} {recipe.version}\n")
    assert all(f"- {line}\n" in card for line in manifest.training_data)
    assert f"fewer than {recipe.min_bits_per_pixel:g} bits a pixel" in card


def test_a_recipe_is_read_as_written(tmp_path):
    assert Recipe.read(write(tmp_path / "recipe.yaml", settings())) == tiny()


def test_all_mistakes_are_reported_together(tmp_path):
    wrong = settings(
        name="No Name",
        stages=[{"images": 0, "mixture": {"textbook": 1.0}}, {"images": 1, "mixture": {"moon": 1.0}}],
        optimisation={"batch": 3, "ema_decay": 1.0},
        hardware={"precision": "8-bit"},
    )
    del wrong["version"]
    path = write(tmp_path / "recipe.yaml", wrong)
    with pytest.raises(DataError) as caught:
        Recipe.read(path)
    message = str(caught.value)
    places = ("name", "version", "stages.0.images", "stages.1.mixture.moon", "optimisation.batch")
    for place in (str(path), *places, "optimisation.ema_decay", "hardware.precision"):
        assert place in message


@pytest.mark.parametrize(
    "change",
    [
        {"surprise": 1},
        {"optimisation": {"learning-rate": 1.0}},
        {"architecture": {"depth": 3}},
        {"augmentation": {"rain": 0.5}},
        {"hardware": {"gpus": 8}},
        {"validation": {"often": True}},
        {"stages": [{"images": 2, "mixture": {"swap": 1.0}, "until": "dawn"}]},
        {"sources": [{"kind": "real", "path": "faces", "weight": 2.0}]},
        {"cache": {"quality": 5}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_an_unknown_key_is_rejected_at_every_level(change, tmp_path):
    with pytest.raises(DataError, match="Extra inputs are not permitted"):
        Recipe.read(write(tmp_path / "recipe.yaml", settings(**change)))


@pytest.mark.parametrize(
    "change",
    [
        {"stages": []},
        {"stages": [{"images": 2, "mixture": {}}]},
        {"stages": [{"images": 2, "mixture": {"swap": 0.0}}]},
        {"stages": [{"images": 2, "mixture": {"swap": 2.0, "textbook": -1.0}}]},
        {"stages": [{"images": 2, "mixture": {"painted": 1.0}}]},
        {
            "stages": [{"images": 2, "mixture": {"decoded": 1.0}}],
            "autoencoders": [{"upsampling": "shuffle"}],
        },
        {"stages": [{"images": 2, "mixture": {"restored": 1.0}}], "inpainters": [{}]},
        {"stages": [{"images": 2, "mixture": {"inpainted": 1.0}}], "restorers": [{}]},
        {"restorers": [{"factor": 3}]},
        {"inpainters": [{"strength": [0.5]}]},
        {"inpainters": [{"strength": [0.9, 0.2]}]},
        {"inpainters": [{"strength": [0.0, 1.2]}]},
        {"sources": []},
        {"sources": [{"kind": "rumours", "path": "faces"}]},
        {"sources": [{"kind": "real", "path": "faces", "hold_out": {"validation": 10.0}}]},
        {"sources": [{"kind": "real", "path": "faces", "hold_out": {"exam": 0.1}}]},
        {"optimisation": {"batch": 0}},
        {"validation": {"every_images": 0}},
    ],
    ids=str,
)
def test_an_untrainable_recipe_is_rejected(change, tmp_path):
    with pytest.raises(DataError):
        Recipe.read(write(tmp_path / "recipe.yaml", settings(**change)))


@pytest.mark.parametrize("content", ["", "- a\n- list", "{", "just words"], ids=["nothing", "list", "no YAML", "words"])
def test_a_file_without_a_recipe_is_rejected(content, tmp_path):
    with pytest.raises(DataError, match=r"recipe\.yaml"):
        Recipe.read(write(tmp_path / "recipe.yaml", content))


def test_a_missing_file_is_rejected(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        Recipe.read(tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    "change",
    [
        {"hardware": {"accelerator": "cuda", "devices": 8, "precision": "bf16-mixed", "threads": 4}},
        {"hardware": {"loader_processes": 7}},
        {"validation": {"every_images": 99, "blended_couples": 9, "patience": 3}},
        {"save_every_s": 5.0},
        {"origin": {"data": "other crops", "images": "2,166,784", "hardware": "one GPU", "seconds": "1,020"}},
    ],
    ids=str,
)
def test_the_digest_ignores_settings_that_do_not_affect_weights(change):
    assert tiny(**change).digest() == tiny().digest()


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 2},
        {"start": "imagenet"},
        {"stages": [{"images": 26, "mixture": {"labelled": 1.0, "textbook": 1.0}}]},
        {"stages": [{"images": 24, "mixture": {"labelled": 1.0, "textbook": 2.0}}]},
        {"optimisation": {"learning_rate": 0.123}},
        {"optimisation": {"loss": "focal"}},
        {"augmentation": {"h264": 0.1}},
        {"architecture": {"residual_scale": "own-level"}},
        {"preprocessing": {"crop_margin": 0.3}},
        {"sources": [{"kind": "labelled", "path": "tinted", "seed": 5}]},
        {"cache": {"sample_fps": 1.0}},
        {"real_from": ["tinted"]},
    ],
    ids=str,
)
def test_the_digest_covers_settings_that_affect_weights(change):
    assert tiny(**change).digest() != tiny().digest()


def test_the_digest_ignores_the_order_and_defaults_of_a_recipe(tmp_path):
    backwards = dict(reversed(settings(optimisation={"clip": 5}).items()))
    assert Recipe.read(write(tmp_path / "recipe.yaml", backwards)).digest() == tiny().digest()


def test_only_networks_of_the_kinds_in_a_mixture_paint():
    recipe = tiny(
        stages=[{"images": 2, "mixture": {"decoded": 1.0, "restored": 1.0, "inpainted": 0.0, "swap": 1.0}}],
        autoencoders=[{"upsampling": "shuffle"}, {"upsampling": "shuffle", "code": "variational"}],
        restorers=[{}],
        inpainters=[{}],
    )
    assert recipe.painted_kinds == {"decoded", "restored"}
    assert recipe.painters == [recipe.autoencoders[1], recipe.restorers[0]]


def test_empty_lists_of_painting_networks_do_not_change_the_digest():
    assert tiny(restorers=[{}]).digest() != tiny().digest() == tiny(restorers=[], inpainters=[]).digest()
    assert tiny(inpainters=[{}]).digest() != tiny().digest()
