"""The kinds of couples that a mixture may hold, and stages of training with one mixture each."""

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
side-by-side frame. ``parts``: parts of its swapped half over its original. ``originals``: fakes of a data set beside
the pictures that they were made from. ``labelled``: real and fake pictures of a data set that do not belong together.

Where few people are swapped into many pictures, a network learns to recognise these people from whole swapped faces,
and fails on others. Parts of a face do not identify a person.
"""
Mixture = Mapping[Kind, float]
ALIGNED: Final[frozenset[Kind]] = frozenset(
    {"textbook", "subtle", *get_args(PaintedKind), "swap", "transplant", "pairs", "parts", "originals"}
)
"""Kinds whose two pictures differ by the swap alone."""
SQUARES: Final[frozenset[Kind]] = frozenset({"decoded", "restored"})
"""Kinds whose networks paint a whole square, which may be pasted as such."""


class Stage:
    """
    A stretch of training with one mixture.

    Args:
        couples: Length in couples.
        mixture: Kinds and their weights.
        augmentation: Replaces that of the whole stream.
    """

    def __init__(self, couples: int, mixture: Mixture, augmentation: Augmentation | None = None) -> None:
        self.couples = couples
        self.augmentation = augmentation
        self.kinds = sorted(mixture)
        self.limits = list(accumulate(mixture[kind] for kind in self.kinds))

    def draw(self, rng: Generator) -> Kind:
        """Draw a kind, each in proportion to its weight."""
        return self.kinds[min(bisect(self.limits, rng.random() * self.limits[-1]), len(self.kinds) - 1)]
