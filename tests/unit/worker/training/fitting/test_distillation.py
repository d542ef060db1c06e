import math
import shutil

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from shared.manifests import read_manifest
from tests.unit.worker.training.tiny_runs import PLAIN, make_data, settings, tiny, write_caches
from worker.inference import make_torch_engine
from worker.model.checkpoint import load_checkpoint
from worker.training.errors import DataError, TrainingError
from worker.training.fakes.augmentation import Augmentation
from worker.training.fitting import distillation
from worker.training.fitting.distillation import Teacher, distillation_loss
from worker.training.fitting.inputs import make_pair_stream
from worker.training.fitting.recipes import Recipe
from worker.training.fitting.timing import PartTimer, SynchronisationCounter
from worker.training.fitting.trainer import Trainer

pytestmark = pytest.mark.usefixtures("narrow_backbone", "same_threads")
CPU = torch.device("cpu")
LABELLED = [{"images": 640, "mixture": {"labelled": 1.0}}]
FAST = {
    "batch": 32,
    "head_learning_rate": 4e-3,
    "warm_up_images": 64,
    "ema_decay": 0.8,
    "batch_norm_momentum": 0.3,
    "mask": 0.0,
}
ONCE = {"every_images": 640, "blended_couples": 4}


@pytest.fixture(scope="module")
def caches(tmp_path_factory):
    data = make_data(tmp_path_factory.mktemp("data"), train=8, validation=3)
    return write_caches(data, tmp_path_factory.mktemp("caches"))


@pytest.fixture(scope="module")
def teacher(caches, tmp_path_factory):
    """Folder of a checkpoint that tells the two classes apart."""
    folder = tmp_path_factory.mktemp("teacher")
    Trainer(tiny(stages=LABELLED, augmentation=PLAIN, optimisation=FAST, validation=ONCE), caches, folder).run()
    return folder / "last"


def student(teacher, **changes):
    return tiny(distillation={"teacher": str(teacher), **changes.pop("distillation", {})}, **changes)


def test_the_teacher_scores_as_its_checkpoint_does(teacher):
    checkpoint = load_checkpoint(teacher.parent, teacher.name)
    pictures = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (3, 3, 64, 64), np.uint8))
    with torch.inference_mode():
        expected = checkpoint.network.eval()(pictures.float() / 255.0)
    scored = Teacher(str(teacher), tiny().preprocessing, CPU).score(pictures)
    assert scored.numpy() == pytest.approx(expected.numpy(), abs=1e-4)
    assert not scored.is_inference()


@pytest.mark.parametrize(
    ("logits", "targets", "temperature"), [([0.0, 2.0], [1.0, -3.0], 1.0), ([4.0, -1.0], [-2.0, 6.0], 3.0)]
)
def test_the_loss_is_the_divergence_from_the_teacher(logits, targets, temperature):
    expected = 0.0
    for logit, target in zip(logits, targets, strict=True):
        given, wanted = (1 / (1 + math.exp(-value / temperature)) for value in (logit, target))
        expected += wanted * math.log(wanted / given) + (1 - wanted) * math.log((1 - wanted) / (1 - given))
    found = distillation_loss(torch.tensor(logits), torch.tensor(targets), temperature)
    assert found.item() == pytest.approx(expected / len(logits) * temperature**2, rel=1e-4)


def test_equal_logits_cost_nothing_and_pull_nowhere():
    logits = torch.tensor([-40.0, -1.0, 0.0, 3.0, 40.0], requires_grad=True)
    loss = distillation_loss(logits, logits.detach().clone(), 2.0)
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    assert logits.grad.abs().max() < 1e-6


def test_a_network_learns_its_teachers_answers_without_labels(caches, teacher, tmp_path):
    recipe = student(
        teacher,
        distillation={"labels": 0.0},
        augmentation={**PLAIN, "jpeg": 1.0, "jpeg_quality": (60, 90)},
        architecture={"dropout": 0.0},
        stages=LABELLED,
        optimisation={**FAST, "learning_rate": 4e-3, "warm_up_images": 0},
    )
    trainer = Trainer(recipe, caches, tmp_path)
    batch = next(trainer.start_batches())
    seen, clean = batch[0].chunk(2)
    wanted = Teacher(str(teacher), recipe.preprocessing, CPU).score(clean)
    for _ in range(40):
        trainer.train_step(*batch)
        trainer.progress.step += 1
    with torch.inference_mode():
        learnt = trainer.network.eval()(seen.float() / 255.0)
    assert np.corrcoef(learnt.numpy(), wanted.numpy())[0, 1] > 0.9
    assert (learnt - wanted).abs().mean() < 0.5 * wanted.std()


def test_with_a_teacher_labels_still_count(caches, teacher, tmp_path):
    losses = []
    for labels in (0.0, 1.0):
        trainer = Trainer(student(teacher, distillation={"labels": labels}), caches, tmp_path / str(labels))
        losses.append(trainer.train_step(*next(trainer.start_batches())).item())
    assert losses[1] > losses[0] + 0.3


def test_the_time_of_the_teacher_is_measured(caches, teacher, tmp_path):
    timer = PartTimer()
    Trainer(student(teacher), caches, tmp_path, timer=timer).take_unsaved_steps(1)
    assert timer.seconds["teacher"] > 0


