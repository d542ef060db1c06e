"""The cost of a recipe's steps on this machine: time by part, kernels, and pairs a second of a loader."""

import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, get_args

import torch
from torch.profiler import ProfilerActivity

from worker.training.fakes.generators.painting import PaintedKind
from worker.training.fakes.kinds import Kind, Stage
from worker.training.fitting.inputs import make_pair_stream
from worker.training.fitting.recipes import Recipe
from worker.training.fitting.timing import Part, PartTimer, SynchronisationCounter
from worker.training.fitting.trainer import Trainer

STEPS: Final = 4
"""Number of timed steps, after one for warm-up."""
TIMED_PAIRS: Final = 24
"""Number of timed pairs of each kind, after a few for warm-up."""


def profile(recipe: Recipe, caches: Sequence[Path], *, painted: Sequence[Path] = (), steps: int = STEPS) -> list[str]:
    """
    Time a few steps, whose results are discarded, and how long each kind of pair takes in this process.

    Parts are timed with a synchronisation between them, so that their sum is more than the time of a step.

    Returns:
        Lines to print.
    """
    timer = PartTimer()
    with TemporaryDirectory() as folder:
        trainer = Trainer(recipe, caches, Path(folder), painted=painted, timer=timer)
        trainer.take_unsaved_steps(1)
        timer.seconds.clear()
        trainer.take_unsaved_steps(steps)
        timed = dict(timer.seconds)
        waits = SynchronisationCounter()
        with waits:
            trainer.take_unsaved_steps(1)
        what, kernels = _kernels(trainer)
    lines = [f"a step of {trainer.images_per_step} images, mean of {steps}:"]
    lines += [f"  {part:<14}{1e3 * timed.get(part, 0.0) / steps:9.2f} ms" for part in get_args(Part)]
    lines += [f"  {what:<14}{kernels:9d}", f"  {'waits':<14}{waits.count:9d}"]
    lines += ["real/fake pairs that one loader process makes:"]
    for kind, stage in _kinds(recipe).items():
        rate = _pairs_per_second(recipe, caches, painted, kind, stage)
        lines.append(f"  {kind:<14}{1e3 / rate:9.2f} ms{rate:9.1f} a second")
    return lines


def _kinds(recipe: Recipe) -> dict[Kind, Stage]:
    """Return a stage for each kind of the last stage's mixture, with its augmentation."""
    last = recipe.stages[-1]
    return {kind: Stage(1, {kind: 1.0}, last.augmentation) for kind, weight in last.mixture.items() if weight > 0.0}


def _pairs_per_second(
    recipe: Recipe, caches: Sequence[Path], painted: Sequence[Path], kind: Kind, stage: Stage
) -> float:
    stream = make_pair_stream(recipe, caches, stages=[stage], painted=painted if kind in get_args(PaintedKind) else ())
    for number in range(4):
        stream.make_pair(number)
    began = time.perf_counter()
    for number in range(4, 4 + TIMED_PAIRS):
        stream.make_pair(number)
    return TIMED_PAIRS / (time.perf_counter() - began)


def _kernels(trainer: Trainer) -> tuple[str, int]:
    """Count the kernels of a step on a GPU, or its innermost operations on a CPU."""
    activities = [ProfilerActivity.CPU]
    is_cuda = torch.cuda.is_available() and next(trainer.network.parameters()).is_cuda
    if is_cuda:
        activities.append(ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as seen:
        trainer.take_unsaved_steps(1)
    # torch.profiler has no types here.
    events = list(seen.events() or [])
    if is_cuda:
        return "kernels", sum(
            str(event.device_type).endswith("CUDA") and not event.name.startswith("Mem") for event in events
        )
    return "operations", sum(event.name.startswith("aten::") and not event.cpu_children for event in events)
