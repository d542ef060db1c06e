import csv
import hashlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from itertools import repeat
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from shared.manifests import read_manifest
from tests.unit.worker.training.conftest import AUTOENCODERS
from tests.unit.worker.training.tiny_runs import PLAIN, make_data, settings, tiny, write_caches
from worker.model.checkpoint import load_checkpoint
from worker.model.efficientnet import LITE_SCALES
from worker.training.__main__ import main
from worker.training.errors import DataError, TrainingError
from worker.training.fakes.augmentation import Augmentation
from worker.training.fakes.kinds import Stage
from worker.training.fakes.pair_stream import RealFakePairStream
from worker.training.fitting import states
from worker.training.fitting import trainer as trainer_module
from worker.training.fitting.initial_weights import make_initial_network
from worker.training.fitting.inputs import paint_recipe_faces
from worker.training.fitting.losses import pair_loss
from worker.training.fitting.optimisers import learning_rate_factor
from worker.training.fitting.recipes import Optimisation
from worker.training.fitting.states import read_index, read_tensors
from worker.training.fitting.timing import SynchronisationCounter
from worker.training.fitting.trainer import Trainer
from worker.training.scoring.metrics import roc_auc

ROOT = Path(__file__).parents[5]
pytestmark = pytest.mark.usefixtures("narrow_backbone", "same_threads")
FAST = {"batch": 32, "head_learning_rate": 4e-3, "warm_up_images": 64, "ema_decay": 0.8, "batch_norm_momentum": 0.3}
BFLOAT16 = {"hardware": {"precision": "bf16-mixed"}, "preprocessing": {"crop_size_px": 32}}
"""Of small crops, since processors without bfloat16 emulate it and take ten times as long."""
TIMED_PAIRS = 250
"""To judge a network by. The area under the curve over n pairs in random order deviates by at most 1 / (2 √n)."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data"), train=8, validation=3)


@pytest.fixture(scope="module")
def caches(data, tmp_path_factory):
    return write_caches(data, tmp_path_factory.mktemp("caches"))


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Caches with enough faces to learn a rule from, and to judge by."""
    data = make_data(tmp_path_factory.mktemp("data"), train=40, validation=20)
    return write_caches(data, tmp_path_factory.mktemp("caches"))


class Recorded(Trainer):
    """Keeps the loss of every step."""

    def __init__(self, *args, **named):
        super().__init__(*args, **named)
        self.losses = []

    def train_step(self, *batch):
        loss = super().train_step(*batch)
        self.losses.append(float(loss))
        return loss


class OnOneBatch(Recorded):
    """Sees the same pictures in every step."""

    def start_batches(self):
        self.batch = next(iter(super().start_batches()))
        return repeat(self.batch)


def tinted(steps):
    """A recipe in which fakes are redder, and nothing else happens to pictures."""
    return tiny(
        stages=[{"images": 32 * steps, "mixture": {"labelled": 1.0}}],
        optimisation={**FAST, "learning_rate": 2e-3, "mask": 0.0},
        augmentation=PLAIN,
        validation={"every_images": 10**6},
    )


def auc_on_unseen_people(trainer, caches, *, shuffle_labels):
    pairs = RealFakePairStream(
        caches,
        [Stage(1, {"labelled": 1.0})],
        Augmentation(**PLAIN),
        size_px=64,
        margin=0.2,
        batch=TIMED_PAIRS,
        seed=99,
        set_name="validation",
        shuffle_labels=shuffle_labels,
    )
    faces = pairs.make_batch(0)[0].float() / 255.0
    with torch.inference_mode():
        logits = trainer.network.eval()(faces)
    return roc_auc(np.repeat([0, 1], TIMED_PAIRS), logits.numpy())


@pytest.fixture(scope="module")
def learnt(many, tmp_path_factory):
    trainer = Recorded(tinted(24), many, tmp_path_factory.mktemp("learnt"))
    trainer.run()
    return trainer


def test_the_loss_falls(learnt):
    first, last = np.mean(learnt.losses[:4]), np.mean(learnt.losses[-4:])
    assert first == pytest.approx(math.log(2), abs=0.15)
    assert last < first - 0.15


def test_a_learnt_rule_generalises_to_unseen_pictures(learnt, many):
    assert auc_on_unseen_people(learnt, many, shuffle_labels=False) > 0.8


