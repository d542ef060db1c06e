"""
The trainer: from a recipe and crop caches to weights, on CPU or on one or several GPUs, by Lightning Fabric.

A run lives in a folder: ``state.json`` and the files it names to go on from, ``curves.csv``, ``best/`` with the
checkpoint that was best on the validation set, ``last/`` with the newest. Everything random follows from the seed and
the number of the step, so a run that was killed at any moment goes on from its last saved state and ends with the same
weights. What a validation writes is written before the state that knows of it, and again if the run was killed between
the two.

A GPU is never waited for within a step: the one number that is asked of it, the loss, is read while it works on the
step after.
"""

import csv
import math
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from shared.errors import ModelError
from shared.manifests import Calibration, Manifest, Weights
from worker.model.checkpoint import WEIGHTS_FILE, load_checkpoint, save_checkpoint
from worker.model.network import ForgeryNetwork
from worker.training.errors import DataError, TrainingError
from worker.training.fakes.on_device import OnDevice
from worker.training.fitting.averaging import Average
from worker.training.fitting.depthwise import keep_memory, use_fast_depthwise
from worker.training.fitting.inputs import make_couples
from worker.training.fitting.loaders import Batch, Feed, start_loaders
from worker.training.fitting.localising import LocalisingNetwork, mask_loss
from worker.training.fitting.recipes import Optimisation, Recipe
from worker.training.fitting.states import INDEX_FILE, read_index, read_tensors, write_state
from worker.training.fitting.stopwatch import Watch, unwatched
from worker.training.fitting.validation import ValidationFaces
from worker.training.pretrained import load_imagenet

CURVES_FILE = "curves.csv"
SMOOTHING = 0.98
"""Of the loss that the progress bar and the curves show."""
STEPS_ALONE = 16
"""Between two steps at which several ranks agree whether to save or to stop, for which they wait for each other."""


@dataclass(slots=True)
class Progress:
    """How far a run has come."""

    step: int = 0
    loss: float | None = None
    """Smoothed."""
    best: float = -math.inf
    """Largest ``selection`` of a validation so far."""
    stale: int = 0
    """Validations since then."""
    seconds: float = 0.0


