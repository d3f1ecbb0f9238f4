"""The nearest neighbours as a classifier of a new task."""

from __future__ import annotations

import numpy as np

from resque.errors import InputError
from resque.rivals.inputs import checked_task

_BLOCK = 1024


def knn_error(representations: np.ndarray, labels: np.ndarray, k: int = 5) -> float:
    """Return the leave-one-out error of the k nearest neighbours' vote, mean over classes, 0 to 1.

    Cosine distance; of classes with equally many votes that of the nearest neighbour wins. The
    simplest rival on record, and better than 23 others: arXiv:2503.18528. Copies of an example,
    augmented ones too, find each other and make the error too small. Examples without a
    direction, all zero, are at distance 1 from everything.

    Args:
        representations: (n, values), or raw pixels.
        labels: (n,), 0 to C - 1.
        k: neighbours that vote, 1 to n - 1.

    Raises:
        InputError: they are no task, or k is out of range.

    Example:
        >>> points = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
        >>> knn_error(points, np.array([0, 0, 1, 1]), k=1)
        0.0
    """
    values, numbers = checked_task(representations, labels)
    if not 1 <= k < len(values):
        raise InputError(f"k must be 1 to {len(values) - 1} for {len(values)} examples; got {k}.")
    starts = range(0, len(values), _BLOCK)
    wrong = np.zeros(len(values))
    for start in starts:
        block = _directions(values[start : start + _BLOCK])
        # Directions of the others are made block by block again, so that no copy is ever whole.
        cosines = np.concatenate(
            [block @ _directions(values[i : i + _BLOCK]).T for i in starts], axis=1
        )
        rows = np.arange(len(block))
        cosines[rows, start + rows] = -np.inf
        nearest = np.argpartition(-cosines, k - 1, axis=1)[:, :k]
        order = np.argsort(-np.take_along_axis(cosines, nearest, axis=1), axis=1, kind="stable")
        votes = numbers[np.take_along_axis(nearest, order, axis=1)]
        # How many of the k agree with each of them; argmax takes the nearest of the largest.
        agreeing = (votes[:, :, None] == votes[:, None, :]).sum(axis=2)
        chosen = votes[rows, agreeing.argmax(axis=1)]
        wrong[start + rows] = chosen != numbers[start + rows]
    return float(np.mean(np.bincount(numbers, weights=wrong) / np.bincount(numbers)))


def _directions(values: np.ndarray) -> np.ndarray:
    """Return the rows at length 1 in float32; zero where they are zero.

    Half the time of float64; neighbours whose cosines differ by less than 1e-7 are as good as
    equally near.
    """
    wide = values.astype(np.float64)
    norms = np.linalg.norm(wide, axis=1, keepdims=True)
    np.divide(wide, norms, out=wide, where=norms > 0)
    return wide.astype(np.float32)