def test_the_teacher_sees_no_augmentation(caches, teacher):
    geometry = {"jitter": 0.1, "flip": 0.5}
    changes = set(Augmentation.model_fields) - {"jitter", "flip", "jpeg_quality", "h264_crf"}
    stream = make_pair_stream(student(teacher, augmentation={**geometry, **dict.fromkeys(changes, 0.3)}), caches)
    plain = make_pair_stream(tiny(augmentation={**geometry, **dict.fromkeys(changes, 0.0)}), caches)
    different = 0
    for number in range(8):
        seen, clean = stream.make_batch(number)[0].chunk(2)
        assert torch.equal(clean, plain.make_batch(number)[0])
        different += (seen != clean).flatten(1).any(dim=1).sum()
    assert different > 16


def test_shuffled_labels_shuffle_the_clean_pictures_too(caches, teacher):
    recipe = student(teacher, augmentation=PLAIN)
    stream = make_pair_stream(recipe, caches, shuffle_labels=True)
    straight = make_pair_stream(recipe, caches)
    swapped = 0
    for number in range(4):
        seen, clean = stream.make_batch(number)[0].chunk(2)
        assert torch.equal(seen, clean)
        swapped += not torch.equal(seen, straight.make_batch(number)[0].chunk(2)[0])
    assert swapped


def test_frozen_batch_norms_keep_their_statistics_and_learn_their_weights(caches, teacher, tmp_path):
    recipe = tiny(start=str(teacher), optimisation={"freeze_batch_norm": True, "warm_up_images": 0, "mask": 0.0})
    trainer = Trainer(recipe, caches, tmp_path)
    trainer.take_unsaved_steps(2)
    given = load_checkpoint(teacher.parent, teacher.name).network
    moved = 0
    for name, module in given.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            trained = trainer.network.get_submodule(name)
            assert torch.equal(trained.running_mean, module.running_mean)
            assert torch.equal(trained.running_var, module.running_var)
            moved += not torch.equal(trained.weight, module.weight)
    assert moved


def test_the_teacher_costs_no_synchronisation(caches, teacher, tmp_path, monkeypatch):
    # As on a GPU, where the teacher's answers stay on the device.
    monkeypatch.setattr(distillation, "make_engine", lambda network, _, *rest: make_torch_engine(network, *rest))
    trainer = Trainer(student(teacher), caches, tmp_path)
    batch = next(trainer.start_batches())
    with SynchronisationCounter() as waits:
        trainer.train_step(*batch)
    assert waits.count == 0


def test_a_run_with_a_teacher_resumes_with_the_same_result_and_only_with_that_teacher(caches, teacher, tmp_path):
    given = shutil.copytree(teacher, tmp_path / "given")
    recipe = student(given, stages=[{"images": 16, "mixture": {"labelled": 1.0}}], validation=ONCE)
    Trainer(recipe, caches, tmp_path / "whole").run()
    Trainer(recipe, caches, tmp_path / "halves").run(until_step=2)
    Trainer(recipe, caches, tmp_path / "halves").run()
    whole, halves = (load_checkpoint(tmp_path / name, "last").network.state_dict() for name in ("whole", "halves"))
    assert all(torch.equal(halves[name], value) for name, value in whole.items())
    Trainer(recipe, caches, tmp_path / "other").run(until_step=2)
    shutil.rmtree(given)
    shutil.copytree(tmp_path / "whole" / "last", given)
    with pytest.raises(TrainingError, match=r"given has other weights than when .*state\.json was saved"):
        Trainer(recipe, caches, tmp_path / "other")
    # A run that is finished needs no teacher any more.
    shutil.rmtree(given)
    assert Trainer(recipe, caches, tmp_path / "whole").is_finished


def test_statistics_are_kept_only_of_a_checkpoint(teacher):
    for changes in ({"start": "imagenet"}, {"start": str(teacher), "optimisation": {"mask": 0.5}}):
        given = {"optimisation": {"mask": 0.0}, **changes}
        with pytest.raises(ValidationError, match="freeze_batch_norm keeps the statistics of a checkpoint"):
            tiny(**{**given, "optimisation": {**given["optimisation"], "freeze_batch_norm": True}})


def test_a_missing_teacher_is_named(caches, tmp_path):
    with pytest.raises(DataError, match=r"the teacher .*nowhere cannot be read"):
        Trainer(student(tmp_path / "nowhere"), caches, tmp_path / "run")


def test_a_teacher_of_other_crops_is_refused(caches, teacher, tmp_path):
    assert read_manifest(teacher).preprocessing.crop_size_px == 64
    recipe = student(teacher, preprocessing={"crop_size_px": 32})
    with pytest.raises(DataError, match=r"judges crops of 64 px with a margin of 0\.2, but the recipe cuts them to 32"):
        Trainer(recipe, caches, tmp_path)


def test_runs_without_these_settings_can_still_be_resumed():
    plain = tiny().digest()
    assert Recipe.model_validate({**settings(), "distillation": None}).digest() == plain
    assert tiny(optimisation={"freeze_batch_norm": False}).digest() == plain
    frozen = {"start": "a/checkpoint", "optimisation": {"mask": 0.0, "freeze_batch_norm": True}}
    assert tiny(**frozen).digest() != tiny(**{**frozen, "optimisation": {"mask": 0.0}}).digest()
    assert student("a").digest() != student("b").digest() != plain
