"""A script for ``test_train``: trains on every device that a recipe names and writes down what each of them saw."""

import hashlib
import json
import sys
from pathlib import Path

import torch

from worker.training.fitting.recipes import Recipe
from worker.training.fitting.trainer import Trainer


class Watched(Trainer):
    """Keeps a digest of every batch."""

    def train_step(self, pictures, *rest):
        self.batches = [*getattr(self, "batches", []), hashlib.sha256(pictures.numpy().tobytes()).hexdigest()]
        return super().train_step(pictures, *rest)


def main() -> None:
    """Read the arguments: a recipe, a crop cache, and a folder to write to."""
    recipe, cache, out = map(Path, sys.argv[1:])
    trainer = Watched(Recipe.read(recipe), [cache], out / "run")
    trainer.run()
    weights = torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()])
    seen = {
        "batches": trainer.batches,
        "steps": trainer.progress.step,
        "weights": hashlib.sha256(weights.numpy().tobytes()).hexdigest(),
    }
    (out / f"rank-{trainer._fabric.global_rank}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main()
