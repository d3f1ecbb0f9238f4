"""The nearest neighbours as a classifier of a new task."""

from __future__ import annotations

import numpy as np

from resque.errors import InputError
from resque.rivals.inputs import checked_task

_BLOCK = 1024
# In float32, which takes half the time, cosines nearer to each other than this are not in order.
_ALIKE = 1e-6


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
        block = _directions(values[start : start + _BLOCK], np.float32)
        # Directions of the others are made block by block again, so that no copy is ever whole.
        cosines = np.concatenate(
            [block @ _directions(values[i : i + _BLOCK], np.float32).T for i in starts], axis=1
        )
        rows = np.arange(len(block))
        cosines[rows, start + rows] = -np.inf
        nearest, apart = _nearest(cosines, k)
        alike = np.flatnonzero(apart < _ALIKE)
        if len(alike):
            exact = _directions(values[start + alike], np.float64)
            cosines = np.concatenate(
                [exact @ _directions(values[i : i + _BLOCK], np.float64).T for i in starts], axis=1
            )
            cosines[np.arange(len(alike)), start + alike] = -np.inf
            nearest[alike], _ = _nearest(cosines, k)
        votes = numbers[nearest]
        # How many of the k agree with each of them; argmax takes the nearest of the largest.
        agreeing = (votes[:, :, None] == votes[:, None, :]).sum(axis=2)
        chosen = votes[rows, agreeing.argmax(axis=1)]
        wrong[start + rows] = chosen != numbers[start + rows]
    return float(np.mean(np.bincount(numbers, weights=wrong) / np.bincount(numbers)))


def _nearest(cosines: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of the k largest (rows, k), and how far apart the nearest two are (rows,).

    Of those k and of the one that is next.
    """
    some = min(k + 1, cosines.shape[1])
    places = np.argpartition(-cosines, some - 1, axis=1)[:, :some]
    found = np.take_along_axis(cosines, places, axis=1)
    order = np.argsort(-found, axis=1, kind="stable")
    ordered = np.take_along_axis(found, order, axis=1)
    # The example itself, at minus infinity, is the last of all.
    apart = np.where(np.isfinite(ordered[:, 1:]), ordered[:, :-1] - ordered[:, 1:], np.inf)
    return np.take_along_axis(places, order, axis=1)[:, :k], apart.min(axis=1)


def _directions(values: np.ndarray, dtype: type) -> np.ndarray:
    """Return the rows at length 1; zero where they are zero."""
    wide = values.astype(np.float64)
    norms = np.linalg.norm(wide, axis=1, keepdims=True)
    np.divide(wide, norms, out=wide, where=norms > 0)
    return wide.astype(dtype)
