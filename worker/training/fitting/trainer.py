"""
The trainer: from a recipe and crop caches to weights, on CPU or on one or several GPUs, by Lightning Fabric.

The folder of a run has ``state.json`` and the files of the state to resume from, ``curves.csv``, ``best/`` with the
checkpoint that was best on the validation set, and ``last/`` with the newest. Everything random follows from the seed
and the number of the step, so that a run that was killed at any moment resumes from its last saved state and ends with
the same weights. The files of a validation are written before the state that includes it, and again if the run was
killed between the two.

The host never waits for a GPU within a step: the loss, the only number it reads, is read during the next step.
"""

import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from tqdm import tqdm

from worker.inference import is_bfloat16_fast
from worker.model.network import ForgeryNetwork
from worker.threads import bound_threads
from worker.training.errors import TrainingError
from worker.training.fakes.device_augmentation import OnDevice
from worker.training.fitting.averaging import WeightAverage
from worker.training.fitting.depthwise import keep_freed_memory, use_fast_depthwise
from worker.training.fitting.distillation import Teacher, distillation_loss
from worker.training.fitting.exports import export_checkpoint
from worker.training.fitting.initial_weights import make_initial_network
from worker.training.fitting.inputs import make_pair_stream
from worker.training.fitting.loaders import Batch, DeviceBatches, start_loaders
from worker.training.fitting.localising import LocalisingNetwork, mask_loss
from worker.training.fitting.losses import PendingLoss, pair_loss
from worker.training.fitting.optimisers import (
    freeze_batch_norms,
    learning_rate_factor,
    make_optimizer,
    restore_optimizer,
    set_batch_norm_momentum,
)
from worker.training.fitting.progress import Progress, append_curves
from worker.training.fitting.recipes import Hardware, Precision, Recipe
from worker.training.fitting.states import INDEX_FILE, check_recipe, read_tensors, write_state
from worker.training.fitting.timing import Timer, no_timer
from worker.training.fitting.validation import ValidationFaces

STEPS_BETWEEN_AGREEMENTS = 16
"""Steps between two at which several ranks, waiting for each other, agree whether to save or to stop."""