@pytest.mark.nightly
def test_with_shuffled_labels_nothing_is_learnt(many, tmp_path):
    trainer = Recorded(tinted(24), many, tmp_path, shuffle_labels=True)
    trainer.run()
    auc = auc_on_unseen_people(trainer, many, shuffle_labels=True)
    assert auc == pytest.approx(0.5, abs=4 / (2 * math.sqrt(TIMED_PAIRS)))
    assert np.mean(trainer.losses[-4:]) > math.log(2) - 0.1


@pytest.mark.nightly
def test_thirty_two_images_can_be_overfitted(many, tmp_path):
    recipe = tiny(
        stages=[{"images": 32 * 32, "mixture": {"textbook": 1.0}}],
        architecture={"dropout": 0.0, "head_channels": 64},
        optimisation={**FAST, "learning_rate": 4e-3, "head_learning_rate": 2e-2, "mask": 0.0},
        validation={"every_images": 10**6},
    )
    trainer = OnOneBatch(recipe, many, tmp_path)
    trainer.run()
    pictures, aligned, _ = trainer.batch
    assert pictures.shape[0] == 32
    with torch.inference_mode():
        logits = trainer.network.eval()(pictures.float() / 255.0)
    assert ((logits > 0) == torch.arange(32).ge(16)).all()
    assert pair_loss(logits, aligned, recipe.optimisation) < 0.1


@pytest.fixture(scope="module")
def undisturbed(caches, tmp_path_factory):
    """The folder of a run that nothing happened to: six steps, with a validation after the third and the sixth."""
    folder = tmp_path_factory.mktemp("undisturbed")
    Trainer(tiny(), caches, folder).run()
    return folder


def curves(folder):
    """Rows without the time they took."""
    with (folder / "curves.csv").open(newline="") as file:
        return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]


def assert_same_run(folder, expected):
    ours, theirs = (read_index(each) for each in (folder, expected))
    values, others = (read_tensors(*each) for each in ((folder, ours), (expected, theirs)))
    assert values.keys() == others.keys()
    assert {name.split("/")[0] for name in values} == {"model", "average", "optimizer"}
    assert [name for name, value in values.items() if not torch.equal(value, others[name])] == []
    assert ours["progress"] | {"seconds": 0} == theirs["progress"] | {"seconds": 0}
    assert ours["averaged"] == theirs["averaged"]
    assert curves(folder) == curves(expected)
    for name in ("best", "last"):
        assert read_manifest(folder / name) == read_manifest(expected / name)
        weights = (folder / name / "weights.safetensors").read_bytes()
        assert hashlib.sha256(weights).hexdigest() == read_manifest(expected / name).weights.sha256


def test_a_run_writes_curves_and_loadable_checkpoints(undisturbed):
    assert [row["images"] for row in curves(undisturbed)] == ["12", "24"]
    for name in ("best", "last"):
        checkpoint = load_checkpoint(undisturbed, name)
        assert not checkpoint.manifest.trained
        assert checkpoint.manifest.metrics.keys() >= {"made_auc", "tinted_auc", "selection"}
    files = set(read_index(undisturbed)["files"])
    assert {path.name for path in undisturbed.iterdir()} == {"best", "last", "curves.csv", "state.json"} | files
    assert len(files) < 6
    assert all((undisturbed / name).stat().st_size < 16_000_000 for name in files)


def test_pausing_and_resuming_does_not_change_the_result(caches, undisturbed, tmp_path):
    for step in (2, 4, 5, None):  # A validation is due after the third.
        Trainer(tiny(), caches, tmp_path).run(until_step=step)
        assert read_index(tmp_path)["progress"]["step"] == (step or 6)
    assert_same_run(tmp_path, undisturbed)


def test_a_call_that_ends_with_a_validation_saves_its_state_once(caches, tmp_path, monkeypatch):
    saved, save_state = [], Trainer._save_state

    def noted(self):
        saved.append(self.progress.step)
        save_state(self)

    monkeypatch.setattr(Trainer, "_save_state", noted)
    Trainer(tiny(), caches, tmp_path).run(until_step=3)
    assert saved == [3]


def test_pausing_and_resuming_in_bfloat16_does_not_change_the_result(caches, tmp_path):
    recipe = tiny(**BFLOAT16, stages=[{"images": 12, "mixture": {"labelled": 1.0, "textbook": 1.0}}])
    Trainer(recipe, caches, tmp_path / "undisturbed").run()
    for step in (1, None):
        Trainer(recipe, caches, tmp_path / "stopped").run(until_step=step)
    assert_same_run(tmp_path / "stopped", tmp_path / "undisturbed")


