import math

import numpy as np
import pytest
import torch
from torch import nn

from shared.manifests import read_manifest
from tests.unit.worker.training.tiny_runs import PLAIN, make_data, settings, tiny, write_caches
from worker.model.checkpoint import load_checkpoint
from worker.training.errors import DataError
from worker.training.fitting.distillation import Teacher, distillation_loss
from worker.training.fitting.inputs import make_pair_stream
from worker.training.fitting.recipes import Recipe
from worker.training.fitting.timing import SynchronisationCounter
from worker.training.fitting.trainer import Trainer

pytestmark = pytest.mark.usefixtures("narrow_backbone")
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


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


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


def test_the_teacher_sees_no_augmentation(caches, teacher):
    recipe = student(teacher, augmentation={"jitter": 0.1, "flip": 0.5, "rescale": 1.0, "colour": 1.0, "cutout": 1.0})
    stream = make_pair_stream(recipe, caches)
    plain = make_pair_stream(recipe.model_copy(update={"augmentation": recipe.augmentation.without_changes()}), caches)
    for number in range(4):
        seen, clean = stream.make_batch(number)[0].chunk(2)
        once, again = plain.make_batch(number)[0].chunk(2)
        assert torch.equal(clean, once)
        assert torch.equal(once, again)
        assert not torch.equal(seen, clean)


def test_frozen_batch_norms_keep_their_statistics_and_learn_their_weights(caches, teacher, tmp_path):
    recipe = tiny(start=str(teacher), optimisation={"freeze_batch_norm": True, "warm_up_images": 0})
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


def test_the_teacher_costs_no_synchronisation(caches, teacher, tmp_path):
    trainer = Trainer(student(teacher), caches, tmp_path)
    batch = next(trainer.start_batches())
    with SynchronisationCounter() as waits:
        trainer.train_step(*batch)
    assert waits.count == 0


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
    assert tiny(optimisation={"freeze_batch_norm": True}).digest() != plain
    assert student("a").digest() != student("b").digest() != plain
