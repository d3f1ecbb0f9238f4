"""Sums per class and group, and what a model's outputs say: plain arrays that add up."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

CONFIDENCE_BINS = 1000
SUMS = ("counts", "sums", "squares")
PER_CLASS = ("counts", "correct", "loss", "confidence", "entropy")


@dataclass(frozen=True, slots=True, eq=False)
class ClassSums:
    """Counts, sums and squared norms of representations, per class and group.

    Attributes:
        counts: examples, (classes, groups) int64.
        sums: sums of representations, (classes, groups, values) float64.
        squares: sums of squared norms of representations, (classes, groups) float64.
    """

    counts: np.ndarray
    sums: np.ndarray
    squares: np.ndarray

    def __add__(self, other: ClassSums) -> ClassSums:
        return ClassSums(
            self.counts + other.counts, self.sums + other.sums, self.squares + other.squares
        )

    def rows(self, places: Sequence[int], n: int) -> ClassSums:
        """Return the same sums with class i at row places[i] of n rows."""
        return ClassSums(*(_spread(getattr(self, key), places, n) for key in SUMS))


@dataclass(frozen=True, slots=True, eq=False)
class OutputStatistics:
    """What the model's own class scores say about the data.

    Per class of the label, or of the prediction where the data have no labels.

    Attributes:
        labelled: whether the data had labels; without them `correct` and `loss` are zero.
        counts: examples, (classes,) int64.
        correct: examples whose highest score is at their label, (classes,) int64.
        loss: sums of cross-entropy in nats, (classes,) float64.
        confidence: sums of the highest probability, (classes,) float64.
        entropy: sums of the entropy of the probabilities in nats, (classes,) float64.
        histogram: examples per bin of confidence, 1000 equal bins on [0, 1], (2, bins) int64:
            first the wrong ones (all, where the data had no labels), then the correct ones.
    """

    labelled: bool
    counts: np.ndarray
    correct: np.ndarray
    loss: np.ndarray
    confidence: np.ndarray
    entropy: np.ndarray
    histogram: np.ndarray

    @property
    def accuracy(self) -> float | None:
        """Share of examples whose highest score is at their label; None without labels."""
        return float(self.correct.sum() / self.counts.sum()) if self.labelled else None

    @property
    def mean_loss(self) -> float | None:
        """Mean cross-entropy in nats; None without labels."""
        return float(self.loss.sum() / self.counts.sum()) if self.labelled else None

    @property
    def mean_confidence(self) -> float:
        """Mean of the highest probability."""
        return float(self.confidence.sum() / self.counts.sum())

    @property
    def mean_entropy(self) -> float:
        """Mean entropy of the probabilities in nats."""
        return float(self.entropy.sum() / self.counts.sum())

    def __add__(self, other: OutputStatistics) -> OutputStatistics:
        return OutputStatistics(
            self.labelled,
            self.counts + other.counts,
            self.correct + other.correct,
            self.loss + other.loss,
            self.confidence + other.confidence,
            self.entropy + other.entropy,
            self.histogram + other.histogram,
        )

    def rows(self, places: Sequence[int], n: int) -> OutputStatistics:
        """Return the same statistics with class i at row places[i] of n rows."""
        moved: dict[str, Any] = {key: _spread(getattr(self, key), places, n) for key in PER_CLASS}
        return replace(self, **moved)


def groups_of(ids: np.ndarray, groups: int) -> np.ndarray:
    """Return the group (n,) of each example, from a hash of its id.

    The hash is the finaliser of SplitMix64 for integers and BLAKE2b for strings: the same on
    every machine and for both sides of a comparison. method.md, equation 5.

    Args:
        ids: (n,) integers or strings.
        groups: number of groups.

    Example:
        >>> groups_of(np.arange(4), 16).tolist() == groups_of(np.arange(4), 16).tolist()
        True
    """
    if ids.dtype.kind in "US":
        hashed = np.array([_hash_of_text(str(key)) for key in ids], dtype=np.uint64)
    else:
        hashed = ids.astype(np.int64).view(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        hashed = (hashed ^ (hashed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        hashed = (hashed ^ (hashed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        hashed ^= hashed >> np.uint64(31)
    return (hashed % np.uint64(groups)).astype(np.int64)


def _hash_of_text(key: str) -> int:
    # A file name that is not UTF-8 reaches Python with surrogates in it.
    encoded = key.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(encoded, digest_size=8).digest(), "little")


def natural_order(name: str) -> tuple[int, int, str]:
    """Return a sorting key that puts "2" before "10" and numbers before words."""
    return (0, int(name), name) if name.isascii() and name.isdigit() else (1, 0, name)


def _spread(array: np.ndarray, places: Sequence[int], n: int) -> np.ndarray:
    if list(places) == list(range(n)):
        return array
    spread = np.zeros((n, *array.shape[1:]), dtype=array.dtype)
    spread[list(places)] = array
    return spread