@pytest.mark.parametrize(
    ("given", "is_fast", "chosen"),
    [
        ("auto", True, "bf16-mixed"),
        ("auto", False, "32-true"),
        ("32-true", True, "32-true"),
        ("bf16-mixed", False, "bf16-mixed"),
    ],
)
def test_training_is_in_bfloat16_where_that_is_fast_unless_told_otherwise(
    caches, tmp_path, monkeypatch, given, is_fast, chosen
):
    called = []
    monkeypatch.setattr(trainer_module, "is_bfloat16_fast", lambda _device: called.append("precision") or is_fast)
    monkeypatch.setattr(Trainer, "start_batches", lambda _trainer: called.append("loaders"))
    trainer = Trainer(tiny(hardware={"precision": given, "loader_processes": 1}), caches, tmp_path)
    assert trainer._fabric.strategy.precision.precision == chosen
    # To ask a GPU before the loaders have been forked would keep them from being forked.
    assert called == ["loaders", *(["precision"] if given == "auto" else [])]


def test_another_seed_gives_another_run(caches, undisturbed, tmp_path):
    Trainer(tiny(seed=2), caches, tmp_path).run(until_step=3)
    assert curves(tmp_path)[0]["loss"] != curves(undisturbed)[0]["loss"]


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


@pytest.fixture(scope="module")
def halfway(caches, tmp_path_factory):
    """The folder of a run after its first validation."""
    folder = tmp_path_factory.mktemp("halfway")
    Trainer(tiny(), caches, folder).run(until_step=3)
    return folder


@pytest.mark.parametrize(
    ("begun", "name", "done"),
    [
        (False, "curves.csv", False),
        (True, "curves.csv", True),
        (False, "last", False),
        (True, "last", False),
        (False, "best", False),
        (False, "best", True),
        (False, "state.json", False),
        (True, "state.json", False),
        (True, "state.json", True),
    ],
    ids=str,
)
def test_a_run_killed_while_writing_resumes_with_the_same_result(
    begun, name, done, caches, undisturbed, halfway, tmp_path, monkeypatch
):
    """Killed at its first validation, or at its second where it has *begun*."""
    if begun:
        shutil.copytree(halfway, tmp_path, dirs_exist_ok=True)
    rename = Path.rename

    def killing(path, target):
        if Path(target).name != name:
            return rename(path, target)
        if done:
            rename(path, target)
        elif path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        else:
            (path / "manifest.json").unlink()
        raise Killed

    monkeypatch.setattr(Path, "rename", killing)
    with pytest.raises(Killed):
        Trainer(tiny(), caches, tmp_path).run()
    monkeypatch.undo()
    Trainer(tiny(), caches, tmp_path).run()
    assert_same_run(tmp_path, undisturbed)


@pytest.mark.nightly
def test_a_killed_process_resumes_and_ends_with_the_same_weights(data, caches, tmp_path, monkeypatch):
    recipe, run = tmp_path / "recipe.yaml", tmp_path / "run"
    monkeypatch.setitem(LITE_SCALES, "efficientnet-lite0", (1.0, 1.0))  # As in the process that is killed.
    undisturbed = tmp_path / "undisturbed"
    Trainer(tiny(), caches, undisturbed).run()
    # Saves after every step, and has two more processes in it than the run it is compared with.
    recipe.write_text(yaml.safe_dump(settings(save_every_s=0.0, hardware={"loader_processes": 2})))
    command = [sys.executable, "-m", "worker.training", "train", str(recipe), str(data)]
    command += ["--caches", str(caches[0].parent), "--run", str(run)]
    with (tmp_path / "log.txt").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        deadline = time.monotonic() + 120
        while not (run / "state.json").exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.001)
        process.kill()
        assert process.wait() == -signal.SIGKILL, (tmp_path / "log.txt").read_text()
    assert 0 < read_index(run)["progress"]["step"] < 6
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    assert_same_run(run, undisturbed)


