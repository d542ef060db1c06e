"""
The stream of real/fake pairs that a network is trained on; both pictures of a pair get the same augmentation.

The pair with a given number does not depend on the process that makes it or on earlier pairs, so that training can
resume at any number.
"""

import copy
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
from worker.training.fakes.device_augmentation import select_loader_augmentation
from worker.training.fakes.faces import FacePool
from worker.training.fakes.generators.painted_faces import PaintedFaceIndex
from worker.training.fakes.kinds import ALIGNED, Stage
from worker.training.fakes.pair_maker import WHOLE_SQUARE_SHARE, RealFakePairMaker


class RealFakePairStream(IterableDataset[tuple[Tensor, Tensor, Tensor]]):
    """
    An endless, repeatable stream of pairs.

    Args:
        caches: Folders of crops; faces of the set *set_name* are used.
        stages: The last one never ends.
        shuffle_labels: Swap the two pictures of a pair at random, so that a test can check that nothing is learnt.
        first: Number of the first batch of this rank.
        real_from: Data sets whose real faces fakes are made from; all if empty.
        painted: Folders of crops that ``generators.painting.paint_faces`` made of the faces in *caches*.
        data_set_power: Power of the weight of a data set's real media; see ``fitting.recipes.SamplingBalance``.
        person_power: The same for the people within a data set.
        augment_on_device: Omit the augmentation that ``device_augmentation.OnDevice`` applies.
        whole: Share of decoded and restored faces that are pasted as whole squares.
        with_clean: Add the same pictures with the same geometry and without any other augmentation.

    Yields:
        Batches: (2B, 3, S, S) uint8, B real pictures and their B fakes in the same order, and *with_clean* these again
        without augmentation, (4B, 3, S, S) in all; (B,) float32, 1 where the two of a pair are aligned; and (B, C, C)
        float32, how much of each cell of a fake was changed, or -1 where that is not known.

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
        augment_on_device: bool = False,
        whole: float = WHOLE_SQUARE_SHARE,
        with_clean: bool = False,
    ) -> None:
        self._augment_on_device = augment_on_device
        self._with_clean = with_clean
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
        self.painted_faces = PaintedFaceIndex(painted, [face for _, face in self.faces.real])
        self.maker = RealFakePairMaker(self.faces, self.painted_faces, size_px=size_px, margin=margin, whole=whole)

    def __new__(cls, *arguments: Any, **named: Any) -> Self:
        """Keep the arguments for ``__reduce__``."""
        made = super().__new__(cls)
        made._arguments = partial(cls, *arguments, **named)
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle only the arguments: reading the index of the crops again is quicker than sending it."""
        return self._arguments, ()

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        cv2.setNumThreads(1)
        worker = get_worker_info()
        # Loader processes are asked in turn, so each makes every nth batch, and batches come in order.
        step = self._ranks * (worker.num_workers if worker else 1)
        number = self._first * self._ranks + self._rank + (worker.id * self._ranks if worker else 0)
        while True:
            yield self.make_batch(number)
            number += step

    def make_batch(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """Make the batch with this number."""
        rows = [self.make_pair(number * self._batch + row) for row in range(self._batch)]
        pictures = torch.stack([pictures for pictures, _, _ in rows], dim=1)  # (2 or 4, B, 3, S, S)
        aligned, masks = (torch.stack([row[place] for row in rows]) for place in (1, 2))
        return pictures.flatten(0, 1), aligned, masks

    def make_pair(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """
        Make the pair with this number.

        Returns:
            (2, 3, S, S) uint8, real before fake, or (4, 3, S, S) with the clean ones after them; whether they are
            aligned, 0 or 1; and the (C, C) mask of the fake.

        Raises:
            DataError: There are no faces for the kind that its stage draws.
        """
        rng = np.random.default_rng((self._seed, number))
        stage = self._stage_of(number)
        kind = stage.draw(rng)
        augmentation = stage.augmentation or self._augmentation
        if self._augment_on_device:
            augmentation = select_loader_augmentation(augmentation, self._seed, number)
        # The pair is made twice with the same random numbers, of which the last ones draw the augmentation.
        again = copy.deepcopy(rng)
        pictures, mask = self.maker.make(kind, augmentation, rng)
        if self._with_clean:
            pictures += self.maker.make(kind, augmentation.without_changes(), again)[0]
        if self._shuffle_labels and rng.random() < 0.5:
            pictures = [pictures[place ^ 1] for place in range(len(pictures))]
            mask = self.maker.make_unknown_mask()
        planes = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
        return planes, torch.tensor(float(kind in ALIGNED)), torch.from_numpy(mask)

    def _stage_of(self, number: int) -> Stage:
        for stage in self._stages:
            if number < stage.pairs:
                return stage
            number -= stage.pairs
        return self._stages[-1]
