"""The kinds of real/fake pairs in a mixture, and the stages of training, with one mixture each."""

from bisect import bisect
from collections.abc import Mapping
from itertools import accumulate
from typing import Final, Literal, get_args

from numpy.random import Generator

from worker.training.fakes.augmentation import Augmentation
from worker.training.fakes.generators.painting import PaintedKind

Kind = Literal[
    "textbook",
    "subtle",
    "painted",
    "decoded",
    "restored",
    "inpainted",
    "swap",
    "transplant",
    "pairs",
    "parts",
    "originals",
    "labelled",
]
"""
``textbook`` and ``subtle``: a face blended into its own picture, in two styles. ``painted``, ``decoded``, ``restored``
and ``inpainted``: painted by a network (``generators.painting.PaintedKind``). ``swap``: swapped between two people.
``transplant``: a face that a data set's generator made, blended into another real picture. ``pairs``: both halves of a
side-by-side frame, as in data sets of the kind ``pairs``. ``parts``: parts of its swapped half over its original.
``originals``: fakes of a data set beside the pictures that they were made from. ``labelled``: unrelated real and fake
pictures of a data set.

Where few people are swapped into many pictures, a network learns to recognise these people from whole swapped faces,
and fails on others. Parts of a face do not identify a person.
"""
Mixture = Mapping[Kind, float]
ALIGNED: Final[frozenset[Kind]] = frozenset(
    {"textbook", "subtle", *get_args(PaintedKind), "swap", "transplant", "pairs", "parts", "originals"}
)
"""Kinds whose two pictures differ by the swap alone."""
WHOLE_SQUARE_KINDS: Final[frozenset[Kind]] = frozenset({"decoded", "restored"})
"""Kinds whose networks paint a whole square, which may be pasted without a face mask."""


class Stage:
    """
    A part of training with one mixture.

    Args:
        pairs: Number of pairs.
        mixture: Kinds and their weights.
        augmentation: Replaces that of the whole stream.
    """

    def __init__(self, pairs: int, mixture: Mixture, augmentation: Augmentation | None = None) -> None:
        self.pairs = pairs
        self.augmentation = augmentation
        self.kinds = sorted(mixture)
        self.limits = list(accumulate(mixture[kind] for kind in self.kinds))

    def draw(self, rng: Generator) -> Kind:
        """Draw a kind, each in proportion to its weight."""
        return self.kinds[min(bisect(self.limits, rng.random() * self.limits[-1]), len(self.kinds) - 1)]