def test_an_interrupted_run_with_painted_faces_ends_with_the_same_weights(caches, tmp_path):
    recipe = tiny(
        stages=[{"images": 24, "mixture": {"painted": 1.0, "labelled": 1.0}}],
        autoencoders=[{**AUTOENCODERS[0].model_dump(), "faces": 4}],
    )
    painted = paint_recipe_faces(recipe, caches, tmp_path)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    Trainer(recipe, caches, whole, painted=painted).run()
    Trainer(recipe, caches, cut, painted=painted).run(until_step=3)
    Trainer(recipe, caches, cut, painted=painted).run()
    assert_same_run(cut, whole)


@pytest.mark.parametrize(
    "change",
    [{"seed": 2}, {"architecture": {"input_planes": "rgb"}}, {"optimisation": {"mask": 0.0}}],
    ids=["seed", "other planes", "other parts"],
)
def test_another_recipe_in_the_same_folder_is_rejected(change, caches, undisturbed):
    with pytest.raises(TrainingError, match="another recipe"):
        Trainer(tiny(**change), caches, undisturbed)


def test_a_run_resumes_on_other_hardware_only_with_the_same_images_per_step(caches, tmp_path):
    Trainer(tiny(), caches, tmp_path).run(until_step=1)
    assert Trainer(tiny(hardware={"precision": "bf16-mixed"}), caches, tmp_path).progress.step == 1
    index = json.loads((tmp_path / "state.json").read_text())
    (tmp_path / "state.json").write_text(json.dumps({**index, "images_per_step": 8}))
    with pytest.raises(TrainingError, match="saved with 8 images per step, but this run has 4"):
        Trainer(tiny(), caches, tmp_path)


def test_patience_stops_the_run_and_keeps_the_best_state(caches, tmp_path, monkeypatch):
    selections = iter([0.5, 0.7, 0.6, 0.65, 0.7, 0.8])

    class Scripted:
        def __init__(self, *_):
            pass

        def measure(self, *_):
            return {"selection": next(selections)}

    monkeypatch.setattr(trainer_module, "ValidationFaces", Scripted)

    def run(patience):
        recipe = tiny(optimisation={"batch": 2}, validation={"every_images": 2, "patience": patience})
        trainer = Trainer(recipe, caches, tmp_path)
        trainer.run(until_step=6)
        return trainer.progress.step

    def selection(name):
        return read_manifest(tmp_path / name).metrics["selection"]

    assert run(patience=2) == 4
    assert (selection("best"), selection("last")) == (0.7, 0.65)
    assert run(patience=2) == 4  # Started again, it has nothing left to do.
    assert run(patience=3) == 5  # As good as the best is not better.
    assert (selection("best"), selection("last")) == (0.7, 0.7)
    assert read_manifest(tmp_path / "best").weights != read_manifest(tmp_path / "last").weights
    assert run(patience=0) == 6
    assert (selection("best"), selection("last")) == (0.8, 0.8)


def test_a_loss_that_is_not_a_number_ends_the_run(caches, tmp_path):
    trainer = Trainer(tiny(), caches, tmp_path)
    with torch.no_grad():
        trainer.model.module.network.head.decide.bias.fill_(math.nan)
    with pytest.raises(TrainingError, match="at step 0"):
        trainer.run()
    assert read_index(tmp_path) is None


def test_a_step_with_a_non_finite_loss_is_not_saved(caches, tmp_path):
    trainer = Trainer(tiny(save_every_s=0.0), caches, tmp_path)
    trainer.run(until_step=2)
    with torch.no_grad():
        trainer.model.module.network.head.decide.bias.fill_(math.nan)
    with pytest.raises(TrainingError, match="at step 2"):
        trainer.run()
    assert read_index(tmp_path)["progress"]["step"] == 2
    assert all(tensor.isfinite().all() for tensor in read_tensors(tmp_path, read_index(tmp_path)).values())


class Counted(Trainer):
    """Counts, for each step, the times that a device would have been waited for."""

    def __init__(self, *args, **named):
        super().__init__(*args, **named)
        self.waits = []

    def train_step(self, *batch):
        with SynchronisationCounter() as seen:
            loss = super().train_step(*batch)
        self.waits.append(seen.count)
        return loss


