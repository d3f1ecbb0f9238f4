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
    directions = np.concatenate(
        [_directions(values[i : i + _BLOCK]).astype(np.float32) for i in starts]
    )
    nearest, apart = np.empty((len(values), k), np.int64), np.empty(len(values))
    for start in starts:
        rows = np.arange(start, min(start + _BLOCK, len(values)))
        nearest[rows], apart[rows] = _nearest(directions[rows] @ directions.T, rows, k)
    alike = np.flatnonzero(apart < _ALIKE)
    for start in range(0, len(alike), _BLOCK):
        rows = alike[start : start + _BLOCK]
        exact = _directions(values[rows])
        cosines = [exact @ _directions(values[i : i + _BLOCK]).T for i in starts]
        nearest[rows], _ = _nearest(np.concatenate(cosines, axis=1), rows, k)
    votes = numbers[nearest]
    # How many of the k agree with each of them; argmax takes the nearest of the largest.
    agreeing = (votes[:, :, None] == votes[:, None, :]).sum(axis=2)
    chosen = votes[np.arange(len(votes)), agreeing.argmax(axis=1)]
    return float(np.mean(np.bincount(numbers, weights=chosen != numbers) / np.bincount(numbers)))


def _nearest(cosines: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of the k largest (rows, k), and how far apart the nearest two are (rows,).

    Of those k and of the one that is next; `rows` says which example each row is of, and that
    one does not count.
    """
    cosines[np.arange(len(rows)), rows] = -np.inf
    some = min(k + 1, cosines.shape[1])
    places = np.argpartition(-cosines, some - 1, axis=1)[:, :some]
    found = np.take_along_axis(cosines, places, axis=1)
    order = np.argsort(-found, axis=1, kind="stable")
    ordered = np.take_along_axis(found, order, axis=1)
    # The example itself, at minus infinity, is the last of all.
    apart = np.where(np.isfinite(ordered[:, 1:]), ordered[:, :-1] - ordered[:, 1:], np.inf)
    return np.take_along_axis(places, order, axis=1)[:, :k], apart.min(axis=1)


def _directions(values: np.ndarray) -> np.ndarray:
    """Return the rows at length 1 in float64; zero where they are zero."""
    wide = values.astype(np.float64)
    norms = np.linalg.norm(wide, axis=1, keepdims=True)
    np.divide(wide, norms, out=wide, where=norms > 0)
    return wide
