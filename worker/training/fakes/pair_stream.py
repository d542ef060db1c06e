"""
The stream of couples that a network is trained on: real pictures and fakes, each two with the same augmentation.

The couple with a given number is always the same, whatever process makes it and whatever was made before it, so that
training can resume at any number after an interruption.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from worker.training.fakes.augmentation import Augmentation
from worker.training.fakes.device_augmentation import left_to_loaders
from worker.training.fakes.faces import FacePool
from worker.training.fakes.generators.painted_faces import Paintings
from worker.training.fakes.kinds import ALIGNED, Stage
from worker.training.fakes.pair_maker import WHOLE, CoupleMaker


class Couples(IterableDataset[tuple[Tensor, Tensor, Tensor]]):
    """
    An endless, repeatable stream of couples.

    Args:
        caches: Folders of crops; faces of the set *set_name* are used.
        stages: The last one never ends.
        shuffle_labels: Swap the two pictures of a couple at random, so that a test can check that nothing is learnt.
        first: Number of the first batch of this rank.
        real_from: Make fakes of the real faces of these data sets alone; of all, if empty.
        painted: Folders of crops that ``generators.painting.paint_faces`` made of the faces in *caches*.
        data_set_power: Power of the weight of a data set's real media; see ``fitting.recipes.Draws``.
        person_power: The same for the people within a data set.
        leave: Leave out the augmentation that ``device_augmentation.OnDevice`` applies.
        whole: Share of decoded and restored faces that are pasted as whole squares.

    Yields:
        Batches: (2B, 3, S, S) uint8, B real pictures and their B fakes in the same order; (B,) float32, 1 where
        the two of a couple are aligned; and (B, C, C) float32, how much of each cell of a fake was changed, or -1
        where that is not known.

    Raises:
        DataError: No cache holds a real face of the set.
    """

    _arguments: partial[Self]

    def __init__(
        self,
        caches: Sequence[Path],
        stages: Sequence[Stage],
        augmentation: Augmentation,
        *,
        size_px: int,
        margin: float,
        batch: int = 16,
        seed: int = 0,
        set_name: str = "train",
        first: int = 0,
        rank: int = 0,
        ranks: int = 1,
        shuffle_labels: bool = False,
        real_from: Sequence[str] = (),
        painted: Sequence[Path] = (),
        data_set_power: float = 1.0,
        person_power: float = 1.0,
        leave: bool = False,
        whole: float = WHOLE,
    ) -> None:
        self._leave = leave
        self._stages = list(stages)
        self._augmentation = augmentation
        self._batch = batch
        self._seed = seed
        self._first, self._rank, self._ranks = first, rank, ranks
        self._shuffle_labels = shuffle_labels
        self.faces = FacePool(
            caches,
            set_name=set_name,
            real_from=real_from,
            data_set_power=data_set_power,
            person_power=person_power,
        )
        self.paintings = Paintings(painted, [face for _, face in self.faces.real])
        self.maker = CoupleMaker(self.faces, self.paintings, size_px=size_px, margin=margin, whole=whole)

    def __new__(cls, *arguments: Any, **named: Any) -> Self:
        """Keep the arguments for ``__reduce__``."""
        made = super().__new__(cls)
        made._arguments = partial(cls, *arguments, **named)
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        """Make another process read the index of the crops anew, which is quicker than sending it."""
        return self._arguments, ()

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        cv2.setNumThreads(1)
        worker = get_worker_info()
        # Loader processes are asked in turn, so each makes every nth batch, and batches come in order.
        step = self._ranks * (worker.num_workers if worker else 1)
        number = self._first * self._ranks + self._rank + (worker.id * self._ranks if worker else 0)
        while True:
            yield self.batch(number)
            number += step

    def batch(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """Make the batch with this number."""
        rows = [self.couple(number * self._batch + row) for row in range(self._batch)]
        pictures = torch.stack([pictures for pictures, _, _ in rows], dim=1)  # (2, B, 3, S, S)
        aligned, masks = (torch.stack([row[place] for row in rows]) for place in (1, 2))
        return pictures.flatten(0, 1), aligned, masks

    def couple(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """
        Make the couple with this number.

        Returns:
            (2, 3, S, S) uint8, real before fake; whether they are aligned, 0 or 1; and the (C, C) mask of the fake.

        Raises:
            DataError: There are no faces for the kind that its stage draws.
        """
        rng = np.random.default_rng((self._seed, number))
        stage = self._stage(number)
        kind = stage.draw(rng)
        augmentation = stage.augmentation or self._augmentation
        if self._leave:
            augmentation = left_to_loaders(augmentation, self._seed, number)
        pictures, mask = self.maker.make(kind, augmentation, rng)
        if self._shuffle_labels and rng.random() < 0.5:
            pictures.reverse()
            mask = self.maker.unknown_mask()
        planes = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
        return planes, torch.tensor(float(kind in ALIGNED)), torch.from_numpy(mask)

    def _stage(self, number: int) -> Stage:
        for stage in self._stages:
            if number < stage.couples:
                return stage
            number -= stage.couples
        return self._stages[-1]