@pytest.mark.parametrize("augment_on", ["loaders", "device"])
@pytest.mark.parametrize("precision", [{}, BFLOAT16], ids=["32-true", "bf16-mixed"])
def test_only_reading_the_loss_synchronises_with_the_device(precision, augment_on, caches, tmp_path):
    recipe = tiny(
        **precision,
        validation={"every_images": 10**6},
        augment_on=augment_on,
        augmentation={"rescale": 0.5, "blur": 0.5, "noise": 0.5, "sharpen": 0.5, "jpeg": 1.0, "h264": 0.0},
    )
    trainer = Counted(recipe, caches, tmp_path)
    with SynchronisationCounter() as all_seen:
        trainer.run(until_step=3)
    assert trainer.waits == [0] * 3
    assert all_seen.count == 3 + 1  # The DataLoader draws a seed, on CPU.


def test_synchronising_operations_are_counted():
    value = torch.tensor(1.5)
    with SynchronisationCounter() as seen:
        assert float(value) == 1.5
        assert torch.isfinite(value)
        value.add(1).sqrt()
    assert seen.count == 2


def test_many_short_calls_give_the_same_weights_as_one(caches, undisturbed, tmp_path):
    spells = 0
    while True:
        trainer = Trainer(tiny(), caches, tmp_path)
        if trainer.is_finished:
            break
        trainer.run(deadline_s=time.monotonic())  # It has passed when the first step ends.
        assert trainer.progress.step == spells + 1
        spells += 1
    assert spells == 6
    assert_same_run(tmp_path, undisturbed)


class Seen(Trainer):
    """Keeps what the network is shown."""

    def compute_loss(self, pictures, *rest):
        self.pictures = [*getattr(self, "pictures", []), pictures]
        return super().compute_loss(pictures, *rest)


def test_device_augmentation_reaches_the_network_and_survives_resuming(caches, tmp_path):
    changes = {**PLAIN, "colour": 1.0, "jpeg": 1.0, "noise": 0.5}
    plain, changed = (
        tiny(augment_on="device", augmentation=augmentation, stages=[{"images": 16, "mixture": {"textbook": 1.0}}])
        for augmentation in (PLAIN, changes)
    )
    shown = [Seen(recipe, caches, tmp_path / name) for recipe, name in ((plain, "plain"), (changed, "changed"))]
    for trainer in shown:
        trainer.run()
    for before, after in zip(*(trainer.pictures for trainer in shown), strict=True):
        assert before.dtype == after.dtype == torch.uint8
        assert (before.float() - after.float()).abs().mean((1, 2, 3)).min() > 1.0
    for step in (1, None):
        Trainer(changed, caches, tmp_path / "stopped").run(until_step=step)
    assert_same_run(tmp_path / "stopped", tmp_path / "changed")


def test_the_command_pauses_after_its_minutes(data, caches, undisturbed, tmp_path, capsys):
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(settings()))
    command = ["train", str(tmp_path / "recipe.yaml"), str(data), "--caches", str(caches[0].parent)]
    command += ["--run", str(tmp_path / "run")]
    assert main([*command, "--minutes", "1e-9"]) == 0
    assert "paused after 4 of 24 images" in capsys.readouterr().out
    assert main([*command, "--minutes", "60"]) == 0
    assert "paused" not in capsys.readouterr().out
    assert_same_run(tmp_path / "run", undisturbed)


@pytest.mark.parametrize("file", [0, 1, 2])
def test_a_kill_between_the_files_of_a_state_never_mixes_states(file, caches, undisturbed, tmp_path, monkeypatch):
    monkeypatch.setattr(states, "MAX_FILE_BYTES", 1_000_000)
    Trainer(tiny(), caches, tmp_path).run(until_step=2)
    before = read_index(tmp_path)
    sizes = [(tmp_path / name).stat().st_size for name in before["files"]]
    assert len(sizes) > 2
    assert max(sizes) < 1_100_000
    save = states.save_file

    def killing(tensors, path, metadata):
        if path.name.endswith(f"-{file:02d}.safetensors"):
            path.write_bytes(b"half a file")
            raise Killed
        save(tensors, path, metadata)

    monkeypatch.setattr(states, "save_file", killing)
    with pytest.raises(Killed):
        Trainer(tiny(), caches, tmp_path).run(until_step=4)
    assert read_index(tmp_path) == before
    monkeypatch.setattr(states, "save_file", save)
    Trainer(tiny(), caches, tmp_path).run()
    assert_same_run(tmp_path, undisturbed)
    kept = {path.name for path in tmp_path.glob("state-*")}
    assert kept == set(read_index(tmp_path)["files"])