class Trainer:
    """
    One training run.

    Args:
        recipe: Settings of the run.
        caches: Folders of crops.
        folder: Folder of the run; if it holds a state, the run resumes from it.
        painted: Crop caches that the recipe's networks painted from those in *caches*.
        shuffle_labels: Whether to train on random labels, for a test.
        timer: Measures the time of the parts of a step.

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
        timer: Timer = no_timer,
    ) -> None:
        self.recipe = recipe
        self.folder = folder
        self._caches = list(caches)
        self._painted = list(painted)
        self._shuffle_labels = shuffle_labels
        self._timer = timer
        hardware = recipe.hardware
        bound_threads(hardware.threads)
        self._fabric = make_fabric(hardware, "32-true" if hardware.precision == "auto" else hardware.precision)
        self.progress = Progress()
        about = self._read_saved_index()
        # Loaders are forked before other processes of this run are started and before a device is used: see loaders.
        is_early = hardware.loader_processes > 0 and not self.is_finished
        self._batches: Iterator[Batch] | None = self.start_batches() if is_early else None
        if hardware.precision == "auto":
            # After the forks, since this uses a GPU.
            self._fabric = make_fabric(hardware, choose_precision(self._fabric.device))
        self._fabric.launch()
        torch.manual_seed(recipe.seed)
        network = make_initial_network(recipe)
        self._on_cpu = self._fabric.device.type == "cpu"
        if self._on_cpu:
            keep_freed_memory()
            use_fast_depthwise(network)
        set_batch_norm_momentum(network, recipe.optimisation.batch_norm_momentum)
        network = network.to(memory_format=torch.channels_last)
        self._average = WeightAverage(network, recipe.optimisation.ema_decay, self._fabric.device)
        module: nn.Module = LocalisingNetwork(network) if recipe.optimisation.mask else network
        # The fused optimiser unscales gradients itself, too late for clipping.
        optimizer = make_optimizer(module, recipe.optimisation, fused=hardware.precision != "16-mixed")
        self.model, self.optimizer = self._fabric.setup(module, optimizer)
        """The network that is trained, wrapped for its devices, and its optimiser."""
        self._teacher: Teacher | None = None
        if recipe.distillation is not None:
            self._teacher = Teacher(recipe.distillation.teacher, recipe.preprocessing, self._fabric.device)
        self._device_augmentation: OnDevice | None = None
        if recipe.augment_on == "device":
            stages = [(stage.images // 2, stage.augmentation or recipe.augmentation) for stage in recipe.stages]
            self._device_augmentation = OnDevice(stages, recipe.seed)
        if about is not None:
            self._resume(about)

    @property
    def network(self) -> ForgeryNetwork:
        """The averaged network, which is validated and exported."""
        return cast("ForgeryNetwork", self._average.module)

    @property
    def is_first(self) -> bool:
        """Whether this process is the first of its run, which alone writes files."""
        return self._fabric.global_rank == 0

    @property
    def images_per_step(self) -> int:
        """Images in a step over all devices."""
        return self.recipe.optimisation.batch * self._fabric.world_size

    @property
    def is_finished(self) -> bool:
        """Whether the run has reached its last step or run out of patience."""
        return self.progress.step >= self._last_step or self._is_stale

    def run(self, *, until_step: int | None = None, deadline_s: float | None = None) -> dict[str, float]:
        """
        Train to the end, to a step, or to a deadline, and save the state.

        Args:
            until_step: Step to stop at.
            deadline_s: Time to stop at, on the clock of ``time.monotonic`` of the first rank. It causes no validation.

        Returns:
            The measures of the last validation; empty if there was none.

        Raises:
            TrainingError: The loss is not a number.
        """
        recipe, progress = self.recipe, self.progress
        last_step = self._last_step
        target = last_step if until_step is None else min(until_step, last_step)
        every = max(1, recipe.validation.every_images // self.images_per_step)
        validation = ValidationFaces(recipe, self._caches) if self._fabric.global_rank == 0 else None
        measured: dict[str, float] = {}
        batches = self.start_batches() if self._batches is None else self._batches
        feed = DeviceBatches(batches, self._fabric.device, self._timer)
        saved_at, is_saved = time.monotonic(), False
        shown = progress.step * self.images_per_step
        with tqdm(total=recipe.images, initial=shown, unit="img", disable=self._fabric.global_rank != 0) as bar:
            pending: PendingLoss | None = None
            while progress.step < target and not self._is_stale:
                began = time.monotonic()
                loss = PendingLoss(progress.step, self.train_step(*feed.next_batch()))
                progress.step += 1
                is_saved = False
                is_due = progress.step % every == 0 or progress.step == last_step
                if progress.step < target:
                    feed.prefetch()
                self._record_loss(pending)
                pending = loss
                now = time.monotonic()
                progress.seconds += now - began
                must_save, must_stop = self._agree(
                    now - saved_at > recipe.save_every_s, deadline_s is not None and now > deadline_s
                )
                bar.update(self.images_per_step)
                bar.set_postfix(loss=f"{progress.loss or 0.0:.4f}", refresh=False)
                if is_due or must_save or must_stop:
                    self._record_loss(pending)
                    pending = None
                    if is_due:
                        measured = self._validate(validation)
                    self._save_state()
                    saved_at, is_saved = time.monotonic(), True
                if must_stop:
                    break
            self._record_loss(pending)
        if not is_saved:
            self._save_state()
        # The loaders are ahead of the step at which another call would resume.
        self._batches = None
        return measured

    def take_unsaved_steps(self, steps: int) -> None:
        """Train for *steps* without validating or saving, to measure their cost."""
        if self._batches is None:
            self._batches = self.start_batches()
        feed = DeviceBatches(self._batches, self._fabric.device, self._timer)
        for left in reversed(range(steps)):
            loss = PendingLoss(self.progress.step, self.train_step(*feed.next_batch()))
            self.progress.step += 1
            if left:
                feed.prefetch()
            self._record_loss(loss)

    @property
    def _last_step(self) -> int:
        return math.ceil(self.recipe.images / self.images_per_step)

    def _agree(self, must_save: bool, must_stop: bool) -> tuple[bool, bool]:
        """Return the decision of the first rank: all ranks save and stop together, and their clocks differ."""
        if self._fabric.world_size == 1:
            return must_save, must_stop
        if self.progress.step % STEPS_BETWEEN_AGREEMENTS:
            return False, False
        agreed: tuple[bool, bool] = self._fabric.broadcast((must_save, must_stop))
        return agreed

    def _record_loss(self, pending: PendingLoss | None) -> None:
        """
        Read the loss of a step, if any, and update the smoothed loss.

        Raises:
            TrainingError: It is not a number. That step was not saved.
        """
        if pending is None:
            return
        loss = pending.read()
        if not math.isfinite(loss):
            raise TrainingError(f"the loss is not a number at step {pending.step}")
        self.progress.record_loss(loss)

    @property
    def _is_stale(self) -> bool:
        patience = self.recipe.validation.patience
        return patience > 0 and self.progress.stale >= patience

    def start_batches(self) -> Iterator[Batch]:
        """Start the loaders and return their batches from the current step on."""
        pairs = make_pair_stream(
            self.recipe,
            self._caches,
            painted=self._painted,
            first=self.progress.step,
            rank=self._fabric.global_rank,
            ranks=self._fabric.world_size,
            shuffle_labels=self._shuffle_labels,
        )
        return start_loaders(pairs, self.recipe.hardware.loader_processes)

    def train_step(self, pictures: Tensor, aligned: Tensor, masks: Tensor) -> Tensor:
        """
        Train on one batch, of (2N, 3, S, S) bytes, or (4N, 3, S, S) with the clean pictures for a teacher.

        Returns:
            The loss, which the device may still be computing.
        """
        progress, optimisation = self.progress, self.recipe.optimisation
        # Dropout follows from the step as well. Tuples of numbers have the same hash in every process.
        torch.manual_seed(hash((self.recipe.seed, progress.step, self._fabric.global_rank)))
        factor = learning_rate_factor(
            progress.step * self.images_per_step, self.recipe.images, optimisation.warm_up_images
        )
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        self.model.train()
        if optimisation.freeze_batch_norm:
            freeze_batch_norms(self.model)
        targets: Tensor | None = None
        if self._teacher is not None:
            pictures, clean = pictures.chunk(2)
            with self._timer("teacher"):
                targets = self._teacher.score(clean)
        if self._device_augmentation is not None:
            with self._timer("augmentation"):
                number = progress.step * self._fabric.world_size + self._fabric.global_rank
                pictures = self._device_augmentation.apply(pictures, number)
        with self._timer("forward"):
            loss = self.compute_loss(pictures, aligned, masks, targets)
        self.optimizer.zero_grad()
        with self._timer("backward"):
            self._fabric.backward(loss)
        with self._timer("optimiser"):
            self._fabric.clip_gradients(
                self.model, self.optimizer, max_norm=optimisation.clip, error_if_nonfinite=False
            )
            self.optimizer.step()
        with self._timer("average"):
            module = self.model.module
            self._average.update(module.network if isinstance(module, LocalisingNetwork) else module)
        return loss.detach()

    def compute_loss(self, pictures: Tensor, aligned: Tensor, masks: Tensor, targets: Tensor | None = None) -> Tensor:
        """
        Return the loss of a batch.

        Args:
            pictures: (2N, 3, S, S) bytes.
            masks: Ignored if the recipe has no mask loss.
            targets: (2N,) logits of a teacher.
        """
        optimisation, distillation = self.recipe.optimisation, self.recipe.distillation
        faces = (pictures.to(torch.float32) / 255.0).contiguous(memory_format=torch.channels_last)
        if optimisation.mask:
            logits, mask_logits = self.model(faces)
            loss = pair_loss(logits.float(), aligned, optimisation)
            loss = loss + optimisation.mask * mask_loss(mask_logits.float(), masks)
        else:
            logits = self.model(faces)
            loss = pair_loss(logits.float(), aligned, optimisation)
        if distillation is None or targets is None:
            return loss
        return distillation.labels * loss + distillation.weight * distillation_loss(
            logits.float(), targets, distillation.temperature
        )

    def _validate(self, validation: ValidationFaces | None) -> dict[str, float]:
        """Validate on the first rank, while the others wait for its measures, at most as long as Fabric allows."""
        measured: dict[str, float] = {}
        progress = self.progress
        if validation is not None:
            measured = validation.measure(self.network, self._fabric.device)
            better = measured["selection"] > progress.best
            progress.best = max(progress.best, measured["selection"])
            progress.stale = 0 if better else progress.stale + 1
            row = {"images": progress.step * self.images_per_step, "seconds": round(progress.seconds, 1)}
            append_curves(self.folder, {**row, "loss": progress.loss or 0.0, **measured})
            tqdm.write(" ".join(f"{key}={value:.4g}" for key, value in {**row, **measured}.items()))
            for name in ["last", "best"] if better else ["last"]:
                export_checkpoint(self.folder / name, self.recipe, self.network, measured)
        # All ranks must stop at the same step.
        measured, progress.best, progress.stale = self._fabric.broadcast((measured, progress.best, progress.stale))
        return measured

    def _save_state(self) -> None:
        if self._fabric.global_rank == 0:
            progress = self.progress
            about = {
                "progress": {name: getattr(progress, name) for name in Progress.__slots__},
                "recipe": self.recipe.digest(),
                "images_per_step": self.images_per_step,
                "averaged": self._average.count,
                "precision": self._fabric.strategy.precision.state_dict(),
            }
            write_state(self.folder, about, self._collect_tensors())
        self._fabric.barrier()

    def _collect_tensors(self) -> dict[str, Tensor]:
        """Collect the tensors of the state; the options of the optimiser follow from the recipe."""
        parts = {"model": self.model.module.state_dict(), "average": self._average.module.state_dict()}
        for number, values in self.optimizer.optimizer.state_dict()["state"].items():
            parts[f"optimizer/{number}"] = values
        return {f"{part}/{name}": value for part, values in parts.items() for name, value in values.items()}

    def _read_saved_index(self) -> dict[str, Any] | None:
        """Read the index of the state to resume from, if any, and its progress."""
        about = check_recipe(self.folder, self.recipe)
        if about is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            return None
        images = about["images_per_step"]
        if images != self.images_per_step:
            raise TrainingError(
                f"{self.folder / INDEX_FILE} was saved with {images} images per step, but this run has"
                f" {self.images_per_step}"
            )
        self.progress = Progress(**about["progress"])
        return about

    def _resume(self, about: dict[str, Any]) -> None:
        parts: dict[str, dict[str, Tensor]] = {}
        for path, tensor in read_tensors(self.folder, about).items():
            part, name = path.rsplit("/", 1)
            parts.setdefault(part, {})[name] = tensor
        self.model.module.load_state_dict(parts["model"])
        self._average.module.load_state_dict(parts["average"])
        self._average.count = about["averaged"]
        self._fabric.strategy.precision.load_state_dict(about["precision"])
        saved = {int(part.split("/")[1]): values for part, values in parts.items() if part.startswith("optimizer/")}
        restore_optimizer(self.optimizer.optimizer, saved)


def make_fabric(hardware: Hardware, precision: Precision) -> Fabric:
    """Return what runs the training on *hardware*."""
    return Fabric(accelerator=hardware.accelerator, devices=hardware.devices, precision=precision)


def choose_precision(device: torch.device) -> Precision:
    """Return the fastest precision of *device* that needs no scaling of the loss, for the setting ``auto``."""
    return "bf16-mixed" if is_bfloat16_fast(device) else "32-true"