class Trainer:
    """
    One run.

    Args:
        recipe: What to train.
        caches: Folders of crops.
        folder: Of the run; if it holds a state, the run goes on from there.
        painted: Folders of crops that the recipe's networks painted after those in *caches*.
        shuffle_labels: Train on coin tosses, for a test.
        watch: Measures what the parts of a step cost.

    Raises:
        TrainingError: The folder's state belongs to another recipe, or to another number of images in a step, or is
            damaged.
    """

    def __init__(
        self,
        recipe: Recipe,
        caches: Sequence[Path],
        folder: Path,
        *,
        painted: Sequence[Path] = (),
        shuffle_labels: bool = False,
        watch: Watch = unwatched,
    ) -> None:
        self.recipe = recipe
        self.folder = folder
        self._caches = list(caches)
        self._painted = list(painted)
        self._shuffle_labels = shuffle_labels
        self._watch = watch
        hardware = recipe.hardware
        if hardware.threads is not None:
            torch.set_num_threads(hardware.threads)
        self._fabric = Fabric(accelerator=hardware.accelerator, devices=hardware.devices, precision=hardware.precision)
        self.progress = Progress()
        about = self._about()
        # Before other processes of this run are started, and before anything is on a device: see the module.
        is_early = hardware.loader_processes > 0 and not self.is_finished
        self._batches: Iterator[Batch] | None = self._loader() if is_early else None
        self._fabric.launch()
        torch.manual_seed(recipe.seed)
        network = start_network(recipe)
        self._on_cpu = self._fabric.device.type == "cpu"
        if self._on_cpu:
            keep_memory()
            use_fast_depthwise(network)
        _set_momentum(network, recipe.optimisation.batch_norm_momentum)
        network = network.to(memory_format=torch.channels_last)
        self._average = Average(network, recipe.optimisation.ema_decay, self._fabric.device)
        module: nn.Module = LocalisingNetwork(network) if recipe.optimisation.mask else network
        # Gradients that a scaler has to undo first cannot be clipped in front of the fused optimiser.
        optimizer = _optimizer(module, recipe.optimisation, fused=hardware.precision != "16-mixed")
        self._model, self._optimizer = self._fabric.setup(module, optimizer)
        self._changes: OnDevice | None = None
        if recipe.augment_on == "device":
            stages = [(stage.images // 2, stage.augmentation or recipe.augmentation) for stage in recipe.stages]
            self._changes = OnDevice(stages, recipe.seed)
        if about is not None:
            self._resume(about)

    @property
    def network(self) -> ForgeryNetwork:
        """The averaged network, which is what is validated and saved."""
        return cast("ForgeryNetwork", self._average.module)

    @property
    def is_first(self) -> bool:
        """Whether this process is the first of its run, the one that writes."""
        return self._fabric.global_rank == 0

    @property
    def images_per_step(self) -> int:
        """Over all devices."""
        return self.recipe.optimisation.batch * self._fabric.world_size

    @property
    def is_finished(self) -> bool:
        """Whether there is nothing left to do."""
        return self.progress.step >= self._last_step or self._is_stale

    def run(self, *, until_step: int | None = None, deadline_s: float | None = None) -> dict[str, float]:
        """
        Train to the end, or to a step, or until it is time to stop.

        Args:
            deadline_s: On the clock of ``time.monotonic``: the first rank's counts. What the run has come to is saved
                then, and a validation is made only if it was due anyway.

        Returns:
            The last validation's measures; empty if there was none.
        """
        recipe, progress = self.recipe, self.progress
        last_step = self._last_step
        target = last_step if until_step is None else min(until_step, last_step)
        every = max(1, recipe.validation.every_images // self.images_per_step)
        validation = ValidationFaces(recipe, self._caches) if self._fabric.global_rank == 0 else None
        measured: dict[str, float] = {}
        batches = self._loader() if self._batches is None else self._batches
        feed = Feed(batches, self._fabric.device, self._watch)
        saved_at = time.monotonic()
        shown = progress.step * self.images_per_step
        with tqdm(total=recipe.images, initial=shown, unit="img", disable=self._fabric.global_rank != 0) as bar:
            late: _LateLoss | None = None
            while progress.step < target and not self._is_stale:
                began = time.monotonic()
                loss = _LateLoss(progress.step, self._step(*feed.take()))
                progress.step += 1
                is_due = progress.step % every == 0 or progress.step == last_step
                if progress.step < target:
                    feed.advance()
                self._note(late)
                late = loss
                now = time.monotonic()
                progress.seconds += now - began
                must_save, must_stop = self._agreed(
                    now - saved_at > recipe.save_every_s, deadline_s is not None and now > deadline_s
                )
                bar.update(self.images_per_step)
                bar.set_postfix(loss=f"{progress.loss or 0.0:.4f}", refresh=False)
                if is_due or must_save or must_stop:
                    self._note(late)
                    late = None
                    if is_due:
                        measured = self._validate(validation)
                    self._save()
                    saved_at = time.monotonic()
                if must_stop:
                    break
            self._note(late)
        self._save()
        # Its processes have made batches ahead of where a next run would go on.
        self._batches = None
        return measured

    def rehearse(self, steps: int) -> None:
        """Take *steps* as ``run`` does, but validate and save nothing: to measure them."""
        if self._batches is None:
            self._batches = self._loader()
        feed = Feed(self._batches, self._fabric.device, self._watch)
        for left in reversed(range(steps)):
            loss = _LateLoss(self.progress.step, self._step(*feed.take()))
            self.progress.step += 1
            if left:
                feed.advance()
            self._note(loss)

    @property
    def _last_step(self) -> int:
        return math.ceil(self.recipe.images / self.images_per_step)

    def _agreed(self, must_save: bool, must_stop: bool) -> tuple[bool, bool]:
        """What the first rank says: saving and stopping is done by all ranks together, and their clocks differ."""
        if self._fabric.world_size == 1:
            return must_save, must_stop
        if self.progress.step % STEPS_ALONE:
            return False, False
        agreed: tuple[bool, bool] = self._fabric.broadcast((must_save, must_stop))
        return agreed

    def _note(self, late: "_LateLoss | None") -> None:
        """
        Take a step's loss into account.

        Raises:
            TrainingError: It is not a number. Nothing of that step was saved.
        """
        if late is None:
            return
        loss = late.read()
        if not math.isfinite(loss):
            raise TrainingError(f"the loss is not a number at step {late.step}")
        smoothing = SMOOTHING if self.progress.loss is not None else 0.0
        self.progress.loss = smoothing * (self.progress.loss or 0.0) + (1 - smoothing) * loss

    @property
    def _is_stale(self) -> bool:
        patience = self.recipe.validation.patience
        return patience > 0 and self.progress.stale >= patience

    def _loader(self) -> Iterator[Batch]:
        couples = make_couples(
            self.recipe,
            self._caches,
            painted=self._painted,
            first=self.progress.step,
            rank=self._fabric.global_rank,
            ranks=self._fabric.world_size,
            shuffle_labels=self._shuffle_labels,
        )
        return start_loaders(couples, self.recipe.hardware.loader_processes)

    def _step(self, pictures: Tensor, aligned: Tensor, masks: Tensor) -> Tensor:
        """Learn from one batch; gives its loss, which the device may still be working on."""
        progress, optimisation = self.progress, self.recipe.optimisation
        # Whatever is random within the network follows from the step, too. Numbers have the same hash in every process.
        torch.manual_seed(hash((self.recipe.seed, progress.step, self._fabric.global_rank)))
        factor = _learning_rate_factor(
            progress.step * self.images_per_step, self.recipe.images, optimisation.warm_up_images
        )
        for group in self._optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        self._model.train()
        if self._changes is not None:
            with self._watch("augmentation"):
                number = progress.step * self._fabric.world_size + self._fabric.global_rank
                pictures = self._changes.apply(pictures, number)
        with self._watch("forward"):
            loss = self._loss(pictures, aligned, masks)
        self._optimizer.zero_grad()
        with self._watch("backward"):
            self._fabric.backward(loss)
        with self._watch("optimiser"):
            self._fabric.clip_gradients(
                self._model, self._optimizer, max_norm=optimisation.clip, error_if_nonfinite=False
            )
            self._optimizer.step()
        with self._watch("average"):
            module = self._model.module
            self._average.update(module.network if isinstance(module, LocalisingNetwork) else module)
        return loss.detach()

    def _loss(self, pictures: Tensor, aligned: Tensor, masks: Tensor) -> Tensor:
        optimisation = self.recipe.optimisation
        faces = (pictures.to(torch.float32) / 255.0).contiguous(memory_format=torch.channels_last)
        if not optimisation.mask:
            return couple_loss(self._model(faces).float(), aligned, optimisation)
        logits, mask_logits = self._model(faces)
        loss = couple_loss(logits.float(), aligned, optimisation)
        return loss + optimisation.mask * mask_loss(mask_logits.float(), masks)

    def _validate(self, validation: ValidationFaces | None) -> dict[str, float]:
        """Validate on the first rank, while the others wait for what it finds, at most as long as Fabric lets them."""
        measured: dict[str, float] = {}
        progress = self.progress
        if validation is not None:
            measured = validation.measure(self.network, self._fabric.device)
            better = measured["selection"] > progress.best
            progress.best = max(progress.best, measured["selection"])
            progress.stale = 0 if better else progress.stale + 1
            row = {"images": progress.step * self.images_per_step, "seconds": round(progress.seconds, 1)}
            self._write_curves({**row, "loss": progress.loss or 0.0, **measured})
            tqdm.write(" ".join(f"{key}={value:.4g}" for key, value in {**row, **measured}.items()))
            for name in ["last", "best"] if better else ["last"]:
                self.export(self.folder / name, measured)
        # All ranks have to stop at the same step.
        measured, progress.best, progress.stale = self._fabric.broadcast((measured, progress.best, progress.stale))
        return measured

    def export(self, folder: Path, measured: dict[str, float]) -> Manifest:
        """Write the averaged network as a checkpoint, not yet calibrated and so not yet called trained."""
        recipe = self.recipe
        manifest = Manifest(
            name=recipe.name,
            version=recipe.version,
            trained=False,
            architecture=recipe.architecture,
            preprocessing=recipe.preprocessing,
            sampling=recipe.sampling,
            calibration=Calibration(temperature=1.0, threshold=0.5, uncertainty_band=(0.5, 0.5)),
            weights=Weights(file=WEIGHTS_FILE, sha256="0" * 64),
            training_data=[source.path.as_posix() for source in recipe.sources],
            metrics={key: round(value, 4) for key, value in measured.items()},
        )
        # A run that is killed here must not leave new weights beside an old manifest.
        partial, old = (folder.with_name(f"{folder.name}.{ending}") for ending in ("partial", "old"))
        for leftover in (partial, old):
            shutil.rmtree(leftover, ignore_errors=True)
        written = save_checkpoint(partial, manifest, self.network, f"# {recipe.name}\n\nNot calibrated yet.\n")
        if folder.exists():
            folder.rename(old)
        partial.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
        return written

    def _write_curves(self, row: dict[str, float]) -> None:
        """Add a row, and drop later ones, which a run wrote that was killed and went on from further back."""
        path = self.folder / CURVES_FILE
        rows: list[dict[str, Any]] = []
        if path.exists():
            with path.open(newline="") as file:
                rows = [old for old in csv.DictReader(file) if int(old["images"]) < row["images"]]
        partial = path.with_name(f"{CURVES_FILE}.partial")
        with partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(dict.fromkeys(key for each in (*rows, row) for key in each)))
            writer.writeheader()
            writer.writerows([*rows, row])
        partial.rename(path)

    def _save(self) -> None:
        if self._fabric.global_rank == 0:
            progress = self.progress
            about = {
                "progress": {name: getattr(progress, name) for name in Progress.__slots__},
                "recipe": self.recipe.digest(),
                "images_per_step": self.images_per_step,
                "averaged": self._average.count,
                "precision": self._fabric.strategy.precision.state_dict(),
            }
            write_state(self.folder, about, self._tensors())
        self._fabric.barrier()

    def _tensors(self) -> dict[str, Tensor]:
        """All that a state holds; the options of the optimiser follow from the recipe."""
        parts = {"model": self._model.module.state_dict(), "average": self._average.module.state_dict()}
        for number, values in self._optimizer.optimizer.state_dict()["state"].items():
            parts[f"optimizer/{number}"] = values
        return {f"{part}/{name}": value for part, values in parts.items() for name, value in values.items()}

    def _about(self) -> dict[str, Any] | None:
        """The index of the state to go on from, whose progress is taken over."""
        about = check_recipe(self.folder, self.recipe)
        if about is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            return None
        images = about["images_per_step"]
        if images != self.images_per_step:
            raise TrainingError(
                f"{self.folder / INDEX_FILE} counts steps of {images} images, and this run's have"
                f" {self.images_per_step}"
            )
        self.progress = Progress(**about["progress"])
        return about

    def _resume(self, about: dict[str, Any]) -> None:
        parts: dict[str, dict[str, Tensor]] = {}
        for path, tensor in read_tensors(self.folder, about).items():
            part, name = path.rsplit("/", 1)
            parts.setdefault(part, {})[name] = tensor
        self._model.module.load_state_dict(parts["model"])
        self._average.module.load_state_dict(parts["average"])
        self._average.count = about["averaged"]
        self._fabric.strategy.precision.load_state_dict(about["precision"])
        optimizer = self._optimizer.optimizer
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        state = {
            # Files hold tensors in plain order; the optimiser reads memory as its parameters lie in it.
            number: {
                name: torch.empty_like(parameter).copy_(value) if value.dim() else value
                for name, value in parts[f"optimizer/{number}"].items()
            }
            for number, parameter in enumerate(parameters)
            if f"optimizer/{number}" in parts
        }
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


class _LateLoss:
    """
    The loss of a step, on its way to the host.

    Args:
        loss: On a device, which may not have got to it yet.
    """

    def __init__(self, step: int, loss: Tensor) -> None:
        self.step = step
        self._loss = loss.to("cpu", non_blocking=True)
        self._arrived: torch.cuda.Event | None = None
        if loss.is_cuda:
            # Whoever waits for this waits for this step alone, not for what was asked of the device since.
            self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call] # torch has no types there
            self._arrived.record()

    def read(self) -> float:
        """Wait until it has arrived."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return float(self._loss)


def check_recipe(folder: Path, recipe: Recipe) -> dict[str, Any] | None:
    """
    Read what the state of the run in *folder* says of itself; nothing if there is none.

    Raises:
        TrainingError: It belongs to another recipe, or to an older version.
    """
    about = read_index(folder)
    if about is not None and about["recipe"] != recipe.digest():
        raise TrainingError(f"{folder / INDEX_FILE} belongs to another recipe; take another folder, or delete it")
    return about


def start_network(recipe: Recipe) -> ForgeryNetwork:
    """
    The network that training begins with: random, from ImageNet, or from a checkpoint.

    Raises:
        DataError: There is no such start, or not for this architecture.
    """
    network = ForgeryNetwork(recipe.architecture, recipe.preprocessing.crop_size_px)
    if recipe.start == "random":
        return network
    if recipe.start == "imagenet":
        load_imagenet(network)
        return network
    folder = Path(recipe.start)
    try:
        given = load_checkpoint(folder.parent, folder.name).network.state_dict()
    except ModelError as error:
        raise DataError(f"training cannot start from {folder}: {error}") from error
    try:
        network.load_state_dict(given)
    except RuntimeError as error:
        raise DataError(f"the checkpoint {folder} has another architecture") from error
    return network


def couple_loss(logits: Tensor, aligned: Tensor, optimisation: Optimisation) -> Tensor:
    """
    The loss of a batch of couples.

    Args:
        logits: (2B,), real before fake.
        aligned: (B,), 1 where the two of a couple may be ranked.

    Returns:
        Mean binary cross-entropy, or focal loss (Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017),
        plus the weighted ranking loss (Burges et al., "Learning to Rank using Gradient Descent", ICML 2005) and the
        weighted mean square of what the two of an aligned couple have in common.
    """
    real, fake = logits.chunk(2)
    margins = torch.cat([-real, fake])  # How far each logit lies on its own side.
    losses = functional.softplus(-margins)
    if optimisation.loss == "focal":
        losses = losses * torch.sigmoid(-margins) ** optimisation.focal_gamma
    count = aligned.sum().clamp(min=1.0)
    ranking = (functional.softplus(real - fake) * aligned).sum() / count
    common = ((real + fake).square() / 4 * aligned).sum() / count
    return losses.mean() + optimisation.ranking * ranking + optimisation.centring * common


def _optimizer(network: nn.Module, optimisation: Optimisation, *, fused: bool) -> torch.optim.Optimizer:
    """AdamW; weights decay, batch norms and biases do not, and what ImageNet did not train learns faster."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        # By whole parts of the name: the backbone has a "_conv_head", which ImageNet did train.
        is_new = not {"head", "locate", "_conv_stem"}.isdisjoint(name.split("."))
        rate = optimisation.head_learning_rate if is_new else optimisation.learning_rate
        decay = optimisation.weight_decay if parameter.dim() > 1 else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "lr": rate, "initial_lr": rate, "weight_decay": decay}
            for (rate, decay), parameters in groups.items()
        ],
        fused=fused,
    )


def _learning_rate_factor(seen: int, total: int, warm_up: int) -> float:
    """Linear warm-up, then half a cosine down to a hundredth (Loshchilov and Hutter, SGDR, ICLR 2017)."""
    if seen < warm_up:
        return (seen + 1) / warm_up
    share = min(1.0, (seen - warm_up) / max(1, total - warm_up))
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share))


def _set_momentum(network: nn.Module, momentum: float) -> None:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = momentum