def test_mixed_and_outdated_states_are_rejected(caches, tmp_path):
    Trainer(tiny(), caches, tmp_path / "one").run(until_step=1)
    Trainer(tiny(), caches, tmp_path / "two").run(until_step=2)
    name = read_index(tmp_path / "one")["files"][0]
    shutil.copy(tmp_path / "two" / name, tmp_path / "one" / name)
    with pytest.raises(TrainingError, match="belongs to another state"):
        Trainer(tiny(), caches, tmp_path / "one")
    (tmp_path / "two" / name).unlink()
    with pytest.raises(TrainingError, match="cannot be read"):
        Trainer(tiny(), caches, tmp_path / "two")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "state.ckpt").touch()
    with pytest.raises(TrainingError, match="older version"):
        Trainer(tiny(), caches, tmp_path / "old")


def test_a_validation_set_without_faces_is_rejected_before_the_first_step(tmp_path):
    caches = write_caches(make_data(tmp_path / "data", validation=0), tmp_path / "caches")
    trainer = Trainer(tiny(), caches, tmp_path / "run")
    with pytest.raises(DataError, match="validation"):
        trainer.run()
    assert trainer.progress.step == 0


def test_the_command_reports_what_is_wrong_with_a_recipe(tmp_path, capsys):
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(settings(version=1, surprise=2)))
    assert main(["train", str(tmp_path / "recipe.yaml"), str(tmp_path), "--run", str(tmp_path / "run")]) == 2
    message = capsys.readouterr().err
    assert "version" in message
    assert "surprise" in message


LN2, LN3, LN4 = math.log(2), math.log(3), math.log(4)


@pytest.mark.parametrize(
    ("real", "fake", "given", "expected"),
    [
        ([0.0], [0.0], {"loss": "bce"}, LN2),
        # A real picture that is called fake at 3 : 1 has the probability 1/4 of being right.
        ([LN3], [0.0], {"loss": "bce"}, (LN4 + LN2) / 2),
        ([-LN3], [LN3], {"loss": "bce"}, math.log(4 / 3)),
        ([LN3], [0.0], {"loss": "focal", "focal_gamma": 2.0}, (9 / 16 * LN4 + 1 / 4 * LN2) / 2),
        ([-LN3], [LN3], {"loss": "focal", "focal_gamma": 2.0}, math.log(4 / 3) / 16),
        ([LN3], [0.0], {"loss": "focal", "focal_gamma": 0.0}, (LN4 + LN2) / 2),
        ([-80.0], [80.0], {"loss": "focal", "focal_gamma": 2.0}, 0.0),
    ],
)
def test_losses_agree_with_their_papers(real, fake, given, expected):
    logits = torch.tensor(real + fake)
    loss = pair_loss(logits, torch.ones(1), Optimisation(ranking=0.0, **given))
    assert loss.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("aligned", "expected"),
    [([1.0, 1.0], (LN4 + math.log(1 + math.exp(-1))) / 2), ([1.0, 0.0], LN4), ([0.0, 0.0], 0.0)],
    ids=["both", "first", "none"],
)
def test_the_ranking_loss_compares_the_pictures_of_aligned_pairs(aligned, expected):
    logits, pairs = torch.tensor([LN3, 1.0, 0.0, 2.0]), torch.tensor(aligned)
    losses = [pair_loss(logits, pairs, Optimisation(ranking=weight)).item() for weight in (0.0, 0.5)]
    assert losses[1] - losses[0] == pytest.approx(0.5 * expected, abs=1e-6)


@pytest.mark.parametrize(
    ("aligned", "expected"),
    # Logits of the pairs: LN3 and 0, whose middle is LN3 / 2; 1 and 2, whose middle is 1.5.
    [([1.0, 1.0], ((LN3 / 2) ** 2 + 1.5**2) / 2), ([1.0, 0.0], (LN3 / 2) ** 2), ([0.0, 0.0], 0.0)],
    ids=["both", "first", "none"],
)
def test_the_centring_loss_centres_the_logits_of_aligned_pairs(aligned, expected):
    logits, pairs = torch.tensor([LN3, 1.0, 0.0, 2.0]), torch.tensor(aligned)
    losses = [pair_loss(logits, pairs, Optimisation(centring=weight)).item() for weight in (0.0, 0.5)]
    assert losses[1] - losses[0] == pytest.approx(0.5 * expected, abs=1e-6)


@pytest.mark.parametrize(
    ("seen", "expected"),
    [(0, 1 / 100), (49, 0.5), (99, 1.0), (100, 1.0), (600, 0.505), (1100, 0.01), (5000, 0.01)],
)
def test_the_learning_rate_warms_up_and_falls_by_half_a_cosine(seen, expected):
    assert learning_rate_factor(seen, 1100, 100) == pytest.approx(expected)


def test_without_warm_up_the_learning_rate_starts_at_its_maximum():
    assert learning_rate_factor(0, 100, 0) == pytest.approx(1.0)


def test_each_parameter_group_has_its_learning_rate_and_decay(caches, tmp_path):
    recipe = tiny(optimisation={"learning_rate": 1e-4, "head_learning_rate": 1e-2, "weight_decay": 0.1})
    trainer = Trainer(recipe, caches, tmp_path)
    trainer.run(until_step=2)
    rates = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in trainer.optimizer.param_groups
        for parameter in group["params"]
    }
    network = trainer.model.module.network
    backbone = dict(network.features.network.named_parameters())
    # The second step began after four images, at the fifth of the eight that warming up takes.
    for parameter, rate, decay in (
        (network.head.decide.weight, 1e-2, 0.1),
        (network.head.decide.bias, 1e-2, 0.0),
        (backbone["_conv_stem.weight"], 1e-2, 0.1),
        (backbone["_conv_head.weight"], 1e-4, 0.1),
        (backbone["_bn1.weight"], 1e-4, 0.0),
        (trainer.model.module.locate[2].weight, 1e-2, 0.1),
    ):
        assert rates[id(parameter)] == pytest.approx((rate * 5 / 8, decay))


def test_the_average_follows_quickly_at_first_then_with_its_decay(caches, tmp_path):
    trainer = Trainer(tiny(optimisation={"ema_decay": 0.3}), caches, tmp_path)
    expected = None
    for step, share in ((1, None), (2, 2 / 11), (3, 3 / 12), (4, 0.3), (5, 0.3)):
        trainer.run(until_step=step)
        weights = trainer.model.module.network.head.reduce[0].weight.detach().clone()
        expected = weights if share is None else share * expected + (1 - share) * weights
        assert torch.allclose(trainer.network.head.reduce[0].weight, expected, atol=1e-7)
    norms = [each.head.reduce[1] for each in (trainer.network, trainer.model.module.network)]
    assert norms[0].num_batches_tracked == norms[1].num_batches_tracked == 5
    assert not torch.equal(norms[0].running_mean, norms[1].running_mean)


def test_a_run_can_start_from_a_checkpoint_of_the_same_architecture(undisturbed):
    start = {"start": str(undisturbed / "last")}
    given = load_checkpoint(undisturbed, "last").network.state_dict()
    begun = make_initial_network(tiny(**start)).state_dict()
    assert all(torch.equal(value, given[name]) for name, value in begun.items())
    with pytest.raises(DataError, match="another architecture"):
        make_initial_network(tiny(**start, architecture={"head_channels": 16}))
    with pytest.raises(DataError, match="cannot start from"):
        make_initial_network(tiny(start=str(undisturbed / "absent")))


@pytest.mark.nightly
def test_two_devices_train_together_on_different_batches(caches, tmp_path):
    script = Path(__file__).with_name("two_devices.py")
    recipe = tmp_path / "recipe.yaml"
    # Validates, saves and loses patience, each of which all ranks have to do together.
    hardware = {"devices": 2}
    validation = {"every_images": 16, "patience": 1}
    optimisation = {"learning_rate": 1e-9, "head_learning_rate": 1e-9}
    stages = [{"images": 400, "mixture": {"labelled": 1.0, "textbook": 1.0}}]
    recipe.write_text(
        yaml.safe_dump(
            settings(hardware=hardware, validation=validation, optimisation=optimisation, stages=stages, save_every_s=0)
        )
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, str(script), str(recipe), str(caches[0]), str(tmp_path)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert ended.returncode == 0, ended.stderr
    ranks = [json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in (0, 1)]
    batches = [batch for rank in ranks for batch in rank["batches"]]
    assert len(set(batches)) == len(batches) >= 8
    assert ranks[0]["steps"] == ranks[1]["steps"] < 50
    assert ranks[0]["weights"] == ranks[1]["weights"]
    # Together they saw what one device with twice the batch would have seen.
    assert [row["images"] for row in curves(tmp_path / "run")][:2] == ["16", "32"]
